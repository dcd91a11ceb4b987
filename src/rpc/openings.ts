/** A stream's place among those whose first record is being written. */
export interface Place {
  /** Resolves when its turn has come, or when it was left; undefined: at once. */
  readonly turn: Promise<void> | undefined;
  /** True until its turn has come. */
  readonly waiting: boolean;
  /** Its record is durable, or it needs none any more. Idempotent. */
  leave(): void;
}

/**
 * Streams open in order, so many at a time. Each needs a durable record before its first message, within a limited time (`audit.timeout`); ten thousand that are opened at once would all be
 * given to the audit in the same seconds in which the event loop is busy with taking them in, and miss it. So the record's time begins with the stream's turn, and those behind wait.
 */
export class Openings {
  readonly #max: number;
  #open = 0;
  /** In the order they came. */
  readonly #waiting = new Set<() => void>();

  constructor(max: number) {
    this.#max = max;
  }

  /** How many wait for their turn. */
  get waiting(): number {
    return this.#waiting.size;
  }

  enter(): Place {
    if (this.#open < this.#max) {
      this.#open++;
      return this.#place(undefined, undefined);
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.add(resolve);
    return this.#place(promise, resolve);
  }

  #place(turn: Promise<void> | undefined, resolve: (() => void) | undefined): Place {
    const waiting = this.#waiting;
    let left = false;
    return {
      turn,
      get waiting() {
        return resolve !== undefined && waiting.has(resolve);
      },
      leave: () => {
        if (left) return;
        left = true;
        if (resolve !== undefined && waiting.delete(resolve)) resolve();
        else this.#next();
      },
    };
  }

  /** A place goes to the next in line without becoming free between. */
  #next(): void {
    for (const resolve of this.#waiting) {
      this.#waiting.delete(resolve);
      resolve();
      return;
    }
    this.#open--;
  }
}
