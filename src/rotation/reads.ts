import { type Change, isRotationChange } from "../model/event.ts";
import { countReads, pathsCountingReads } from "../store/rotations.ts";
import type { Db } from "../store/db.ts";

/**
 * Counts reads of the secrets whose rotation asks for it, in memory, and hands them to the ledger every few seconds: a write for every read would cost more than the read. What a killed process had not handed over yet
 * is not counted.
 */
export class ReadCounter {
  readonly #db: Db;
  #counting: ReadonlySet<string> = new Set();
  #reads = new Map<string, { version: number; reads: number }>();

  constructor(db: Db) {
    this.#db = db;
  }

  count(path: string, version: number): void {
    if (this.#counting.size === 0 || !this.#counting.has(path)) return;
    const known = this.#reads.get(path);
    if (known?.version === version) known.reads++;
    else this.#reads.set(path, { version, reads: 1 });
  }

  async apply(changes: readonly Change[]): Promise<void> {
    if (changes.some((change) => isRotationChange(change.type))) await this.reset();
  }

  async reset(): Promise<void> {
    this.#counting = new Set(await pathsCountingReads(this.#db));
  }

  async flush(): Promise<void> {
    const reads = this.#reads;
    this.#reads = new Map();
    for (const [path, { version, reads: count }] of reads) {
      // oxlint-disable-next-line no-await-in-loop -- few
      await countReads(this.#db, path, version, count);
    }
  }
}
