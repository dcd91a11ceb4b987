/**
 * Makes one call of many: what is asked while `lanes` calls are under way waits and goes together in the next one. So a lone request goes at once, and under load the cost of a call is shared.
 *
 * `run` answers one result per item, in order; an Error as a result fails that item alone. If it throws, and `divide` says that one bad item may have sunk the others, the halves are tried again
 * by themselves; otherwise the error is everybody's.
 */
export interface GatherOptions<I, R> {
  readonly run: (items: readonly I[]) => Promise<readonly (R | Error)[]>;
  /** Calls at a time. */
  readonly lanes: number;
  /** Items in a call. */
  readonly max: number;
  readonly divide?: (error: unknown) => boolean;
}

interface Waiting<I, R> {
  readonly item: I;
  readonly resolve: (result: R) => void;
  readonly reject: (error: unknown) => void;
}

export class Gather<I, R> {
  readonly #options: GatherOptions<I, R>;
  #queue: Waiting<I, R>[] = [];
  #running = 0;
  #planned = false;

  constructor(options: GatherOptions<I, R>) {
    this.#options = options;
  }

  add(item: I): Promise<R> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ item, resolve, reject });
      if (this.#planned || this.#running >= this.#options.lanes) return;
      this.#planned = true;
      setImmediate(() => this.#start()); // what is asked in this turn goes together
    });
  }

  #start(): void {
    this.#planned = false;
    while (this.#running < this.#options.lanes && this.#queue.length > 0) {
      const batch = this.#queue.slice(0, this.#options.max);
      this.#queue = this.#queue.slice(batch.length);
      this.#running++;
      void this.#send(batch).finally(() => {
        this.#running--;
        this.#start();
      });
    }
  }

  /** Settles every item; never rejects. */
  async #send(batch: readonly Waiting<I, R>[]): Promise<void> {
    try {
      const results = await this.#options.run(batch.map((waiting) => waiting.item));
      for (const [i, waiting] of batch.entries()) {
        const result = results[i]!;
        if (result instanceof Error) waiting.reject(result);
        else waiting.resolve(result);
      }
    } catch (error) {
      if (batch.length > 1 && this.#options.divide?.(error) === true) {
        const half = batch.length >> 1;
        await this.#send(batch.slice(0, half));
        await this.#send(batch.slice(half));
        return;
      }
      for (const waiting of batch) waiting.reject(error);
    }
  }
}
