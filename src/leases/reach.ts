import { LeaseholdError } from "../base/errors.ts";
import type { Target } from "../engines/engine.ts";
import { Breaker } from "./breaker.ts";
import type { TargetGate } from "./gate.ts";

export interface Targets {
  /** Throws TARGET_NOT_FOUND, TARGET_MISCONFIGURED, SEALED, STORE_UNAVAILABLE. */
  open(uid: string): Promise<Target<unknown>>;
}

export interface ReachOptions {
  /** Calls of clients on one target at a time; the schedule has its own budget, so neither starves the other (lesson 9). */
  readonly perTarget: number;
  /** Calls that may wait for a place on one target. */
  readonly waiting: number;
}

interface Door {
  readonly breaker: Breaker;
  inside: number;
  readonly queue: (() => void)[];
}

/** The one way to a target: through its circuit breaker, and for calls of clients through a limit per target, so that a slow one holds up nobody else's. */
export class TargetReach {
  readonly #targets: Targets;
  readonly #gate: Pick<TargetGate, "check" | "counts">;
  readonly #options: ReachOptions;
  readonly #doors = new Map<string, Door>();

  constructor(targets: Targets, gate: Pick<TargetGate, "check" | "counts">, options: ReachOptions) {
    this.#targets = targets;
    this.#gate = gate;
    this.#options = options;
  }

  /** Work of the schedule, which limits itself. Throws TARGET_UNAVAILABLE at once while the target can't be reached, and whatever `work` throws. */
  async use<T>(targetUid: string, work: (target: Target<unknown>) => Promise<T>): Promise<T> {
    await this.#gate.check(targetUid);
    return this.#through(this.#door(targetUid), targetUid, work);
  }

  /** Work that a client waits for. Throws TARGET_UNAVAILABLE `busy` when too many wait already, TARGET_MISCONFIGURED `quarantined`. */
  async call<T>(targetUid: string, work: (target: Target<unknown>) => Promise<T>): Promise<T> {
    await this.#gate.check(targetUid);
    return this.byHand(targetUid, work);
  }

  /** The same where a quarantine is no hindrance: somebody revokes a lease by name. */
  async byHand<T>(targetUid: string, work: (target: Target<unknown>) => Promise<T>): Promise<T> {
    const door = this.#door(targetUid);
    door.breaker.look();
    if (door.inside >= this.#options.perTarget) await this.#wait(door);
    else door.inside++;
    try {
      return await this.#through(door, targetUid, work);
    } finally {
      // The place goes to the first who waits.
      const next = door.queue.shift();
      if (next === undefined) door.inside--;
      else next();
    }
  }

  /** After `byHand`: throws TARGET_MISCONFIGURED `quarantined` when the target may be a copy of the one that is meant, so that what was done there must not end a lease. */
  counts(targetUid: string): Promise<void> {
    return this.#gate.counts(targetUid);
  }

  async #through<T>(door: Door, targetUid: string, work: (target: Target<unknown>) => Promise<T>): Promise<T> {
    door.breaker.check();
    try {
      const result = await work(await this.#targets.open(targetUid));
      door.breaker.succeeded();
      return result;
    } catch (error) {
      door.breaker.failed(error);
      throw error;
    }
  }

  #wait(door: Door): Promise<void> {
    if (door.queue.length >= this.#options.waiting) {
      throw new LeaseholdError("TARGET_UNAVAILABLE", "too many calls wait for this target", { metadata: { problem: "busy" }, retryAfterMs: 1000 });
    }
    return new Promise((resolve) => door.queue.push(resolve));
  }

  #door(targetUid: string): Door {
    const known = this.#doors.get(targetUid);
    if (known !== undefined) return known;
    const made: Door = { breaker: new Breaker(), inside: 0, queue: [] };
    this.#doors.set(targetUid, made);
    return made;
  }
}
