import type pg from "pg";
import type { Sensitive } from "../../base/sensitive.ts";
import { LeaseholdError } from "../../base/errors.ts";
import type { ConnectionLimit } from "../engine.ts";
import { clientConfig, TargetClient, type Timeouts } from "./client.ts";
import type { PostgresTargetConfig } from "./config.ts";
import { BOOTSTRAP_VERSION } from "./bootstrap.ts";
import { leavesSessionUsable, misconfigured, problemOf, targetError } from "./faults.ts";
import { SharedPool } from "./pool.ts";

const IDLE_MS = 10_000;
const MAX_LIFE_SECONDS = 1800; // follows a moved address and a changed CA file without a restart

export interface SessionOptions extends Timeouts {
  readonly maxConnections: number;
  readonly limit?: ConnectionLimit | undefined;
}

/** A statement of ours; `name` prepares it once per connection. */
export interface Statement {
  readonly name: string;
  readonly text: string;
}

/**
 * Sessions with one database of a target. Each call is one statement in its own transaction. A session that failed in any way but by an
 * answer of our functions is discarded, so that a hung or half-open one is never handed out again (lesson 22).
 */
export class Sessions {
  readonly #config: PostgresTargetConfig;
  readonly #password: Sensitive;
  readonly #options: SessionOptions;
  #pool: Promise<SharedPool> | undefined;
  #closed = false;

  constructor(config: PostgresTargetConfig, password: Sensitive, options: SessionOptions) {
    this.#config = config;
    this.#password = password;
    this.#options = options;
  }

  get config(): PostgresTargetConfig {
    return this.#config;
  }

  /** Rows of one statement. Throws a LeaseholdError TARGET_*. */
  async query<Row extends pg.QueryResultRow>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    return this.use(async (client) => (await client.query<Row>({ ...statement, values: [...values] })).rows);
  }

  async use<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    let pool: SharedPool | undefined;
    let client: pg.PoolClient | undefined;
    try {
      pool = await this.#open();
      client = await pool.connect();
      const result = await work(client);
      pool.release(client, false);
      return result;
    } catch (error) {
      const fault = targetError(error);
      const outdated = client !== undefined && problemOf(fault) === "not_bootstrapped" ? await outdatedBootstrap(client) : undefined;
      if (client !== undefined) pool!.release(client, !leavesSessionUsable(error));
      throw outdated ?? fault;
    }
  }

  /** The same target, another database; closed after `work`. */
  async inDatabase<T>(database: string, work: (sessions: Sessions) => Promise<T>): Promise<T> {
    if (database === this.#config.database) return work(this);
    const other = new Sessions({ ...this.#config, database }, this.#password, { ...this.#options, maxConnections: 1 });
    try {
      return await work(other);
    } finally {
      await other.close();
    }
  }

  /** A single client as somebody else, for preflight. The caller ends it. */
  async connectAs(username: string, database: string, password: Sensitive): Promise<pg.Client> {
    try {
      const client = new TargetClient(await clientConfig({ ...this.#config, username, database }, password, this.#options));
      client.on("error", () => {}); // the loss shows at the next query
      await client.connect();
      return client;
    } catch (error) {
      throw targetError(error);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    const pool = this.#pool;
    this.#pool = undefined;
    await (await pool?.catch(() => undefined))?.end();
  }

  #open(): Promise<SharedPool> {
    if (this.#closed) throw new LeaseholdError("TARGET_UNAVAILABLE", "target closed");
    this.#pool ??= this.#createPool().catch((error: unknown) => {
      this.#pool = undefined;
      throw error;
    });
    return this.#pool;
  }

  async #createPool(): Promise<SharedPool> {
    const { maxConnections, limit, connectTimeoutMs } = this.#options;
    return SharedPool.open(await clientConfig(this.#config, this.#password, this.#options), {
      maxConnections,
      limit,
      patienceMs: connectTimeoutMs,
      idleMs: IDLE_MS,
      maxLifeSeconds: MAX_LIFE_SECONDS,
    });
  }
}

/** A function that is missing where others of ours are: the target was bootstrapped by an older version. */
async function outdatedBootstrap(client: pg.PoolClient): Promise<LeaseholdError | undefined> {
  try {
    const { rows } = await client.query<{ version: number }>("SELECT leasehold.version() AS version");
    const { version } = rows[0]!;
    return version < BOOTSTRAP_VERSION ? misconfigured("bootstrap_outdated", { installed: String(version), needed: String(BOOTSTRAP_VERSION) }) : undefined;
  } catch {
    return undefined;
  }
}
