import { randomUUID } from "node:crypto";
import { setTimeout as after } from "node:timers/promises";
import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { ConnectionLimit } from "../engines/engine.ts";
import type { Db } from "../store/db.ts";
import { freeSlot, keepSlots, takeSlot, wantSlot } from "../store/target-slots.ts";

/** A slot that its process does not hold on to is another's after so long; after 3 s if the process is dead (src/store/target-slots.ts). */
const HOLD_MS = 30_000;
const KEEP_MS = 1000;
const RETRY_MS = 100;
const WANT_MS = 3 * KEEP_MS;

/**
 * The limit of connections to a target, shared by all replicas: each connection holds a slot, a row that expires (finding 28). It costs a round trip when a connection is opened and nothing when it is used.
 * While a replica that has none waits, who holds more than his share closes some.
 */
export class TargetSlots {
  readonly #db: Db;
  readonly #log: Log;
  readonly #holder = randomUUID();
  readonly #listeners = new Set<{ readonly targetUid: string; readonly limit: number; readonly listener: () => void }>();
  /** Slots this process holds, by target. */
  readonly #mine = new Map<string, number>();
  /** Targets of which a slot is waited for, and how many processes hold some. */
  #wanted: ReadonlyMap<string, number> = new Map();
  #timer: NodeJS.Timeout | undefined;
  #held = 0;

  constructor(db: Db, log: Log) {
    this.#db = db;
    this.#log = log;
  }

  /** @param limit connections to this target at a time, over all replicas. */
  of(targetUid: string, limit: number): ConnectionLimit {
    return {
      acquire: (patienceMs) => this.#acquire(targetUid, limit, patienceMs),
      tryAcquire: () => this.#take(targetUid, limit),
      onScarce: (listener) => {
        const entry = { targetUid, limit, listener };
        this.#listeners.add(entry);
        return () => this.#listeners.delete(entry);
      },
    };
  }

  /** More than this process's share, of those who have some and the one who waits. */
  #tooMany(targetUid: string, limit: number): boolean {
    const holders = this.#wanted.get(targetUid);
    return holders !== undefined && (this.#mine.get(targetUid) ?? 0) > Math.max(1, Math.floor(limit / (holders + 1)));
  }

  async #take(targetUid: string, limit: number): Promise<(() => void) | undefined> {
    const slot = await takeSlot(this.#db, targetUid, this.#holder, limit, HOLD_MS);
    return slot === undefined ? undefined : this.#hold(targetUid, slot);
  }

  async #acquire(targetUid: string, limit: number, patienceMs: number): Promise<() => void> {
    const endAt = performance.now() + patienceMs;
    for (;;) {
      // oxlint-disable-next-line no-await-in-loop -- until there is one
      const place = await this.#take(targetUid, limit);
      if (place !== undefined) return place;
      if (performance.now() >= endAt) {
        throw new LeaseholdError("TARGET_UNAVAILABLE", "every connection the target may have is in use", { metadata: { problem: "busy" }, retryAfterMs: 1000 });
      }
      // oxlint-disable-next-line no-await-in-loop
      await wantSlot(this.#db, targetUid, WANT_MS);
      // oxlint-disable-next-line no-await-in-loop
      await after(RETRY_MS * (0.5 + Math.random()));
    }
  }

  #hold(targetUid: string, slot: number): () => void {
    this.#held++;
    this.#mine.set(targetUid, (this.#mine.get(targetUid) ?? 0) + 1);
    this.#timer ??= setInterval(() => void this.#keep(), KEEP_MS).unref();
    let freed = false;
    return () => {
      if (freed) return;
      freed = true;
      this.#mine.set(targetUid, this.#mine.get(targetUid)! - 1);
      if (--this.#held === 0) {
        clearInterval(this.#timer);
        this.#timer = undefined;
      }
      freeSlot(this.#db, targetUid, slot, this.#holder).catch(() => {}); // it ends by itself
    };
  }

  async #keep(): Promise<void> {
    try {
      const wanted = await keepSlots(this.#db, this.#holder, HOLD_MS);
      this.#wanted = new Map(wanted.map(({ uid, holders }) => [uid, holders]));
      for (const { targetUid, limit, listener } of this.#listeners) if (this.#tooMany(targetUid, limit)) listener();
    } catch (error) {
      this.#log.warn({ error: (error as Error).message }, "the slots of connections to targets could not be held on to");
    }
  }
}
