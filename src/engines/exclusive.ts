import { LeaseholdError } from "../base/errors.ts";
import type { ConnectionLimit } from "./engine.ts";

export interface Opener<Connection> {
  open(): Promise<Connection>;
  isUsable(connection: Connection): boolean;
  discard(connection: Connection): void;
  /** What the driver threw, as a LeaseholdError TARGET_*. */
  fault(error: unknown): LeaseholdError;
}

export interface ExclusivePoolOptions {
  /** Of this process. */
  readonly maxConnections: number;
  /** Of all replicas; undefined: no other limit. */
  readonly limit?: ConnectionLimit | undefined;
  /** For the first place among the target's connections. */
  readonly connectTimeoutMs: number;
}

interface Waiting {
  readonly wake: () => void;
  readonly fail: (error: LeaseholdError) => void;
}

const NO_PLACE_NEEDED = (): void => {};

/**
 * Connections each used by one call at a time, at most `maxConnections`, each on a place among the target's connections, which all replicas share. One that failed in any way is discarded, so that a hung
 * or half-open one, or one with a lock or a transaction, is never handed out again (lesson 22).
 */
export class ExclusivePool<Connection> {
  readonly #opener: Opener<Connection>;
  readonly #options: ExclusivePoolOptions;
  readonly #idle: Connection[] = [];
  readonly #waiting: Waiting[] = [];
  /** What gives each open connection's place back. */
  readonly #places = new Map<Connection, () => void>();
  readonly #unlisten: (() => void) | undefined;
  /** Open, or being opened. */
  #open = 0;
  /** Connections to be closed when they come back. */
  #excess = 0;
  #closed = false;

  constructor(options: ExclusivePoolOptions, opener: Opener<Connection>) {
    this.#options = options;
    this.#opener = opener;
    this.#unlisten = options.limit?.onScarce(() => this.#giveUpOne());
  }

  /** Throws a LeaseholdError TARGET_*. */
  async use<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = await this.#get();
    try {
      const result = await work(connection);
      this.#return(connection);
      return result;
    } catch (error) {
      this.#discard(connection);
      throw this.#opener.fault(error);
    } finally {
      this.#waiting.shift()?.wake();
    }
  }

  close(): void {
    this.#closed = true;
    this.#unlisten?.();
    for (const connection of this.#idle.splice(0)) this.#discard(connection);
    for (const { wake } of this.#waiting.splice(0)) wake();
  }

  async #get(): Promise<Connection> {
    for (;;) {
      if (this.#closed) throw new LeaseholdError("TARGET_UNAVAILABLE", "target closed");
      // oxlint-disable-next-line no-await-in-loop -- woken one at a time
      const connection = this.#take() ?? (await this.#connect());
      if (connection !== undefined) return connection;
      // Whoever had one may have ended while we asked for a place: then nobody would wake us.
      if (this.#open === 0 || this.#idle.length > 0) continue;
      // oxlint-disable-next-line no-await-in-loop
      await new Promise<void>((wake, fail) => this.#waiting.push({ wake, fail }));
    }
  }

  #take(): Connection | undefined {
    for (;;) {
      const connection = this.#idle.pop();
      if (connection === undefined || this.#opener.isUsable(connection)) return connection;
      this.#discard(connection);
    }
  }

  /** Undefined when there is no place for one more: then one of ours is waited for, since no other may ever be free. */
  async #connect(): Promise<Connection | undefined> {
    if (this.#open >= this.#options.maxConnections) return undefined;
    let place: (() => void) | undefined;
    this.#open++;
    try {
      place = await this.#place();
      if (place === undefined) {
        this.#open--;
        return undefined;
      }
      const connection = await this.#opener.open();
      this.#places.set(connection, place);
      return connection;
    } catch (error) {
      this.#open--;
      place?.();
      const fault = this.#opener.fault(error);
      // Without any connection nobody would wake them.
      if (this.#open === 0) for (const { fail } of this.#waiting.splice(0)) fail(fault);
      throw fault;
    }
  }

  #place(): Promise<(() => void) | undefined> {
    const { limit, connectTimeoutMs } = this.#options;
    if (limit === undefined) return Promise.resolve(NO_PLACE_NEEDED);
    return this.#open === 1 ? limit.acquire(connectTimeoutMs) : limit.tryAcquire();
  }

  #return(connection: Connection): void {
    if (!this.#closed && this.#excess === 0) return void this.#idle.push(connection);
    this.#excess = Math.max(this.#excess - 1, 0);
    this.#discard(connection);
  }

  #discard(connection: Connection): void {
    this.#opener.discard(connection);
    this.#places.get(connection)?.();
    this.#places.delete(connection);
    this.#open--;
  }

  #giveUpOne(): void {
    if (this.#open <= 1) return;
    const connection = this.#idle.pop();
    if (connection !== undefined) this.#discard(connection);
    else if (this.#excess < this.#open - 1) this.#excess++;
  }
}
