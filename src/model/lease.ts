import { invalid, LeaseholdError } from "../base/errors.ts";

/**
 * The life of a lease. Every move is a compare-and-set on the row's generation, made by `commit_changes()`; but for ACTIVE → REVOKING at its expiry, which is made by whoever claims it
 * (src/store/due-leases.ts).
 *
 *   PENDING ──▶ ACTIVE ──▶ REVOKING ──▶ REVOKED
 *      │                      ▲            │
 *      ├──────────────────────┤            │   (a probe found a login under a terminal row)
 *      ▼                      └────────────┤
 *   ROLLED_BACK ──────────────────────────▶┘
 *
 * PENDING: committed, the target is being asked. Rolled back only once the creation's deadline has passed on the target's clock and its statement can't be
 * running any more; if the login is there then, it goes the way of a revocation. REVOKING never gives up. A terminal row is probed once more when the login's own
 * VALID UNTIL has passed, then nothing is due.
 *
 * The warm pool: PENDING with nobody's name on it → READY (the login is there and can't log in) → ACTIVE, taken by an issue; or READY → REVOKING when it is too old, or its role was changed. Some are drawn ahead, READY → PENDING
 * with a deadline: one replica may enable such a login while it commits the issue that takes it (→ ACTIVE); unused it goes back (→ READY), forgotten it goes the way of PENDING (docs/adr/0023).
 *
 * ACTIVE is what the ledger has decided; two things of it the target may not have followed yet: `enabling`, a login of the pool may still be unable to log in, and `renewingTo`, its VALID UNTIL may still
 * be that of before a renewal. Nobody has been answered then, or the target was seen to follow and the row is about to be told. Whoever dies in between leaves it to the schedule, which brings the target
 * to what is decided (docs/adr/0014).
 */
export type LeaseState = "PENDING" | "READY" | "ACTIVE" | "REVOKING" | "REVOKED" | "ROLLED_BACK";
export const LIVE_STATES: readonly LeaseState[] = ["PENDING", "ACTIVE", "REVOKING"];

export type EndCause = "EXPIRED" | "REVOKED" | "UNDELIVERED" | "ISSUE_FAILED" | "POOL" | "FORGOTTEN" | "MISSING";

/** A lease as stored, without its sealed password. Times are Unix milliseconds, by the database's clock. */
export interface LeaseRecord {
  readonly id: string;
  /** Role path. */
  readonly path: string;
  readonly targetUid: string;
  readonly principal: string;
  readonly state: LeaseState;
  readonly generation: number;
  readonly username: string;
  readonly oid: string | undefined;
  readonly systemIdentifier: string | undefined;
  /** What a client connects with, without the password. */
  readonly connection: Readonly<Record<string, string>>;
  readonly ownedObjects: unknown;
  readonly issuedAt: number;
  readonly expireAt: number;
  readonly renewAt: number;
  readonly maxExpireAt: number;
  /** The end that the target's VALID UNTIL has not been seen to follow yet. */
  readonly renewingTo: number | undefined;
  /** Taken from the pool, and not yet seen to be able to log in. */
  readonly enabling: boolean;
  readonly nextActionAt: number | undefined;
  readonly attempts: number;
  readonly problem: string | undefined;
  readonly stalled: boolean;
  readonly endCause: EndCause | undefined;
  readonly endedAt: number | undefined;
  readonly delivered: boolean;
  readonly traceId: string;
}

/** What anyone is told of a lease. */
export type LeaseView = Pick<
  LeaseRecord,
  | "id"
  | "path"
  | "principal"
  | "state"
  | "username"
  | "issuedAt"
  | "expireAt"
  | "renewAt"
  | "maxExpireAt"
  | "endCause"
  | "endedAt"
  | "attempts"
  | "problem"
  | "stalled"
  | "nextActionAt"
>;

/** Tries after which a revocation that still fails is said to be stalled. It is tried on for ever. */
export const STALLED_AFTER = 6;

/** Between tries: 1 s doubling to 5 minutes, with jitter (base/retry.ts). */
export const RETRY_BASE_MS = 1000;
export const RETRY_CAP_MS = 300_000;

/** The TTL a request gets. Throws TTL_ABOVE_MAXIMUM (never cut in silence, lesson 12) and REQUEST_INVALID below a second. */
export function effectiveTtl(asked: number | undefined, role: { readonly defaultTtlMs: number; readonly maxTtlMs: number }): number {
  const ttl = asked ?? role.defaultTtlMs;
  if (ttl > role.maxTtlMs) {
    throw new LeaseholdError("TTL_ABOVE_MAXIMUM", "ttl", { metadata: { maximum: `${role.maxTtlMs / 1000}s`, source: "role.max_ttl" } });
  }
  if (ttl < 1000) throw invalid("ttl", "must be at least 1 s");
  return ttl;
}

/** When a well-behaved client renews: two thirds of the TTL, up to 5 % earlier, so that leases of one moment don't renew at one moment (lesson 13). Jitter only shortens. */
export function renewShare(random: () => number = Math.random): number {
  return (2 / 3) * (1 - 0.05 * random());
}
