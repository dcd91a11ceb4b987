import type { Change } from "../model/event.ts";

/** Delivered by who no longer knows what was revoked, an event would go where it may not: a process that has not been at the head for so long delivers nothing. */
export const MAX_LAG_MS = 5000;

/** The applied change log, as a source needs it. */
export interface Tail {
  /** Highest revision whose policies this process has applied. */
  readonly applied: number;
  readonly epoch: number;
  /** Milliseconds since this process was last known to be at the head. */
  readonly lagMs: number;
  catchUp(revision: number): Promise<void>;
}

/** Wants to know of changes as they are applied; must not block. */
export interface Offered {
  offer(changes: readonly Change[]): void;
  wake(): void;
}

/** Hands the applied changes to the sources of this process. It stands between them and the feed because the feed's listeners are for ever. */
export class Tails {
  readonly #all = new Set<Offered>();

  add(offered: Offered): () => void {
    this.#all.add(offered);
    return () => this.#all.delete(offered);
  }

  changed(changes: readonly Change[]): void {
    for (const each of this.#all) each.offer(changes);
  }

  restarted(): void {
    for (const each of this.#all) each.wake();
  }
}
