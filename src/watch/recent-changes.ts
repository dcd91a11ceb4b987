import type { Change } from "../model/event.ts";

/** The newest changes, held so that watches which come back after a moment, all at once, don't each read the log. About 300 bytes each. */
export class RecentChanges {
  readonly #capacity: number;
  #changes: Change[] = [];

  /** Holds between `capacity` and twice as many. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** The next ones, in commit order. */
  add(changes: readonly Change[]): void {
    for (const change of changes) this.#changes.push(change);
    if (this.#changes.length > 2 * this.#capacity) this.#changes = this.#changes.slice(-this.#capacity);
  }

  clear(): void {
    this.#changes = [];
  }

  /** What came after a revision, up to another one above it; undefined when that is not all held. */
  after(revision: number, upTo: number): readonly Change[] | undefined {
    const first = this.#changes[0]?.revision;
    if (first === undefined || revision < first - 1 || this.#changes.at(-1)!.revision < upTo) return undefined;
    // Revisions have no gaps.
    return this.#changes.slice(revision + 1 - first, upTo + 1 - first);
  }
}
