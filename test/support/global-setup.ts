import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import type { TestProject } from "vitest/node";
import { startLocalPostgres, type LocalPostgres } from "../../src/dev/local-postgres.ts";
import { migrate } from "../../src/store/migrate.ts";
import { DATABASE_OWNER, MIGRATED_TEMPLATE, TEST_SETTINGS } from "./postgres-shared.ts";
import { runFolder } from "./temp.ts";

/** One PostgreSQL 18 for the whole run, in a folder that goes away with it. Test files take databases of it (postgres.ts). */
export interface SharedPostgres {
  readonly port: number;
  readonly superuserPassword: string;
  readonly ownerPassword: string;
  /** Why there is no migrated template; empty when there is one. */
  readonly migrationFailure: string;
}

declare module "vitest" {
  interface ProvidedContext {
    readonly runFolder: string;
    readonly postgres: SharedPostgres;
  }
}

let folder: string | undefined;
let server: LocalPostgres | undefined;

export async function setup(project: TestProject): Promise<void> {
  folder = runFolder();
  project.provide("runFolder", folder);
  const superuserPassword = randomBytes(16).toString("hex");
  const ownerPassword = randomBytes(16).toString("hex");
  server = await startLocalPostgres({ dataDir: join(folder, "postgres"), settings: TEST_SETTINGS, password: superuserPassword });
  const { port } = server;
  const migrationFailure = await prepare(port, superuserPassword, ownerPassword);
  project.provide("postgres", { port, superuserPassword, ownerPassword, migrationFailure });
}

export async function teardown(): Promise<void> {
  await server?.stop();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
}

/** The owner of every test database, which is no superuser (finding 38: superusers hide what rights are missing), and the migrated template. */
async function prepare(port: number, superuserPassword: string, ownerPassword: string): Promise<string> {
  const admin = new pg.Client({ host: "127.0.0.1", port, user: "postgres", password: superuserPassword, database: "postgres" });
  await admin.connect();
  try {
    await admin.query(`create role ${DATABASE_OWNER} login nosuperuser password ${pg.escapeLiteral(ownerPassword)}`);
    await admin.query(`create database ${MIGRATED_TEMPLATE} owner ${DATABASE_OWNER}`);
    await migrate({ host: "127.0.0.1", port, user: DATABASE_OWNER, password: ownerPassword, database: MIGRATED_TEMPLATE });
    await admin.query(`alter database ${MIGRATED_TEMPLATE} allow_connections false`);
    return "";
  } catch (error) {
    return error instanceof Error ? `${error.message} ${error.cause instanceof Error ? error.cause.message : ""}` : String(error);
  } finally {
    await admin.end();
  }
}
