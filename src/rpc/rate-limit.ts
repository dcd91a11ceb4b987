import { LeaseholdError } from "../base/errors.ts";
import type { RateClass } from "./methods.ts";
import type { RateOptions } from "./options.ts";

/** Units per call; a read is 1. Denials cost extra, because each can cost an fsync (attack 36: a write amplifier for who has no rights). */
const COST: Readonly<Record<RateClass, number>> = { read: 1, list: 5, write: 5, issue: 20, admin: 20, stream: 20 };
const DENIAL_COST = 50;
/** A large request costs more to read. */
const BYTES_PER_UNIT = 256;
const MAX_BUCKETS = 10_000;

interface Bucket {
  tokens: number;
  at: number;
}

/** A token bucket per principal, local to this process: it guards this process, quotas are something else. */
export class RateLimit {
  readonly #options: RateOptions;
  readonly #buckets = new Map<string, Bucket>();

  constructor(options: RateOptions) {
    this.#options = options;
  }

  /** Takes what a call costs, or throws RATE_LIMITED with the time until it would go through. */
  take(principal: string, rate: RateClass, bytes: number, now: number): void {
    const bucket = this.#bucket(principal, now);
    const cost = COST[rate] + Math.floor(bytes / BYTES_PER_UNIT);
    if (bucket.tokens < cost) {
      const retryAfterMs = Math.ceil(((cost - bucket.tokens) * 1000) / this.#options.perSecond);
      throw new LeaseholdError("RATE_LIMITED", undefined, { retryAfterMs });
    }
    bucket.tokens -= cost;
  }

  /** Takes what a denial costs beyond the call; may leave a debt of at most one burst. */
  penalize(principal: string, now: number): void {
    const bucket = this.#bucket(principal, now);
    bucket.tokens = Math.max(bucket.tokens - DENIAL_COST, -this.#options.burst);
  }

  #bucket(principal: string, now: number): Bucket {
    let bucket = this.#buckets.get(principal);
    if (bucket === undefined) {
      if (this.#buckets.size >= MAX_BUCKETS) this.#prune(now);
      bucket = { tokens: this.#options.burst, at: now };
      this.#buckets.set(principal, bucket);
    } else if (now > bucket.at) {
      bucket.tokens = Math.min(this.#options.burst, bucket.tokens + ((now - bucket.at) * this.#options.perSecond) / 1000);
      bucket.at = now;
    }
    return bucket;
  }

  /** A full bucket says nothing; if none is full, the oldest go. */
  #prune(now: number): void {
    const fillMs = (2 * this.#options.burst * 1000) / this.#options.perSecond;
    for (const [principal, bucket] of this.#buckets) if (now - bucket.at >= fillMs) this.#buckets.delete(principal);
    for (const principal of this.#buckets.keys()) {
      if (this.#buckets.size < MAX_BUCKETS) break;
      this.#buckets.delete(principal);
    }
  }
}
