import {
  Client,
  type ClientOptions,
  credentials,
  type ClientReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  Server,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pino } from "pino";
import type { Clock } from "../../src/base/clock.ts";
import { Metrics } from "../../src/base/metrics.ts";
import { type CertificateRequest, type Issued, issueCertificate } from "../../src/dev/certificates.ts";
import { refusalOf } from "../../src/rpc/connection.ts";
import { Front, type FrontOptions } from "../../src/rpc/front.ts";
import { createGrpcServerOptions } from "../../src/rpc/front-limits.ts";
import { tempFolder } from "./temp.ts";

export const DAY = 86_400_000;
export const APP = "spiffe://acme.test/ns/payments/sa/app";
const ECHO = "/test.Echo/Call";
const STREAM = "/test.Echo/Stream";

/** Stands still until told. Timers due fire in order. */
export class ManualClock implements Clock {
  #now = Date.now();
  readonly #timers = new Set<{ readonly at: number; readonly run: () => void }>();
  now(): number {
    return this.#now;
  }
  after(ms: number, run: () => void): () => void {
    const timer = { at: this.#now + Math.max(0, ms), run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }
  advance(ms: number): void {
    this.#now += ms;
    for (const timer of [...this.#timers].toSorted((a, b) => a.at - b.at)) if (timer.at <= this.#now && this.#timers.delete(timer)) timer.run();
  }
}

export interface TestFront {
  readonly front: Front;
  readonly folder: string;
  readonly metrics: Metrics;
  readonly log: () => string;
  readonly root: Issued;
  /** The server's side of every stream so far. */
  readonly streams: readonly ServerWritableStream<Buffer, Buffer>[];
  /** Writes a file of the front's material by rename, as cert-manager and others do. */
  write(name: string, text: string): void;
  issue(request?: Partial<CertificateRequest>): Promise<Issued>;
  client(identity?: Issued, options?: ClientOptions & { readonly chain?: string; readonly trust?: string }): TestClient;
  refused(reason: string): number;
  close(): Promise<void>;
}

export interface FrontSetup extends Partial<Omit<FrontOptions, "files">> {
  readonly folder?: string;
  /** Trust domains beside acme.test, with their bundle. */
  readonly others?: Readonly<Record<string, string>>;
  readonly crl?: (root: Issued) => Promise<string>;
  readonly crlExpired?: "refuse" | "accept";
  readonly root?: Issued;
}

export function issueServer(root: Issued, request: Partial<CertificateRequest> = {}): Promise<Issued> {
  const dns = ["localhost", "beta.test.leasehold.acme.test"];
  return issueCertificate({ name: "server", issuer: root, dns, ips: ["127.0.0.1"], uris: ["spiffe://acme.test/leasehold"], validForMs: DAY, ...request });
}

/** A front for acme.test on a free port, with an echo service behind it that answers who calls, as the pipeline would find out. */
export async function startFront(setup: FrontSetup = {}): Promise<TestFront> {
  const { others = {}, crl, crlExpired = "refuse" } = setup;
  const folder = setup.folder ?? tempFolder("front");
  mkdirSync(folder, { recursive: true });
  const root = setup.root ?? (await issueCertificate({ name: "acme root", ca: true, validForMs: 30 * DAY }));
  const write = (name: string, text: string): void => {
    writeFileSync(join(folder, `${name}.new`), text);
    renameSync(join(folder, `${name}.new`), join(folder, name));
  };
  const server = await issueServer(root);
  write("server.crt", server.certificatePem);
  write("server.key", server.keyPem);
  write("acme.pem", root.certificatePem);
  for (const [name, bundle] of Object.entries(others)) write(`${name}.pem`, bundle);
  if (crl !== undefined) write("acme.crl", await crl(root));
  let lines = "";
  const metrics = new Metrics();
  const front = new Front({
    files: {
      certificateFile: join(folder, "server.crt"),
      keyFile: join(folder, "server.key"),
      trust: [
        { trustDomain: "acme.test", bundleFile: join(folder, "acme.pem"), crlFile: crl && join(folder, "acme.crl"), crlExpired },
        ...Object.keys(others).map((name) => ({
          trustDomain: name,
          bundleFile: join(folder, `${name}.pem`),
          crlFile: undefined,
          crlExpired: "refuse" as const,
        })),
      ],
    },
    listen: "127.0.0.1:0",
    refuse: "handshake",
    log: pino({ level: "info" }, { write: (line: string) => void (lines += line) }),
    metrics,
    ...setup,
  });
  const streams: ServerWritableStream<Buffer, Buffer>[] = [];
  await front.start(echoServer(front, setup.clock, streams));
  const clients: TestClient[] = [];
  return {
    front,
    folder,
    metrics,
    log: () => lines,
    root,
    streams,
    write,
    issue: (request) => issueCertificate({ name: "app", issuer: root, uris: [APP], validForMs: DAY, ...request }),
    client(identity, { chain = "", trust = root.certificatePem, ...options } = {}) {
      const pair = identity === undefined ? ([null, null] as const) : ([Buffer.from(identity.keyPem), Buffer.from(identity.certificatePem + chain)] as const);
      const target = front.address.startsWith("unix:") ? front.address : `dns:${front.address.replace("127.0.0.1", "localhost")}`;
      const client = new TestClient(target, Buffer.from(trust), pair, options);
      clients.push(client);
      return client;
    },
    refused: (reason) => metrics.counter("leasehold_connections_refused_total", "Connections refused, by reason.", { reason }).value,
    async close() {
      for (const client of clients) client.close();
      await front.drain(0);
    },
  };
}

export interface Echo {
  readonly peer: string;
  readonly principal: string;
}

export class TestClient {
  readonly #client: Client;
  constructor(target: string, trust: Buffer, [key, cert]: readonly [Buffer, Buffer] | readonly [null, null], options: ClientOptions) {
    // Its own connection, and quick to come back.
    const own = {
      "grpc.use_local_subchannel_pool": 1,
      "grpc.initial_reconnect_backoff_ms": 20,
      "grpc.max_reconnect_backoff_ms": 100,
      ...(target.startsWith("unix:") && { "grpc.ssl_target_name_override": "localhost" }),
    };
    this.#client = new Client(target, credentials.createSsl(trust, key, cert), { ...own, ...options });
  }
  call(delayMs = 0, waitForReady = false): Promise<Echo> {
    return new Promise((resolve, reject) => {
      const deadline = Date.now() + 20_000;
      this.#client.makeUnaryRequest(
        ECHO,
        (value: string) => Buffer.from(value),
        (bytes: Buffer) => JSON.parse(bytes.toString()) as Echo,
        String(delayMs),
        { deadline, ...(waitForReady && { waitForReady }) } as object,
        (error, value) => (error === null ? resolve(value!) : reject(error)),
      );
    });
  }
  /** The call's failure as `CODE details`. */
  async failure(): Promise<string> {
    try {
      const { principal } = await this.call();
      return `OK ${principal}`;
    } catch (error) {
      return failureOf(error as ServiceError);
    }
  }
  stream(): ClientReadableStream<string> {
    const stream = this.#client.makeServerStreamRequest(STREAM, (value: string) => Buffer.from(value), String, "");
    stream.on("error", () => {});
    return stream;
  }
  close(): void {
    this.#client.close();
  }
}

export function failureOf(error: ServiceError): string {
  return `${status[error.code]} ${error.details}`;
}

function echoServer(front: Front, clock: Clock | undefined, streams: ServerWritableStream<Buffer, Buffer>[]): Server {
  const server = new Server(createGrpcServerOptions());
  const raw = {
    requestSerialize: (v: Buffer) => v,
    requestDeserialize: (v: Buffer) => v,
    responseSerialize: (v: Buffer) => v,
    responseDeserialize: (v: Buffer) => v,
  };
  server.addService(
    {
      call: { path: ECHO, requestStream: false, responseStream: false, ...raw },
      stream: { path: STREAM, requestStream: false, responseStream: true, ...raw },
    },
    {
      call(call: ServerUnaryCall<Buffer, Buffer>, done: (error: Partial<ServiceError> | null, value?: Buffer) => void) {
        const connection = front.connectionOf(call.getPeer());
        const refusal = refusalOf(connection, clock?.now() ?? Date.now());
        if (refusal !== undefined) return done({ code: status.UNAUTHENTICATED, details: `${refusal} ${connection?.why ?? ""}` });
        const answer = JSON.stringify({ peer: call.getPeer(), principal: connection!.principal!.id });
        const delay = Number(call.request.toString());
        if (delay === 0) done(null, Buffer.from(answer));
        else setTimeout(() => done(null, Buffer.from(answer)), delay);
      },
      stream(call: ServerWritableStream<Buffer, Buffer>) {
        streams.push(call);
        call.write(Buffer.from("first"));
      },
    },
  );
  return server;
}
