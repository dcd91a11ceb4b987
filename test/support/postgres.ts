import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { inject } from "vitest";
import { freePort } from "../../src/dev/free-port.ts";
import { type LocalPostgres, startLocalPostgres } from "../../src/dev/local-postgres.ts";
import { TEMPLATE } from "./template.ts";

export interface TestDatabase {
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly database: string;
  /** Of the superuser `postgres`. */
  readonly password: string;
  /** One statement on a connection of its own, as superuser. */
  query<R extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<R[]>;
  drop(): Promise<void>;
}

/** A database of one's own in the run's PostgreSQL. */
export async function freshDatabase(template: "empty" | "migrated" = "migrated"): Promise<TestDatabase> {
  const { port, password } = inject("postgres");
  const database = `t_${randomBytes(6).toString("hex")}`;
  const at = (name: string): string => `postgresql://postgres:${password}@127.0.0.1:${port}/${name}`;
  await run(at("postgres"), `create database ${database} ${template === "migrated" ? `template ${TEMPLATE} strategy file_copy` : ""}`);
  return {
    url: at(database),
    host: "127.0.0.1",
    port,
    database,
    password,
    query: (text, values) => run(at(database), text, values),
    drop: async () => {
      await run(at("postgres"), `drop database if exists ${database} with (force)`);
    },
  };
}

/** A PostgreSQL of one's own, to be stopped, killed or starved. */
export async function freshCluster(settings: Readonly<Record<string, string>> = {}): Promise<LocalPostgres & { readonly password: string; readonly folder: string; restart(): Promise<void>; remove(): Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), "leasehold-pg-"));
  const password = randomBytes(16).toString("hex");
  const options = { dataDir: join(folder, "pg"), port: await freePort(), password, settings: { fsync: "off", ...settings } };
  let running = await startLocalPostgres(options);
  return {
    port: options.port,
    url: running.url,
    password,
    folder,
    get exited() {
      return running.exited;
    },
    stop: () => running.stop(),
    restart: async () => {
      running = await startLocalPostgres(options);
    },
    remove: async () => {
      await running.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function run<R extends pg.QueryResultRow>(url: string, text: string, values?: unknown[]): Promise<R[]> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    const result = await client.query<R>(text, values);
    return result.rows;
  } finally {
    await client.end();
  }
}
