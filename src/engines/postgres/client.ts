import { readFile } from "node:fs/promises";
import { checkServerIdentity, type ConnectionOptions } from "node:tls";
import pg from "pg";
import type { Sensitive } from "../../base/sensitive.ts";
import { MAX_SCRAM_ITERATIONS, type PostgresTargetConfig, type TlsConfig } from "./config.ts";
import { ScramConnection } from "./wire.ts";

export interface Timeouts {
  readonly connectTimeoutMs: number;
  readonly statementTimeoutMs: number;
}

/** The server ends a statement first; only where it can't do we, and then the connection is unusable (spikes.md 5). */
const OWN_TIMEOUT_MARGIN_MS = 2000;

export class TargetClient extends pg.Client {
  constructor(config: pg.ClientConfig = {}) {
    const connection = new ScramConnection({ ssl: config.ssl, keepAlive: true, keepAliveInitialDelayMillis: 10_000 });
    // The pool hides the password from enumeration, so that spreading alone would lose it.
    super({ ...config, password: config.password, connection } as pg.ClientConfig);
    // The pool listens while a client is idle and not while it is used: a connection that breaks just then would end the process. The loss shows at the query.
    this.on("error", () => {});
  }
}

/**
 * Every option that pg would else take from the environment (PGOPTIONS, PGSSLMODE, PGHOST, ...) is given. Sessions have an empty
 * search_path, so that nothing a lease left in `public` can stand for a name of ours (finding 6), and wait for durable commits (finding 12).
 */
export async function clientConfig(config: PostgresTargetConfig, password: Sensitive, timeouts: Timeouts): Promise<pg.ClientConfig> {
  const lockTimeoutMs = Math.ceil(timeouts.statementTimeoutMs / 2);
  const settings = {
    search_path: "",
    synchronous_commit: "on",
    statement_timeout: timeouts.statementTimeoutMs,
    lock_timeout: lockTimeoutMs,
    idle_in_transaction_session_timeout: timeouts.statementTimeoutMs,
    // Plans of our lookups are made when there are few logins and kept when there are thousands: measured 2 ms against 0.2 for a drop.
    enable_seqscan: "off",
    // Before 18 a forbidden scan looks dear enough to be compiled.
    jit: "off",
  };
  const beyondPublishedTypes = { scramMaxIterations: MAX_SCRAM_ITERATIONS };
  return {
    ...beyondPublishedTypes,
    host: config.host,
    port: config.port,
    database: config.database,
    user: config.username,
    password: () => password.revealText(),
    ssl: await tlsOptions(config.host, config.tls),
    sslnegotiation: "postgres",
    application_name: "leasehold",
    client_encoding: "UTF8",
    options: Object.entries(settings)
      .map(([name, value]) => `-c ${name}=${value}`)
      .join(" "),
    connectionTimeoutMillis: timeouts.connectTimeoutMs,
    query_timeout: timeouts.statementTimeoutMs + OWN_TIMEOUT_MARGIN_MS,
  };
}

async function tlsOptions(host: string, tls: TlsConfig): Promise<false | ConnectionOptions> {
  if (tls.mode === "disable") return false;
  const ca = tls.caFile === undefined ? tls.caPem : await readFile(tls.caFile, "utf8");
  const expected = tls.serverName ?? host;
  return {
    rejectUnauthorized: true,
    minVersion: "TLSv1.2",
    checkServerIdentity: (_asked, certificate) => checkServerIdentity(expected, certificate),
    ...(ca === undefined ? {} : { ca }),
  };
}
