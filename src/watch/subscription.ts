import type { Change } from "../model/event.ts";
import type { PathScope } from "../model/path.ts";

/** Events that may wait for one slow reader; beyond it the watch is closed with its resume token, nothing is dropped in silence. */
const MAX_QUEUED = 4096;

/** One watch's place at the live tail: a bounded queue that the hub fills and the watch empties. */
export class Subscription {
  readonly scopes: readonly PathScope[];
  #queue: Change[] = [];
  #seen: number;
  #state: "open" | "too_slow" | "restarted" | "closed" = "open";
  #wake: (() => void) | undefined;

  /** @param seen revision from which on the queue is complete. */
  constructor(scopes: readonly PathScope[], seen: number) {
    this.scopes = scopes;
    this.#seen = seen;
  }

  /** The queue holds every matching change up to here that was not taken yet. */
  get seen(): number {
    return this.#seen;
  }

  get state(): "open" | "too_slow" | "restarted" | "closed" {
    return this.#state;
  }

  offer(change: Change): void {
    if (this.#state !== "open") return;
    if (this.#queue.length >= MAX_QUEUED) this.end("too_slow");
    else this.#queue.push(change);
  }

  /** Everything up to `revision` has been offered. */
  advance(revision: number): void {
    this.#seen = revision;
    if (this.#queue.length > 0) this.#signal();
  }

  end(state: "too_slow" | "restarted" | "closed"): void {
    if (this.#state !== "open") return;
    this.#state = state;
    this.#queue = [];
    this.#signal();
  }

  /** All that is queued, with the revision it is complete up to. */
  take(): { readonly changes: readonly Change[]; readonly upTo: number } {
    const changes = this.#queue;
    this.#queue = [];
    return { changes, upTo: this.#seen };
  }

  /** Resolves when something is queued, the subscription ended, `ms` have passed or `signal` aborts. */
  wait(ms: number, signal: AbortSignal): Promise<void> {
    if (this.#queue.length > 0 || this.#state !== "open" || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(done, ms);
      timer.unref();
      signal.addEventListener("abort", done, { once: true });
      this.#wake = done;
    });
  }

  #signal(): void {
    this.#wake?.();
  }
}
