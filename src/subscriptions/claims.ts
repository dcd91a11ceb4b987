import { randomUUID } from "node:crypto";
import type { Log } from "../base/log.ts";
import type { SubscriptionRecord } from "../model/subscription.ts";
import type { Db } from "../store/db.ts";
import { claimSubscription, claimSubscriptions, keepClaims, releaseClaim } from "../store/subscriptions.ts";

/** This process has a subscription, as it was when it was claimed, until `signal` aborts. */
export interface Claim {
  readonly record: SubscriptionRecord;
  /** Aborts when the claim has ended, could not be kept in time, or was given back. */
  readonly signal: AbortSignal;
  release(): Promise<void>;
}

interface Held {
  readonly uid: string;
  readonly claim: number;
  readonly abort: AbortController;
  timer: NodeJS.Timeout;
}

/**
 * Who works on a subscription: a row that says so until a time by the database's clock, which its holder moves on. This process counts a claim as over a tenth of its length before the database does, so that two never work
 * knowingly at once; one that was frozen is stopped by the fence in whatever it writes, and by the timer before it sends.
 */
export class Claims {
  readonly #db: Db;
  readonly #log: Log;
  readonly #ms: number;
  readonly #holder = randomUUID();
  readonly #held = new Map<string, Held>();
  #timer: NodeJS.Timeout | undefined;
  #keeping: Promise<void> | undefined;
  #again = false;

  constructor(db: Db, ms: number, log: Log) {
    this.#db = db;
    this.#ms = ms;
    this.#log = log;
  }

  /** Some that are due and that nobody has. */
  async take(limit: number): Promise<Claim[]> {
    const sentAt = performance.now();
    const records = await claimSubscriptions(this.#db, this.#holder, this.#ms, limit);
    return records.map((record) => this.#hold(record, sentAt));
  }

  /** This one; undefined when somebody has it. */
  async takeOne(uid: string): Promise<Claim | undefined> {
    const sentAt = performance.now();
    const record = await claimSubscription(this.#db, this.#holder, this.#ms, uid);
    return record === undefined ? undefined : this.#hold(record, sentAt);
  }

  /** Ends the work on a subscription here; the row is not touched. */
  drop(uid: string): void {
    this.#held.get(uid)?.abort.abort();
  }

  /** Somebody set a subscription anew, which fences who works on it: finds out now, and not at the next turn. */
  check(): void {
    this.#again = this.#keeping !== undefined;
    this.#tick();
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    for (const held of this.#held.values()) held.abort.abort();
    await this.#keeping;
  }

  #hold(record: SubscriptionRecord, sentAt: number): Claim {
    this.drop(record.uid);
    const abort = new AbortController();
    const held: Held = { uid: record.uid, claim: record.claim, abort, timer: this.#expiry(abort, sentAt) };
    abort.signal.addEventListener("abort", () => this.#forget(held), { once: true });
    this.#held.set(record.uid, held);
    this.#timer ??= setInterval(() => this.#tick(), this.#ms / 3).unref();
    return {
      record,
      signal: abort.signal,
      release: async () => {
        abort.abort();
        await releaseClaim(this.#db, record.uid, record.claim).catch(() => {}); // it ends by itself
      },
    };
  }

  #expiry(abort: AbortController, sentAt: number): NodeJS.Timeout {
    return setTimeout(() => abort.abort(), Math.max(0, sentAt + this.#ms * 0.9 - performance.now())).unref();
  }

  #forget(held: Held): void {
    clearTimeout(held.timer);
    if (this.#held.get(held.uid) === held) this.#held.delete(held.uid);
  }

  #tick(): void {
    this.#keeping ??= this.#keep().finally(() => {
      this.#keeping = undefined;
      if (!this.#again) return;
      this.#again = false;
      this.#tick();
    });
  }

  async #keep(): Promise<void> {
    const mine = [...this.#held.values()];
    if (mine.length === 0) return;
    try {
      const sentAt = performance.now();
      const kept = new Set(await keepClaims(this.#db, this.#holder, this.#ms, mine));
      for (const held of mine) {
        if (held.abort.signal.aborted) continue;
        clearTimeout(held.timer);
        if (kept.has(held.uid)) held.timer = this.#expiry(held.abort, sentAt);
        else held.abort.abort();
      }
    } catch (error) {
      this.#log.warn({ error: (error as Error).message }, "the claims of subscriptions could not be held on to");
    }
  }
}
