import { type Connection, createConnection, type RowDataPacket } from "mysql2/promise";
import type { Sensitive } from "../../base/sensitive.ts";
import type { OpenOptions } from "../engine.ts";
import { ExclusivePool } from "../exclusive.ts";
import type { MysqlTargetConfig } from "./config.ts";
import { targetError } from "./faults.ts";

/** A session: rows of a statement, each call with its own timeout. */
export interface Session {
  rows<Row extends object>(sql: string): Promise<Row[]>;
  /** True until the server or the network ended it. */
  readonly alive: () => boolean;
  /** At once, without a word to the server. */
  destroy(): void;
  onEnd(heard: () => void): void;
}

/** A session that says nothing for so long is ended by the server: a frozen worker's lock goes, and its next statement fails (see target.ts). */
const WAIT_TIMEOUT_SECONDS = 60;

/**
 * Statements whose text is ours alone need these: a quote is a quote, GRANT never makes an account, times are UTC. The server's own
 * settings could say otherwise.
 */
const SETTINGS = [
  "SET SESSION sql_mode = IF(VERSION() LIKE '%MariaDB%', 'STRICT_ALL_TABLES,NO_AUTO_CREATE_USER', 'STRICT_ALL_TABLES')",
  "SET SESSION time_zone = '+00:00'",
  `SET SESSION wait_timeout = ${WAIT_TIMEOUT_SECONDS}`,
];

/** Sessions with one target, each used by one call at a time: GET_LOCK belongs to the session. */
export class Sessions {
  readonly config: MysqlTargetConfig;
  readonly #options: OpenOptions;
  readonly #pool: ExclusivePool<Session>;

  constructor(config: MysqlTargetConfig, password: Sensitive, options: OpenOptions) {
    this.config = config;
    this.#options = options;
    this.#pool = new ExclusivePool(options, {
      open: () => this.#open(password),
      isUsable: (session) => session.alive(),
      discard: (session) => session.destroy(),
      fault: targetError,
    });
  }

  /** Throws a LeaseholdError TARGET_*. */
  use<T>(work: (session: Session) => Promise<T>): Promise<T> {
    return this.#pool.use(work);
  }

  /** A single session as somebody else, for preflight. The caller ends it. Throws a LeaseholdError TARGET_*. */
  async connectAs(username: string, password: Sensitive): Promise<Session> {
    const { host, port, tls } = this.config;
    try {
      const connection = await createConnection({
        host,
        port,
        user: username,
        password: password.revealText(),
        connectTimeout: this.#options.connectTimeoutMs,
        charset: "utf8mb4",
        multipleStatements: false,
        supportBigNumbers: true,
        flags: ["-LOCAL_FILES"],
        enableCleartextPlugin: false, // the password in clear to whoever asks (finding 23)
        ...(tls.mode === "disable"
          ? {}
          : { ssl: { minVersion: "TLSv1.2", rejectUnauthorized: true, verifyIdentity: true, ...(tls.caPem === undefined ? {} : { ca: tls.caPem }) } }),
      });
      return sessionOf(connection, this.#options.statementTimeoutMs);
    } catch (error) {
      throw targetError(error);
    }
  }

  close(): Promise<void> {
    this.#pool.close();
    return Promise.resolve();
  }

  async #open(password: Sensitive): Promise<Session> {
    const session = await this.connectAs(this.config.username, password);
    const lockSeconds = Math.max(1, Math.floor(this.#options.statementTimeoutMs / 2000));
    try {
      // oxlint-disable-next-line no-await-in-loop -- one connection
      for (const sql of [...SETTINGS, `SET SESSION lock_wait_timeout = ${lockSeconds}`]) await session.rows(sql);
      return session;
    } catch (error) {
      session.destroy();
      throw error;
    }
  }
}

function sessionOf(connection: Connection, timeout: number): Session {
  let alive = true;
  const ended: (() => void)[] = [];
  const end = (): void => {
    alive = false;
    for (const heard of ended.splice(0)) heard();
  };
  connection.on("error", end); // the loss shows at the next statement
  connection.on("end", end);
  return {
    alive: () => alive,
    async rows<Row extends object>(sql: string) {
      const [rows] = await connection.query<RowDataPacket[]>({ sql, timeout });
      return rows as unknown as Row[];
    },
    destroy() {
      alive = false;
      connection.destroy();
    },
    onEnd: (heard) => void ended.push(heard),
  };
}
