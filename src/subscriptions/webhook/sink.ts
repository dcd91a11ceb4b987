import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import type { WebhookConfig } from "../../model/subscription.ts";
import { connectionProblem, type DestinationRules, DestinationRefused, guardedLookup, hostProblem } from "../destination.ts";
import type { Outgoing, Render, Sink, Verdict } from "../sink.ts";
import type { SinkSecrets } from "../sink-secrets.ts";
import { signatureOf } from "../../base/webhook-signature.ts";
import { verdictOf } from "./verdict.ts";

/** Of an answer's body, which is thrown away: beyond it the connection is closed. */
const MAX_ANSWER_BYTES = 64 * 1024;
const MAX_HEADER_BYTES = 16 * 1024;
const IDLE_MS = 4000;

/** One receiver over HTTP: a POST each delivery, one at a time, on a connection that is kept while there is something to deliver. */
export class WebhookSink implements Sink {
  readonly #config: WebhookConfig;
  readonly #secrets: SinkSecrets;
  readonly #rules: DestinationRules;
  readonly #render: Render;
  readonly #url: URL;
  readonly #agent: HttpAgent | HttpsAgent;

  constructor(config: WebhookConfig, secrets: SinkSecrets, rules: DestinationRules, render: Render) {
    this.#config = config;
    this.#secrets = secrets;
    this.#rules = rules;
    this.#render = render;
    this.#url = new URL(config.url);
    const options = { keepAlive: true, maxSockets: 1, timeout: Math.max(config.timeoutMs, IDLE_MS) };
    this.#agent = this.#encrypted
      ? new HttpsAgent({ ...options, minVersion: "TLSv1.2", rejectUnauthorized: true, ...(config.caPem === undefined ? {} : { ca: config.caPem }) })
      : new HttpAgent(options);
  }

  async deliver(outgoing: Outgoing, signal: AbortSignal): Promise<Verdict> {
    const body = Buffer.from(this.#render.delivery(outgoing), "utf8");
    try {
      const answer = await this.#post(outgoing, body, AbortSignal.any([signal, AbortSignal.timeout(this.#config.timeoutMs)]));
      return verdictOf(answer.status, answer.retryAfter, Date.now());
    } catch (error) {
      return { kind: "unavailable", problem: connectionProblem(error) };
    }
  }

  close(): void {
    this.#agent.destroy();
    this.#secrets.wipe();
  }

  get #encrypted(): boolean {
    return this.#url.protocol === "https:";
  }

  #post(outgoing: Outgoing, body: Buffer, signal: AbortSignal): Promise<{ readonly status: number; readonly retryAfter: string | undefined }> {
    const host = this.#url.hostname.replace(/^\[|\]$/g, "");
    const problem = hostProblem(host, this.#encrypted, this.#rules);
    if (problem !== undefined) throw new DestinationRefused(problem);
    const request = (this.#encrypted ? httpsRequest : httpRequest)(this.#url, {
      method: "POST",
      agent: this.#agent,
      headers: this.#headers(outgoing, body),
      lookup: guardedLookup(this.#encrypted, this.#rules),
      maxHeaderSize: MAX_HEADER_BYTES,
      signal,
    });
    return new Promise((resolve, reject) => {
      request.once("error", reject);
      request.once("response", (answer) => {
        request.off("error", reject).on("error", () => {}); // the status has come: what breaks off is the rest
        const done = { status: answer.statusCode ?? 0, retryAfter: answer.headers["retry-after"] };
        discard(answer, () => resolve(done));
      });
      request.end(body);
    });
  }

  #headers(outgoing: Outgoing, body: Buffer): Record<string, string> {
    const { delivery, id, fence } = outgoing;
    const headers: Record<string, string> = { ...this.#config.headers };
    for (const [name, value] of this.#secrets.headers) headers[name] = value.revealText();
    return {
      ...headers,
      "content-type": "application/json",
      "content-length": String(body.length),
      "user-agent": "leasehold",
      "idempotency-key": id,
      "leasehold-delivery": id,
      "leasehold-subscription": `subscriptions/${delivery.name}`,
      "leasehold-fence": String(fence),
      "leasehold-signature": signatureOf(this.#secrets.signingKeys(Date.now()), body, Date.now()),
    };
  }
}

/** What the receiver says beyond its status is nobody's business: it could be anything that the broker can reach. */
function discard(answer: IncomingMessage, done: () => void): void {
  let bytes = 0;
  answer.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > MAX_ANSWER_BYTES) answer.destroy();
  });
  answer.once("error", () => {}); // its status is known
  answer.once("close", done);
}
