import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Service } from "../base/lifecycle.ts";
import type { Metrics } from "../base/metrics.ts";
import { CONTENT_TYPE, renderPrometheus } from "./prometheus.ts";

/**
 * `GET /metrics` on a plain HTTP listener of its own. It has no names of principals or paths, but it has no TLS either: the default address is
 * the loopback.
 */
export class PrometheusListener implements Service {
  readonly #metrics: Metrics;
  readonly #host: string;
  readonly #port: number;
  #server: Server | undefined;

  /** @param address `127.0.0.1:9464`, `[::1]:9464`; port 0 takes a free one. */
  constructor(metrics: Metrics, address: string) {
    const colon = address.lastIndexOf(":");
    this.#metrics = metrics;
    this.#host = address.slice(0, Math.max(colon, 0)).replace(/^\[(.*)\]$/, "$1");
    this.#port = Number(address.slice(colon + 1));
    observeProcess(metrics);
  }

  /** The port it listens on. */
  get port(): number {
    return (this.#server?.address() as AddressInfo | null | undefined)?.port ?? 0;
  }

  /** Rejects when the address can't be had. */
  async start(): Promise<void> {
    const server = createServer({ requestTimeout: 5000, headersTimeout: 5000 }, (request, response) => {
      const found = request.url === "/metrics" && (request.method === "GET" || request.method === "HEAD");
      response.writeHead(found ? 200 : 404, { "content-type": found ? CONTENT_TYPE : "text/plain" });
      response.end(found ? renderPrometheus(this.#metrics) : "see /metrics\n");
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.#port, this.#host, resolve);
    });
    this.#server = server;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** The names that Prometheus's own dashboards know. */
function observeProcess(metrics: Metrics): void {
  const startedAt = Date.now() / 1000 - process.uptime();
  metrics.observe("process_start_time_seconds", "Start of the process, Unix time.", () => startedAt);
  metrics.observe("process_resident_memory_bytes", "Resident memory.", () => process.memoryUsage.rss());
  metrics.observe("process_cpu_seconds", "CPU time used, user and system.", () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
}
