import { randomUUID } from "node:crypto";
import { setTimeout as after } from "node:timers/promises";
import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { ConnectionLimit } from "../engines/engine.ts";
import type { Db } from "../store/db.ts";
import { freeSlot, keepSlots, takeSlot, wantSlot } from "../store/target-slots.ts";

/** A slot that its process does not hold on to is another's after so long. */
const HOLD_MS = 30_000;
const KEEP_MS = 5000;
const RETRY_MS = 100;
const WANT_MS = 2 * KEEP_MS;

/**
 * The limit of connections to a target, shared by all replicas: each connection holds a slot, a row that expires (finding 28). It costs a round trip when a connection is opened and nothing when it is used.
 * While another replica waits for a slot, connections are given back after each use.
 */
export class TargetSlots {
  readonly #db: Db;
  readonly #log: Log;
  readonly #holder = randomUUID();
  #wanted: ReadonlySet<string> = new Set();
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
      scarce: () => this.#wanted.has(targetUid),
    };
  }

  async #acquire(targetUid: string, limit: number, patienceMs: number): Promise<() => void> {
    const endAt = performance.now() + patienceMs;
    for (let asked = false; ;) {
      // oxlint-disable-next-line no-await-in-loop -- until there is one
      const slot = await takeSlot(this.#db, targetUid, this.#holder, limit, HOLD_MS);
      if (slot !== undefined) return this.#hold(targetUid, slot);
      if (performance.now() >= endAt) {
        throw new LeaseholdError("TARGET_UNAVAILABLE", "every connection the target may have is in use", { metadata: { problem: "busy" }, retryAfterMs: 1000 });
      }
      if (!asked) await wantSlot(this.#db, targetUid, WANT_MS);
      asked = true;
      await after(RETRY_MS * (0.5 + Math.random()));
    }
  }

  #hold(targetUid: string, slot: number): () => void {
    this.#held++;
    this.#timer ??= setInterval(() => void this.#keep(), KEEP_MS).unref();
    let freed = false;
    return () => {
      if (freed) return;
      freed = true;
      if (--this.#held === 0) {
        clearInterval(this.#timer);
        this.#timer = undefined;
      }
      freeSlot(this.#db, targetUid, slot, this.#holder).catch(() => {}); // it ends by itself
    };
  }

  async #keep(): Promise<void> {
    try {
      this.#wanted = new Set(await keepSlots(this.#db, this.#holder, HOLD_MS));
    } catch (error) {
      this.#log.warn({ error: (error as Error).message }, "the slots of connections to targets could not be held on to");
    }
  }
}
