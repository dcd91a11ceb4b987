import type { LeaseState } from "../../src/model/lease.ts";

/** Times are milliseconds of the test's own clock, which stands still while a round of steps is done. */
export const TTL = 60 * 60_000;
export const MAX_TTL = 4 * TTL;
export const CREATING = 30_000;
export const POOL_AGE = 30 * 60_000;
export const CLAIM = 1000;
export const GRACE = 60_000;
export const REDO = 15_000;
export const WAIT = 60_000;
export const NEXT = 1000;
export const HOLD = 10_000;
export const DRAWN = 25_000;

/** One thing that somebody does to a lease; `late`: with the generation before the last, as a worker would that was frozen or whose row was moved meanwhile. */
export interface Step {
  readonly kind: StepKind;
  readonly late: boolean;
  readonly incrementMs: number;
  readonly cause: "EXPIRED" | "REVOKED" | "UNDELIVERED" | "POOL";
  readonly flag: boolean;
}

export const STEP_KINDS = [
  "activate",
  "shelve",
  "draw",
  "put_back",
  "take",
  "confirm",
  "roll_back",
  "begin_renew",
  "finish_renew",
  "begin_revoke",
  "finish_revoke",
  "fail_action",
  "delivery",
  "settle",
  "reopen",
  "claim",
] as const;
export type StepKind = (typeof STEP_KINDS)[number];

/** A lease as the rules of src/model/lease.ts and docs/architecture.md say it is: written from them, and knowing nothing of SQL. */
export class LeaseModel {
  state: LeaseState = "PENDING";
  generation = 1;
  pooled: boolean;
  oid = false;
  secret = true;
  delivered = true;
  stalled = false;
  renewingTo: number | undefined;
  /** Of the pool, and not seen to be able to log in. */
  enabling = false;
  expireAt: number;
  maxExpireAt: number;
  deadlineAt: number;
  /** When a worker may take it up; undefined: never again. */
  dueAt: number | undefined;
  #planned: number | undefined;

  constructor(now: number, pooled: boolean) {
    this.pooled = pooled;
    this.expireAt = now + (pooled ? POOL_AGE : TTL);
    this.maxExpireAt = now + (pooled ? POOL_AGE : MAX_TTL);
    this.deadlineAt = now + CREATING;
    this.#plan(this.deadlineAt);
  }

