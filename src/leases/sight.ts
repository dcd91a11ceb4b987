import type { Witness } from "../engines/engine.ts";

/** What the ledger has seen of a target. */
export interface Sight {
  /** Place of the newest mark that certainly stood there; 0: unknown. */
  readonly place: number;
  /** `host:port`; empty: unknown. */
  readonly address: string;
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** Since it was last written down. */
  readonly ageMs: number;
}

/** What stands there now. */
export interface Found {
  readonly address: string;
  readonly systemIdentifier: string;
  readonly timeline: number;
  readonly witness: Witness | undefined;
  /** Place of the witness's mark in this ledger; undefined: this ledger never wrote it. */
  readonly place: number | undefined;
}

/**
 * Why a target is shut off. `witness_unknown`, `witness_ahead`: another history of this ledger was at work there. The others: this may not be the target that our leases are on, but an older copy of it
 * (`witness_missing`, `witness_behind`) or another server (`different_server`); what is absent there proves nothing.
 */
export type ShutReason = "witness_unknown" | "witness_ahead" | "witness_missing" | "witness_behind" | "different_server";

export function mayBeACopy(reason: ShutReason): boolean {
  return reason !== "witness_unknown" && reason !== "witness_ahead";
}

export interface Verdict {
  /** Undefined: nothing speaks against working there. */
  readonly shut: ShutReason | undefined;
  /** It has gone back in time, at the same address: a failover that lost its tail, or a restored backup. What was revoked since may be alive again, what was issued may be gone. */
  readonly behind: boolean;
}

/**
 * A failover and a clone look alike: both are the same system with an older mark. Where the address is still the same it was a failover, and the ledger is to be compared; where somebody has changed the
 * address it may be a clone, on which nothing may count for the original, so somebody has to say. @param sight read before the target was asked. @param epoch the store's.
 */
export function judge(sight: Sight | undefined, found: Found, epoch: number): Verdict {
  const shut = (reason: ShutReason): Verdict => ({ shut: reason, behind: false });
  const { witness, place } = found;
  if (witness !== undefined && place === undefined) return shut("witness_unknown");
  if (witness !== undefined && witness.epoch > epoch) return shut("witness_ahead");
  if (sight === undefined) return { shut: undefined, behind: false };
  if (sight.systemIdentifier !== "" && sight.systemIdentifier !== found.systemIdentifier) return shut("different_server");
  if (place === undefined) return shut("witness_missing");
  if (place >= sight.place) return { shut: undefined, behind: false };
  return sight.address === found.address ? { shut: undefined, behind: true } : shut("witness_behind");
}

/** Whether there is something to write down. */
export function isNews(sight: Sight | undefined, found: Found): boolean {
  return (
    sight === undefined ||
    sight.place !== found.place ||
    sight.timeline !== found.timeline ||
    sight.address !== found.address ||
    sight.systemIdentifier !== found.systemIdentifier
  );
}
