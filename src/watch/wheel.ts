import type { Subscription } from "./subscription.ts";

const TICK_MS = 100;
/** More ticks than the longest wait. */
const SLOTS = 128;
/** A bookmark comes every 10 s ± 10 %. */
const LEAST_TICKS = 90;
const MOST_TICKS = 110;

/** Bookmarks of all watches on one timer: 10,000 timers would weigh 2 MB, and wake the loop one by one. */
export class Wheel {
  readonly #slots: Set<Subscription>[] = Array.from({ length: SLOTS }, () => new Set());
  readonly #due: (subscription: Subscription) => void;
  #at = 0;
  #size = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(due: (subscription: Subscription) => void) {
    this.#due = due;
  }

  add(subscription: Subscription): void {
    this.#place(subscription);
    this.#size++;
    this.#timer ??= setInterval(() => this.turn(), TICK_MS).unref();
  }

  remove(subscription: Subscription): void {
    if (!this.#slots[subscription.slot]?.delete(subscription)) return;
    if (--this.#size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** One tick. */
  turn(): void {
    this.#at = (this.#at + 1) % SLOTS;
    const slot = this.#slots[this.#at]!;
    if (slot.size === 0) return;
    const due = [...slot];
    slot.clear();
    // Placed anew before anything is sent: an end while it is sent must find it.
    for (const subscription of due) this.#place(subscription);
    for (const subscription of due) this.#due(subscription);
  }

  #place(subscription: Subscription): void {
    const ticks = LEAST_TICKS + Math.floor(Math.random() * (MOST_TICKS - LEAST_TICKS + 1));
    subscription.slot = (this.#at + ticks) % SLOTS;
    this.#slots[subscription.slot]!.add(subscription);
  }
}
