import { LeaseholdError } from "../base/errors.ts";

export interface Opener<Connection> {
  open(): Promise<Connection>;
  isUsable(connection: Connection): boolean;
  discard(connection: Connection): void;
  /** What the driver threw, as a LeaseholdError TARGET_*. */
  fault(error: unknown): LeaseholdError;
}

/**
 * Connections each used by one call at a time, at most `limit`. One that failed in any way is discarded, so that a hung or half-open one, or
 * one with a lock or a transaction, is never handed out again (lesson 22).
 */
export class ExclusivePool<Connection> {
  readonly #opener: Opener<Connection>;
  readonly #limit: number;
  readonly #idle: Connection[] = [];
  readonly #waiting: (() => void)[] = [];
  #busy = 0;
  #closed = false;

  constructor(limit: number, opener: Opener<Connection>) {
    this.#limit = limit;
    this.#opener = opener;
  }

  /** Throws a LeaseholdError TARGET_*. */
  async use<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    while (!this.#closed && this.#busy >= this.#limit) {
      // oxlint-disable-next-line no-await-in-loop -- woken one at a time
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (this.#closed) throw new LeaseholdError("TARGET_UNAVAILABLE", "target closed");
    this.#busy += 1;
    let connection: Connection | undefined;
    try {
      connection = this.#take() ?? (await this.#opener.open());
      const result = await work(connection);
      if (this.#closed) this.#opener.discard(connection);
      else this.#idle.push(connection);
      return result;
    } catch (error) {
      if (connection !== undefined) this.#opener.discard(connection);
      throw this.#opener.fault(error);
    } finally {
      this.#busy -= 1;
      this.#waiting.shift()?.();
    }
  }

  close(): void {
    this.#closed = true;
    for (const connection of this.#idle.splice(0)) this.#opener.discard(connection);
    for (const wake of this.#waiting.splice(0)) wake();
  }

  #take(): Connection | undefined {
    for (;;) {
      const connection = this.#idle.pop();
      if (connection === undefined || this.#opener.isUsable(connection)) return connection;
      this.#opener.discard(connection);
    }
  }
}
