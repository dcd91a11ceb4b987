import { createHmac } from "node:crypto";
import type { Sensitive } from "./sensitive.ts";

export interface SigningKey {
  /** Says which key it is, where several sign. */
  readonly id: number;
  readonly secret: Sensitive;
}

/**
 * The header `Leasehold-Signature` of requests to a webhook: `t=<Unix seconds>,kid=<key>,v1=<hex>`, a `kid` and a `v1` for each key that signs. v1 is HMAC-SHA-256 over the time, a dot and the body as it was sent; so a request can't
 * be altered, nor sent again later than the receiver accepts. @param now Unix milliseconds.
 */
export function signatureOf(keys: readonly SigningKey[], body: Uint8Array, now: number): string {
  const time = Math.floor(now / 1000);
  const parts = keys.map(({ id, secret }) => {
    const mac = createHmac("sha256", secret.reveal()).update(`${time}.`).update(body).digest("hex");
    return `kid=${id},v1=${mac}`;
  });
  return [`t=${time}`, ...parts].join(",");
}
