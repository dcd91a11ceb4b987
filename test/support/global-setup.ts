import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { freePort } from "../../src/dev/free-port.ts";
import { startLocalPostgres } from "../../src/dev/local-postgres.ts";
import { findRedis } from "../../src/dev/local-redis.ts";
import { prepareTemplate } from "./template.ts";

declare module "vitest" {
  export interface ProvidedContext {
    postgres: { readonly port: number; readonly password: string };
    /** Path of the Redis or Valkey server. */
    redisServer: string;
  }
}

/** One PostgreSQL for the run, without fsync; every test file takes databases of its own from it. Redis is made sure of: tests never go without it in silence. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const redisServer = findRedis() ?? installRedis();
  const folder = mkdtempSync(join(tmpdir(), "leasehold-test-"));
  const password = randomBytes(16).toString("hex");
  const settings = { fsync: "off", full_page_writes: "off", max_connections: "300", max_wal_size: "4GB" };
  const postgres = await startLocalPostgres({ dataDir: join(folder, "pg"), port: await freePort(), password, settings });
  await prepareTemplate(postgres.url);
  project.provide("postgres", { port: postgres.port, password });
  project.provide("redisServer", redisServer);
  return async () => {
    await postgres.stop();
    rmSync(folder, { recursive: true, force: true });
  };
}

/** With the system's package manager, if it may; otherwise says what is to be installed. */
function installRedis(): string {
  const root = process.getuid?.() === 0 ? [] : ["sudo", "-n"];
  const ways = [
    [...root, "sh", "-c", "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server"],
    ["brew", "install", "redis"],
  ];
  for (const [program, ...args] of ways) {
    console.log("leasehold tests need a Redis server: installing one with the system's package manager");
    spawnSync(program!, args, { stdio: "ignore" });
    const found = findRedis();
    if (found !== undefined) return found;
  }
  throw new Error("the tests need redis-server or valkey-server on the PATH: install it (Debian: apt-get install redis-server; macOS: brew install redis) and run them again");
}
