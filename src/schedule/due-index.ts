import { readFileSync } from "node:fs";
import type { Redis } from "ioredis";

const KEY = "leasehold:1:due";
const CLAIM = readFileSync(new URL("claim.lua", import.meta.url), "utf8");
const MAX_CLAIM = 100;
const CHUNK = 1000;

type WithClaim = Redis & { leaseholdClaim(key: string, now: string, visibilityMs: string, count: string): Promise<string[]> };

/** When the near future's leases are due, in Redis: a hint that makes expiry exact and spreads it over replicas. Wiped, wrong or away, it costs the sweep's interval and nothing else. */
export class DueIndex {
  readonly #redis: WithClaim;

  constructor(redis: Redis) {
    redis.defineCommand("leaseholdClaim", { numberOfKeys: 1, lua: CLAIM });
    this.#redis = redis as WithClaim;
  }

  /** @param entries Unix milliseconds, database clock. Rejects when Redis is away. */
  async put(entries: readonly { readonly id: string; readonly at: number }[]): Promise<void> {
    for (let i = 0; i < entries.length; i += CHUNK) {
      const pairs = entries.slice(i, i + CHUNK).flatMap(({ id, at }) => [String(at), id]);
      await this.#redis.call("ZADD", KEY, ...pairs);
    }
  }

  async remove(ids: readonly string[]): Promise<void> {
    if (ids.length > 0) await this.#redis.zrem(KEY, ...ids);
  }

  /** What is due at `now`, hidden from other replicas for `visibilityMs`. */
  claim(now: number, visibilityMs: number): Promise<string[]> {
    return this.#redis.leaseholdClaim(KEY, String(Math.floor(now)), String(visibilityMs), String(MAX_CLAIM));
  }

  /** When the first one is due. */
  async next(): Promise<number | undefined> {
    const first = (await this.#redis.call("ZRANGE", KEY, 0, 0, "WITHSCORES")) as unknown[];
    const score = first.flat()[1];
    return score === undefined ? undefined : Number(score);
  }
}
