import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import type { PostgresBinaries } from "../../src/dev/postgres-binaries.ts";
import { freshCluster } from "../support/postgres.ts";

/** A target server of one of `VERSIONS`, to be bootstrapped. */
export interface Cluster {
  readonly version: string;
  readonly port: number;
  readonly logFile: string;
  /** Superuser session; the caller ends it. */
  superuser(database?: string): Promise<pg.Client>;
  /** With these files added to the data folder and settings changed. */
  restart(files: Readonly<Record<string, string>>, settings?: Readonly<Record<string, string>>): Promise<void>;
  stop(): Promise<void>;
}

const DEBIAN_15 = "/usr/lib/postgresql/15";

const BINARIES: ReadonlyMap<string, PostgresBinaries | undefined> = new Map<string, PostgresBinaries | undefined>([
  ["18", undefined], // the embedded one
  ...(existsSync(`${DEBIAN_15}/bin/postgres`)
    ? ([["15", { postgres: `${DEBIAN_15}/bin/postgres`, initdb: `${DEBIAN_15}/bin/initdb`, root: DEBIAN_15, localeFlags: ["--locale=C"] }]] as const)
    : []),
]);

/** The embedded PostgreSQL, and Debian's where it is installed: rights and locks differ much before and after 16. */
export const VERSIONS: readonly string[] = [...BINARIES.keys()];

export async function startCluster(version: string, settings: Readonly<Record<string, string>> = {}): Promise<Cluster> {
  const cluster = await freshCluster({ max_connections: "150", ...settings }, BINARIES.get(version));
  return {
    version,
    port: cluster.port,
    logFile: cluster.logFile,
    superuser: async (database = "postgres") => {
      const client = new pg.Client({ host: cluster.host, port: cluster.port, ...cluster.superuser, database, ssl: false });
      client.on("error", () => {});
      await client.connect();
      return client;
    },
    restart: async (files, more) => {
      await cluster.stop();
      for (const [name, content] of Object.entries(files)) writeFileSync(join(cluster.dataDir, name), content, { mode: 0o600 });
      await cluster.start(more);
    },
    stop: () => cluster.stop(),
  };
}
