import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Sensitive } from "../../base/sensitive.ts";
import { signatureOf } from "../../base/webhook-signature.ts";
import { TLS_CODE } from "../../engines/tls.ts";
import { refused, unreachable, wordOf } from "../outside.ts";
import type { WebhookConfig } from "./config.ts";
import { problemIn } from "./message.ts";

/** A version has at most 64 KiB, a third more in base64. */
const MAX_ANSWER_BYTES = 256 * 1024;
const MAX_HEADER_BYTES = 16 * 1024;
/** They say that this candidate, or this request, won't do, now or later. */
const NO: ReadonlySet<number> = new Set([400, 409, 412, 413, 415, 422]);

export interface Posting {
  readonly body: Buffer;
  readonly key: Sensitive;
  readonly candidateId: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Unix milliseconds. */
  readonly now: number;
}

/**
 * One signed request on a connection of its own. Answers what the service said, undefined for 501 (not implemented), `null` for nothing. A redirect is not followed: it would lead secrets where nobody said they should go.
 * Throws TARGET_MISCONFIGURED for a no, TARGET_UNAVAILABLE for everything else; neither carries anything of the answer but a word.
 */
export async function post(config: WebhookConfig, posting: Posting): Promise<unknown> {
  const { status, text } = await send(config, posting);
  const answer = parse(text);
  if (status === 501) return undefined;
  if (status >= 200 && status < 300) {
    if (answer === undefined) throw refused("malformed_answer");
    return answer;
  }
  if (NO.has(status)) throw refused(wordOf(problemIn(answer), status === 409 ? "generation_passed" : "refused"));
  throw unreachable(`http_${status}`);
}

function parse(text: string): unknown {
  if (text.trim() === "") return null;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined; // the error would quote the text
  }
}

function send(config: WebhookConfig, { body, key, candidateId, timeoutMs, signal, now }: Posting): Promise<{ readonly status: number; readonly text: string }> {
  const url = new URL(config.url);
  const encrypted = url.protocol === "https:";
  const options = {
    method: "POST",
    agent: false as const,
    headers: {
      "content-type": "application/json",
      "content-length": String(body.length),
      accept: "application/json",
      "user-agent": "leasehold",
      "idempotency-key": candidateId,
      "leasehold-signature": signatureOf([{ id: 1, secret: key }], body, now),
    },
    maxHeaderSize: MAX_HEADER_BYTES,
    signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
    ...(encrypted ? { minVersion: "TLSv1.2" as const, rejectUnauthorized: true, ...(config.caPem === undefined ? {} : { ca: config.caPem }) } : {}),
  };
  return new Promise((resolve, reject) => {
    const fail = (error: NodeJS.ErrnoException): void => {
      const code = error.code ?? error.name;
      reject(unreachable(TLS_CODE.test(code) ? "tls" : "unreachable", code));
    };
    const request = (encrypted ? httpsRequest : httpRequest)(url, options, (response) => {
      collect(response).then((text) => resolve({ status: response.statusCode ?? 0, text }), reject);
    });
    request.once("error", fail);
    request.end(body);
  });
}

function collect(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  return new Promise((resolve, reject) => {
    response.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MAX_ANSWER_BYTES) {
        reject(refused("answer_too_large"));
        response.destroy();
      } else chunks.push(chunk);
    });
    response.once("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
    response.once("error", (error: NodeJS.ErrnoException) => reject(unreachable("unreachable", error.code ?? error.name)));
    response.once("close", () => reject(unreachable("unreachable", "closed")));
  });
}