  /** Does the step if it may be done; answers whether the ledger should say yes. */
  apply(step: Step, now: number): boolean {
    const current = !step.late;
    switch (step.kind) {
      case "activate":
        return this.#move(this.state === "PENDING" && !this.pooled && current, () => {
          [this.state, this.oid] = ["ACTIVE", true];
          this.#plan(this.expireAt);
        });
      case "shelve":
        return this.#move(this.state === "PENDING" && this.pooled && current, () => {
          [this.state, this.oid] = ["READY", true];
          this.#plan(this.expireAt);
        });
      case "take":
        return this.#take(step, now);
      case "draw":
        // (None to be drawn is no refusal.)
        this.#move(this.state === "READY" && this.expireAt > now + HOLD, () => {
          [this.state, this.deadlineAt, this.expireAt] = ["PENDING", now + DRAWN, Math.max(this.expireAt, now + HOLD + MAX_TTL)];
          this.#plan(this.deadlineAt);
        });
        return true;
      case "put_back":
        return this.#move(this.#isDrawn() && current && this.deadlineAt > now, () => {
          [this.state, this.expireAt] = ["READY", this.maxExpireAt];
          this.#plan(this.expireAt);
        });
      case "roll_back":
        return this.#move(this.state === "PENDING" && current && (now >= this.deadlineAt || step.flag), () => {
          [this.state, this.secret] = ["ROLLED_BACK", false];
          this.#plan(this.expireAt + GRACE);
        });
      case "begin_renew":
        return this.#beginRenew(step.incrementMs, now);
      case "finish_renew":
        if (this.state !== "ACTIVE" || this.renewingTo === undefined || !current) return false;
        this.renewingTo = undefined;
        this.#plan(this.expireAt);
        return true;
      case "confirm":
        if (this.state !== "ACTIVE" || !this.enabling || !current) return false;
        this.enabling = false;
        this.#plan(this.delivered ? this.expireAt : this.#planned);
        return true;
      case "begin_revoke":
        return this.#beginRevoke(step.cause, now);
      case "finish_revoke":
        return this.#move(this.state === "REVOKING" && current && (this.oid || now >= this.deadlineAt), () => {
          [this.state, this.secret, this.stalled] = ["REVOKED", false, false];
          this.#plan(Math.max(this.expireAt, now) + GRACE);
        });
      case "fail_action":
        if (!current) return false;
        this.stalled ||= step.flag && this.state === "REVOKING";
        this.#plan(Math.min(now + NEXT, this.state === "ACTIVE" && this.expireAt > now ? this.expireAt : Number.POSITIVE_INFINITY));
        return true;
      case "delivery":
        return this.#delivery(step, now);
      case "settle":
        if (!current || !(this.state === "REVOKED" || this.state === "ROLLED_BACK")) return false;
        this.#plan(undefined);
        return true;
      case "reopen":
        return this.#move(current && (this.state === "REVOKED" || this.state === "ROLLED_BACK" || this.state === "PENDING"), () => {
          [this.state, this.oid] = ["REVOKING", true];
          this.#plan(now + CLAIM);
        });
      case "claim":
        return this.#claim(now);
    }
  }

  /** Of the pool, PENDING though it is on its target: a replica has drawn it. */
  #isDrawn(): boolean {
    return this.state === "PENDING" && this.pooled && this.oid;
  }

  /** `flag`: by who drew it, or believes so. */
  #take({ flag, late }: Step, now: number): boolean {
    // (Without such a login none is given out.)
    const takes = this.state === "READY" || (flag && !late && this.#isDrawn() && this.deadlineAt > now);
    if (!takes || this.expireAt <= now) return true;
    [this.state, this.pooled, this.enabling] = ["ACTIVE", false, true];
    this.generation++;
    [this.expireAt, this.maxExpireAt] = [now + TTL, now + MAX_TTL];
    this.#plan(now + REDO);
    return true;
  }

  #beginRenew(incrementMs: number, now: number): boolean {
    if (this.state !== "ACTIVE" || this.expireAt <= now || !this.delivered || this.renewingTo !== undefined || this.enabling) return false;
    const until = Math.min(now + incrementMs, this.maxExpireAt);
    if (until <= this.expireAt) return true;
    [this.expireAt, this.renewingTo] = [until, until];
    this.generation++;
    this.#plan(Math.min(until, now + REDO));
    return true;
  }

  #beginRevoke(cause: Step["cause"], now: number): boolean {
    if (this.state === "REVOKING" || this.state === "REVOKED" || this.state === "ROLLED_BACK") return true;
    if (cause === "EXPIRED" && (this.state !== "ACTIVE" || this.expireAt > now)) return false;
    if (cause === "UNDELIVERED" && (this.state !== "ACTIVE" || this.delivered)) return false;
    if (cause === "POOL" ? this.state !== "READY" && !this.#isDrawn() : this.state === "READY") return false;
    this.#plan(this.state === "PENDING" && !this.oid ? Math.max(this.deadlineAt, now) : now + CLAIM);
    [this.state, this.renewingTo] = ["REVOKING", undefined];
    this.generation++;
    return true;
  }

  #delivery({ flag, late }: Step, now: number): boolean {
    if (this.state !== "ACTIVE") return false;
    if (flag) {
      if (this.expireAt <= now) return false;
      this.delivered = true;
      if (this.renewingTo === undefined) {
        this.generation++;
        this.#plan(this.enabling ? this.#planned : this.expireAt);
      } else this.#plan(this.#planned);
      return true;
    }
    return this.#move(this.renewingTo === undefined && !late, () => {
      this.delivered = false;
      this.#plan(Math.min(this.expireAt, now + WAIT));
    });
  }

  /** A worker takes what is due; what has expired becomes REVOKING by that. */
  #claim(now: number): boolean {
    if (this.dueAt === undefined || this.dueAt > now) return false;
    if (this.state === "ACTIVE" && this.expireAt <= now) {
      [this.state, this.renewingTo] = ["REVOKING", undefined];
      this.generation++;
      this.#plan(now + CLAIM);
    } else this.dueAt = now + CLAIM;
    return true;
  }

  #move(allowed: boolean, move: () => void): boolean {
    if (!allowed) return false;
    move();
    this.generation++;
    return true;
  }

  #plan(at: number | undefined): void {
    this.#planned = at;
    this.dueAt = at;
  }
}
