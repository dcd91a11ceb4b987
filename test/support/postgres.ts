import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { inject } from "vitest";
import { startLocalPostgres, type LocalPostgres } from "../../src/dev/local-postgres.ts";
import type { PostgresBinaries } from "../../src/dev/postgres-binaries.ts";
import { SUPERUSER } from "../../src/dev/init-cluster.ts";
import { DATABASE_OWNER, MIGRATED_TEMPLATE, TEST_SETTINGS } from "./postgres-shared.ts";
import { killServer } from "./process.ts";
import { tempFolder } from "./temp.ts";

export interface Login {
  readonly user: string;
  readonly password: string;
}

export interface TestDatabase {
  /** As the database's owner, who is no superuser. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly owner: Login;
  /** For what a test prepares or checks behind the broker's back; never what the broker connects as. */
  readonly superuser: Login;
  /** Runs one statement as the superuser, on a connection of its own. */
  query<R extends pg.QueryResultRow>(sql: string, values?: readonly unknown[]): Promise<R[]>;
  /** Ends its sessions. Databases that are not dropped go with the run. */
  drop(): Promise<void>;
}

/**
 * A new database of the run's PostgreSQL (about 20 ms): `migrated` has the broker's schema. Roles belong to the whole server: tests that
 * create logins or need the server's own name use `freshCluster`.
 */
export async function freshDatabase(template: "empty" | "migrated" = "migrated"): Promise<TestDatabase> {
  const shared = inject("postgres");
  if (template === "migrated" && shared.migrationFailure !== "") throw new Error(`no migrated template: ${shared.migrationFailure}`);
  const [host, port] = ["127.0.0.1", shared.port];
  const superuser = { user: SUPERUSER, password: shared.superuserPassword };
  const owner = { user: DATABASE_OWNER, password: shared.ownerPassword };
  const database = `test_${randomBytes(6).toString("hex")}`;
  const source = template === "migrated" ? MIGRATED_TEMPLATE : "template0";
  await asSuperuser(port, superuser, `create database ${database} owner ${DATABASE_OWNER} template ${source} strategy file_copy`);
  return {
    url: `postgres://${owner.user}:${owner.password}@${host}:${port}/${database}`,
    host,
    port,
    database,
    owner,
    superuser,
    query: (sql, values) => query(port, superuser, sql, values, database),
    drop: () => asSuperuser(port, superuser, `drop database if exists ${database} with (force)`),
  };
}

export interface TestCluster {
  readonly host: string;
  readonly port: number;
  readonly superuser: Login;
  /** As the superuser, on that database. */
  url(database?: string): string;
  /** Runs one statement as the superuser. */
  query<R extends pg.QueryResultRow>(sql: string, values?: readonly unknown[], database?: string): Promise<R[]>;
  /** Fast shutdown; the data stays for `start`. */
  stop(): Promise<void>;
  /** `kill -9` of the postmaster: the next start has to recover. */
  kill(): Promise<void>;
  /** Again, on the same port and data, with more settings if given. */
  start(settings?: Readonly<Record<string, string>>): Promise<void>;
  /** Stops it and takes its files away; without this they go with the run. */
  remove(): Promise<void>;
  readonly dataDir: string;
  readonly logFile: string;
}

/** A PostgreSQL of the caller's own (0.6 s): to stop, to kill, to be a target. Ends at the latest with the test's process. */
export async function freshCluster(settings: Readonly<Record<string, string>> = {}, binaries?: PostgresBinaries): Promise<TestCluster> {
  const folder = tempFolder("cluster");
  const dataDir = join(folder, "data");
  const superuser = { user: SUPERUSER, password: randomBytes(16).toString("hex") };
  let all = { ...TEST_SETTINGS, ...settings };
  const start = (port?: number): Promise<LocalPostgres> =>
    startLocalPostgres({
      dataDir,
      settings: all,
      password: superuser.password,
      ...(port === undefined ? {} : { port }),
      ...(binaries === undefined ? {} : { binaries }),
    });
  let server = await start();
  const { port } = server;
  return {
    host: "127.0.0.1",
    port,
    superuser,
    dataDir,
    logFile: server.logFile,
    url: (database = "postgres") => `postgres://${superuser.user}:${superuser.password}@127.0.0.1:${port}/${database}`,
    query: (sql, values, database) => query(port, superuser, sql, values, database),
    stop: () => server.stop(),
    kill: () => killServer(server),
    async start(more = {}) {
      await server.stop();
      all = { ...all, ...more };
      server = await start(port);
    },
    async remove() {
      await server.stop();
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

async function asSuperuser(port: number, login: Login, sql: string): Promise<void> {
  await query(port, login, sql);
}

async function query<R extends pg.QueryResultRow>(
  port: number,
  login: Login,
  sql: string,
  values: readonly unknown[] = [],
  database = "postgres",
): Promise<R[]> {
  const client = new pg.Client({ host: "127.0.0.1", port, ...login, database });
  client.on("error", () => {});
  await client.connect();
  try {
    return (await client.query<R>(sql, [...values])).rows;
  } finally {
    await client.end();
  }
}
