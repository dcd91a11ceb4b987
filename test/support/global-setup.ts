import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import type { TestProject } from "vitest/node";
import { stopAll } from "../../src/base/lifecycle.ts";
import { freePort } from "../../src/dev/free-port.ts";
import { startLocalPostgres } from "../../src/dev/local-postgres.ts";
import { startLocalRedis } from "../../src/dev/local-redis.ts";
import { migrate } from "../../src/store/migrate.ts";
import { redisServer } from "./install-redis.ts";
import { DATABASE_OWNER, MIGRATED_TEMPLATE, TEST_SETTINGS } from "./postgres-shared.ts";
import { runFolder } from "./temp.ts";

/** One PostgreSQL 18 and one Redis for the whole run, in a folder that goes away with it. Test files take databases and key prefixes of them (postgres.ts, redis.ts). */
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
    /** Path of the Redis or Valkey server. */
    readonly redisServer: string;
    /** Of the run's one Redis, with its password. */
    readonly redisUrl: string;
  }
}

let folder: string | undefined;
const running: { stop(): Promise<void> }[] = [];

export async function setup(project: TestProject): Promise<void> {
  const redisProgram = redisServer();
  project.provide("redisServer", redisProgram);
  folder = runFolder();
  project.provide("runFolder", folder);
  const redis = await startLocalRedis(join(folder, "redis"), await freePort(), redisProgram);
  running.push(redis);
  project.provide("redisUrl", redis.url);
  const superuserPassword = randomBytes(16).toString("hex");
  const ownerPassword = randomBytes(16).toString("hex");
  const server = await startLocalPostgres({ dataDir: join(folder, "postgres"), settings: TEST_SETTINGS, password: superuserPassword });
  running.push(server);
  const { port } = server;
  const migrationFailure = await prepare(port, superuserPassword, ownerPassword);
  project.provide("postgres", { port, superuserPassword, ownerPassword, migrationFailure });
}

export async function teardown(): Promise<void> {
  await stopAll(running);
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
