import { createServer as createHttp, type IncomingHttpHeaders, type Server } from "node:http";
import { createServer as createHttps } from "node:https";
import type { AddressInfo } from "node:net";
import { type Delivery, verify } from "../../examples/webhook-receiver.ts";
import { bundle, identity } from "./pki.ts";

export const SIGNING_SECRET = "correct-horse-battery-staple";

export interface Received {
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly delivery: Delivery;
  /** By the example's own check, with SIGNING_SECRET. */
  readonly verified: boolean;
  /** What was answered; undefined: nothing yet. */
  status: number | undefined;
}

/** A webhook's receiver: a real server whose answers the test decides. */
export interface Receiver {
  readonly url: string;
  /** PEM of the CA that vouches for it; empty without TLS. */
  readonly ca: string;
  /** Every request, as they came. */
  readonly requests: Received[];
  /** Requests that were being answered at the same time, at most. */
  readonly mostAtOnce: number;
  /** Status to answer; a promise holds the request. At first 204. */
  answer: (received: Received) => number | Promise<number>;
  /** Headers of every answer. */
  headers: Record<string, string>;
  /** `path@version` of the events that were accepted, in order, each once: what a receiver that minds revisions has dealt with. */
  accepted(): string[];
  /** Nobody listens any more. */
  stop(): Promise<void>;
  /** Again, on the same port. */
  start(): Promise<void>;
}

export async function startReceiver(options: { readonly tls?: boolean } = {}): Promise<Receiver> {
  const tls = options.tls !== false;
  const { certificatePem, keyPem } = await identity("server");
  const ca = tls ? await bundle("acme") : "";
  let server: Server | undefined;
  let port = 0;
  let [open, most] = [0, 0];
  const requests: Received[] = [];
  const receiver: Receiver = {
    get url() {
      return tls ? `https://localhost:${port}/hook` : `http://127.0.0.1:${port}/hook`;
    },
    ca,
    requests,
    get mostAtOnce() {
      return most;
    },
    answer: () => 204,
    headers: {},
    accepted() {
      const seen = new Set<string>();
      for (const { delivery, status } of requests) {
        if (status === undefined || status >= 300) continue;
        for (const event of delivery.events ?? []) seen.add(`${event.path}@${event.version ?? "0"}`);
      }
      return [...seen];
    },
    async stop() {
      const stopping = server;
      server = undefined;
      stopping?.closeAllConnections();
      await new Promise<void>((resolve) => (stopping === undefined ? resolve() : stopping.close(() => resolve())));
    },
    async start() {
      const listener = tls ? createHttps({ cert: certificatePem, key: keyPem }) : createHttp();
      listener.on("request", (request, response) => {
        const chunks: Buffer[] = [];
        request.on("data", (chunk: Buffer) => void chunks.push(chunk));
        request.on("end", () => {
          const body = Buffer.concat(chunks);
          const verified = verify(String(request.headers["leasehold-signature"]), body, [SIGNING_SECRET], Date.now() / 1000);
          const delivery = JSON.parse(body.toString("utf8")) as Delivery;
          const received: Received = { headers: request.headers, body, delivery, verified, status: undefined };
          requests.push(received);
          most = Math.max(most, ++open);
          void Promise.resolve(receiver.answer(received)).then((status) => {
            open--;
            received.status = status;
            response.writeHead(status, receiver.headers).end("thanks, and a secret of ours");
          });
        });
      });
      await new Promise<void>((resolve) => void listener.listen(port, "127.0.0.1", resolve));
      ({ port } = listener.address() as AddressInfo);
      server = listener;
    },
  };
  await receiver.start();
  return receiver;
}
