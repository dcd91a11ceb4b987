import { readFileSync } from "node:fs";
import type { Redis } from "ioredis";

const CLAIM = readFileSync(new URL("claim.lua", import.meta.url), "utf8");
const MAX_CLAIM = 100;
const CHUNK = 1000;
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

type WithClaim = Redis & { leaseholdClaim(key: string, now: string, visibilityMs: string, count: string): Promise<string[]> };

/** When the near future's leases, or rotations, are due, in Redis: a hint that makes expiry exact and spreads it over replicas. Wiped, wrong or away, it costs the sweep's interval and nothing else. */
export class DueIndex {
  readonly #redis: WithClaim;
  readonly #key: string;

  /** @param scope of the keys: this installation and its namespace, so that two of them may share a Redis. Every key has the same hash tag, so that a cluster keeps them together. @param name of the kind: ids of one kind would mean nothing to the others. */
  constructor(redis: Redis, scope: string, name = "due") {
    redis.defineCommand("leaseholdClaim", { numberOfKeys: 1, lua: CLAIM });
    this.#redis = redis as WithClaim;
    this.#key = `${scope}:${name}`;
  }

  /** @param entries Unix milliseconds, database clock. Rejects when Redis is away. */
  async put(entries: readonly { readonly id: string; readonly at: number }[]): Promise<void> {
    for (let i = 0; i < entries.length; i += CHUNK) {
      const pairs = entries.slice(i, i + CHUNK).flatMap(({ id, at }) => [String(Math.ceil(at)), id]);
      await this.#redis.zadd(this.#key, ...(pairs as [number | string, string]));
    }
  }

  async remove(ids: readonly string[]): Promise<void> {
    if (ids.length > 0) await this.#redis.zrem(this.#key, ...ids);
  }

  /** What is due at `now`, soonest first and at most `count`, hidden from other replicas for `visibilityMs`. What can't be a lease's id is thrown away: in a list it would make the ledger refuse the others. */
  async claim(now: number, visibilityMs: number, count: number): Promise<string[]> {
    const members = await this.#redis.leaseholdClaim(this.#key, String(Math.floor(now)), String(visibilityMs), String(Math.min(count, MAX_CLAIM)));
    const ids = members.filter((member) => UUID.test(member));
    if (ids.length < members.length) await this.remove(members.filter((member) => !UUID.test(member)));
    // Garbage may have hidden what is due behind it.
    return ids.length > 0 || members.length === 0 ? ids : this.claim(now, visibilityMs, count);
  }

  /** When the first one is due; undefined when none is, or none that will ever be. */
  async next(): Promise<number | undefined> {
    const [, score] = await this.#redis.zrange(this.#key, "0", "0", "WITHSCORES");
    const at = Number(score ?? "none"); // "inf" is no number either
    return Number.isFinite(at) ? at : undefined;
  }
}
