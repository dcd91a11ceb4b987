/** Times of the lease ledger, in milliseconds. */
export interface LeaseSettings {
  /** A login's VALID UNTIL on its target is the lease's end plus this: the target's own backstop, and the room in which revocation may be late. */
  readonly graceMs: number;
  /** The target refuses to make a login usable later than this after the row began to be written. */
  readonly createDeadlineMs: number;
  /** Longest statement on a target, plus slack for its clock: after deadline + this no creation can still happen. As long is a renewal left to whoever began it. */
  readonly statementMs: number;
  /** How long a worker has a due lease to itself. */
  readonly claimMs: number;
  /** How long an undelivered credential may be asked for again. */
  readonly undeliveredMs: number;
}

export const DEFAULT_LEASE_SETTINGS: LeaseSettings = {
  graceMs: 60_000,
  createDeadlineMs: 15_000,
  statementMs: 15_000,
  claimMs: 60_000,
  undeliveredMs: 60_000,
};
