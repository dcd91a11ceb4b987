import type { Reason } from "../base/errors.ts";
import type { Capability } from "./capability.ts";

/** Who does something, and in which call: goes into the audit record of a change. `system` acts have no request id. */
export interface Actor {
  /** SPIFFE id, or `system`. */
  readonly principal: string;
  /** Id of the call (our own, not the client's idempotency key); empty for automatic acts. */
  readonly requestId: string;
  /** W3C trace id, 32 hexadecimal digits, or empty. */
  readonly traceId: string;
  /** `SecretService/PutSecret`, or the automatic act: `lease.expire`. */
  readonly action: string;
  readonly capability: Capability | "";
  /** Peer address in clear; the audit writes a keyed hash. Empty for automatic acts. */
  readonly peer: string;
  /** Why an automatic act was done: `expired`, `undelivered`, ... */
  readonly cause?: string;
}

/** One audit record, before it has its place in a chain. */
export interface AuditEntry extends Actor {
  /** Process clock, Unix milliseconds. */
  readonly at: number;
  readonly path: string;
  readonly outcome: "ok" | Reason;
  readonly version?: number;
  /** Lease id in clear; the audit writes a keyed hash. */
  readonly lease?: string;
  /** How many equal denials this record stands for, if more than one. */
  readonly count?: number;
}

/** The actor of automatic work. */
export function systemActor(action: string, cause: string, traceId = ""): Actor {
  return { principal: "system", requestId: "", traceId, action, capability: "", peer: "", cause };
}
