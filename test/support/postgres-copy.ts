import { chmodSync, cpSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { startLocalPostgres } from "../../src/dev/local-postgres.ts";
import type { TestCluster } from "./postgres.ts";
import { TEST_SETTINGS } from "./postgres-shared.ts";
import { tempFolder } from "./temp.ts";

/** A data folder as a backup or a disk's snapshot has it. */
export interface ColdCopy {
  readonly dataDir: string;
  readonly of: TestCluster;
}

/** Stops the server, copies its data folder, and starts it again. */
export async function coldCopy(cluster: TestCluster): Promise<ColdCopy> {
  await cluster.stop();
  const dataDir = join(tempFolder("copy"), "data");
  cpSync(realpathSync(cluster.dataDir), dataDir, { recursive: true });
  chmodSync(dataDir, 0o700);
  rmSync(join(dataDir, "postmaster.pid"), { force: true });
  await cluster.start();
  return { dataDir, of: cluster };
}

export type RunningCopy = Pick<TestCluster, "host" | "port" | "url" | "query" | "stop">;

/** Starts a copy at a port of its own, or at that of the original. @param promoted as a standby that has lost its primary and is made one: a new timeline begins. */
export async function startCopy({ dataDir, of }: ColdCopy, options: { readonly port?: number; readonly promoted?: boolean } = {}): Promise<RunningCopy> {
  if (options.promoted === true) writeFileSync(join(dataDir, "standby.signal"), "");
  const { user, password } = of.superuser;
  const server = await startLocalPostgres({
    dataDir,
    settings: TEST_SETTINGS,
    password,
    ...(options.port === undefined ? {} : { port: options.port }),
  });
  const url = (database = "postgres"): string => `postgres://${user}:${password}@${of.host}:${server.port}/${database}`;
  const copy: RunningCopy = {
    host: of.host,
    port: server.port,
    url,
    async query<R extends pg.QueryResultRow>(sql: string, values: readonly unknown[] = [], database?: string) {
      const client = new pg.Client(url(database));
      client.on("error", () => {});
      await client.connect();
      try {
        return (await client.query<R>(sql, [...values])).rows;
      } finally {
        await client.end();
      }
    },
    stop: () => server.stop(),
  };
  if (options.promoted === true) await copy.query("select pg_promote(true, 30)");
  return copy;
}
