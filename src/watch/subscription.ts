import { LeaseholdError } from "../base/errors.ts";
import type { Change } from "../model/event.ts";
import type { PathScope } from "../model/path.ts";

/** Changes that may wait for one reader while a message to him is under way; beyond it the watch ends with its resume token, nothing is dropped in silence. */
const MAX_QUEUED = 4096;
const NONE: readonly Change[] = [];

/** Where a watch's changes go. */
export interface Receiver {
  /**
   * Takes matching changes in commit order; with them everything up to `upTo` has been given. None: a bookmark. Undefined when the next may be given at once;
   * a promise that resolves when it may. What it throws or rejects with ends the watch.
   */
  receive(changes: readonly Change[], upTo: number): Promise<void> | undefined;
}

/** What a watch asks for. */
export interface Filter {
  readonly scopes: readonly PathScope[];
  /** Event types wanted; empty: all. */
  readonly types: ReadonlySet<number>;
}

/**
 * One watch's place at the live tail: what the hub offers waits here while its receiver is busy. `following → closed | behind | failed`. Nothing in it runs, and no
 * timer is held, while nothing happens: 10,000 of them wait at a time.
 */
export class Subscription {
  readonly filter: Filter;
  /** Resolves when it is closed, or `behind`: what follows is to be read from the log. Rejects with what the receiver threw, or WATCH_TOO_SLOW. */
  readonly ended: Promise<"closed" | "behind">;
  /** The hub's: it will pump. */
  scheduled = false;
  /** The wheel's: where its bookmark is due. */
  slot = -1;
  readonly #receiver: Receiver;
  readonly #schedule: (subscription: Subscription) => void;
  #queue: Change[] | undefined;
  /** The message under way. */
  #pending: Promise<void> | undefined;
  /** The newest change offered, which may match several scopes. */
  #offered = 0;
  #over = false;
  #resolve!: (end: "closed" | "behind") => void;
  #reject!: (error: unknown) => void;

  /** @param schedule asks for a `pump`. */
  constructor(filter: Filter, receiver: Receiver, schedule: (subscription: Subscription) => void) {
    this.filter = filter;
    this.#receiver = receiver;
    this.#schedule = schedule;
    this.ended = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  offer(change: Change): void {
    if (this.#over || this.#offered === change.revision) return;
    this.#offered = change.revision;
    if (this.filter.types.size > 0 && !this.filter.types.has(change.type)) return;
    if (this.#queue === undefined) this.#queue = [change];
    else if (this.#queue.length < MAX_QUEUED) this.#queue.push(change);
    // Whoever merely waits for his turn is not slow: he reads the log instead.
    else if (this.#pending === undefined) return this.end("behind");
    else return this.fail(new LeaseholdError("WATCH_TOO_SLOW"));
    if (!this.scheduled && this.#pending === undefined) this.#schedule(this);
  }

  /** Gives what is queued. @param upTo everything up to here was offered. */
  pump(upTo: number): void {
    this.scheduled = false;
    if (this.#queue !== undefined) this.#give(upTo);
  }

  /** Says how far everything has come, unless there is something else to say. */
  bookmark(upTo: number): void {
    if (this.#queue === undefined) this.#give(upTo);
  }

  /** Ends it once the message under way is through. */
  end(how: "closed" | "behind"): void {
    if (this.#over) return;
    this.#over = true;
    this.#queue = undefined;
    if (this.#pending === undefined || how === "closed") this.#resolve(how);
    else this.#pending.then(() => this.#resolve(how), this.#reject);
  }

  fail(error: unknown): void {
    if (this.#over) return;
    this.#over = true;
    this.#queue = undefined;
    this.#reject(error);
  }

  #give(upTo: number): void {
    if (this.#over || this.#pending !== undefined) return;
    const changes = this.#queue ?? NONE;
    this.#queue = undefined;
    try {
      const pending = this.#receiver.receive(changes, upTo);
      if (pending === undefined) return;
      this.#pending = pending;
      pending.then(
        () => {
          this.#pending = undefined;
          if (this.#queue !== undefined && !this.scheduled) this.#schedule(this);
        },
        (error: unknown) => this.fail(error),
      );
    } catch (error) {
      this.fail(error);
    }
  }
}
