import pg from "pg";
import type { ConnectionLimit } from "../engine.ts";
import { TargetClient } from "./client.ts";

export interface SharedPoolOptions {
  readonly maxConnections: number;
  readonly limit: ConnectionLimit | undefined;
  /** For the first place among the target's connections. */
  readonly patienceMs: number;
  readonly idleMs: number;
  readonly maxLifeSeconds: number;
}

/**
 * A pool whose size is the number of places it has among the target's connections, which all replicas share: one from the start, another whenever somebody waits and one is free, fewer when connections
 * are closed for idleness or another replica has none. So who waits here waits for a connection of ours, and not for a place that may never come.
 */
export class SharedPool {
  readonly #pool: pg.Pool;
  readonly #options: SharedPoolOptions;
  readonly #places: (() => void)[] = [];
  readonly #unlisten: (() => void) | undefined;
  #growing = false;
  #ended = false;

  private constructor(config: pg.ClientConfig, options: SharedPoolOptions, first: (() => void) | undefined) {
    this.#options = options;
    if (first !== undefined) this.#places.push(first);
    this.#pool = new pg.Pool({
      ...config,
      Client: TargetClient,
      max: first === undefined ? options.maxConnections : 1,
      idleTimeoutMillis: options.idleMs,
      maxLifetimeSeconds: options.maxLifeSeconds,
    });
    this.#pool.on("error", () => {}); // an idle session broke; the pool has dropped it
    this.#pool.on("remove", () => this.#shrink());
    this.#unlisten = options.limit?.onScarce(() => this.#giveUpOne());
  }

  /** Throws TARGET_UNAVAILABLE `busy` when no place can be had. */
  static async open(config: pg.ClientConfig, options: SharedPoolOptions): Promise<SharedPool> {
    return new SharedPool(config, options, await options.limit?.acquire(options.patienceMs));
  }

  async connect(): Promise<pg.PoolClient> {
    const connecting = this.#pool.connect();
    if (this.#pool.waitingCount > 0) void this.#grow();
    return connecting;
  }

  /** @param broken the session is not to be used again. */
  release(client: pg.PoolClient, broken: boolean): void {
    client.release(broken || this.#pool.totalCount > this.#pool.options.max);
  }

  async end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#unlisten?.();
    await this.#pool.end();
    for (const free of this.#places.splice(0)) free();
  }

  async #grow(): Promise<void> {
    const { limit, maxConnections } = this.#options;
    if (limit === undefined || this.#growing || this.#ended || this.#pool.options.max >= maxConnections) return;
    this.#growing = true;
    const place = await limit.tryAcquire().catch(() => undefined);
    this.#growing = false;
    if (place === undefined) return;
    if (this.#ended) return place();
    this.#places.push(place);
    this.#pool.options.max = this.#places.length;
    // The pool looks at its queue when somebody comes or goes: this one comes, and goes.
    if (this.#pool.waitingCount > 0)
      this.#pool.connect().then(
        (client) => this.release(client, false),
        () => {},
      );
    if (this.#pool.waitingCount > 1) void this.#grow();
  }

  /** One connection fewer: at once if one is idle, else when the next one comes back. */
  #giveUpOne(): void {
    if (this.#pool.options.max <= 1) return;
    this.#pool.options.max--;
    if (this.#pool.idleCount > 0)
      this.#pool.connect().then(
        (client) => this.release(client, true),
        () => {},
      );
  }

  /** A connection was closed: places that nothing stands on any more go back, but the last. */
  #shrink(): void {
    if (this.#ended) return;
    const wanted = Math.max(1, Math.min(this.#pool.options.max, this.#pool.totalCount));
    while (this.#places.length > wanted) this.#places.pop()!();
    if (this.#places.length > 0) this.#pool.options.max = this.#places.length;
  }
}
