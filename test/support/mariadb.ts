import { execFile, spawnSync } from "node:child_process";
import { chownSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { createConnection } from "mysql2/promise";
import { startEnvironment, unprivilegedAccount } from "../../src/dev/account.ts";
import { freePort } from "../../src/dev/free-port.ts";
import { tether } from "../../src/dev/tether.ts";
import { until } from "./until.ts";

const run = promisify(execFile);
const INSTALL =
  "export DEBIAN_FRONTEND=noninteractive; apt-get install -y -qq mariadb-server || { apt-get update -qq && apt-get install -y -qq mariadb-server; }";

export interface TestMariadb {
  readonly port: number;
  /** As root. */
  query(...statements: readonly string[]): Promise<void>;
  stop(): Promise<void>;
}

/** A MariaDB of one's own on 127.0.0.1, as an unprivileged user even when we are root. Ends at the latest with the test's process. */
export async function freshMariadb(): Promise<TestMariadb> {
  const { server, install } = mariadb();
  const account = await unprivilegedAccount();
  const folder = mkdtempSync(join(tmpdir(), "leasehold-mariadb-"));
  if (account.owner !== undefined) chownSync(folder, account.owner.uid, account.owner.gid);
  const data = join(folder, "data");
  const [file, ...args] = [...account.prefix, install, "--no-defaults", `--datadir=${data}`, "--auth-root-authentication-method=normal", "--skip-test-db"];
  // A server that starts deletes what another one keeps for the moment in the same folder: so each has its own.
  await run(file, args, { cwd: "/", env: { ...startEnvironment(), TMPDIR: folder }, ...account.ids });
  const port = await freePort();
  const logFile = join(folder, "log");
  const flags = [
    `--datadir=${data}`,
    `--tmpdir=${folder}`,
    `--socket=${join(folder, "s")}`,
    `--pid-file=${join(folder, "pid")}`,
    `--port=${port}`,
    "--bind-address=127.0.0.1",
  ];
  const small = ["--skip-name-resolve", "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--max-connections=100"];
  const running = await tether([server, "--no-defaults", ...flags, ...small], { account, logFile, signal: "TERM", lastResort: "KILL" });
  let ended = false;
  void running.exited.then(() => (ended = true));
  const connect = () => createConnection({ host: "127.0.0.1", port, user: "root" });
  await until("MariaDB to answer", async () => {
    if (ended) throw new Error(`MariaDB ended: ${readFileSync(logFile, "utf8").slice(-2000)}`);
    return connect().then(
      async (connection) => {
        await connection.end();
        return true;
      },
      () => undefined,
    );
  });
  return {
    port,
    async query(...statements) {
      const connection = await connect();
      // oxlint-disable-next-line no-await-in-loop -- in order
      for (const sql of statements) await connection.query(sql);
      await connection.end();
    },
    async stop() {
      await running.end();
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** Installed with the system's package manager when it may be. Throws when there is none: tests never skip in silence. */
function mariadb(): { readonly server: string; readonly install: string } {
  const there = find();
  if (there !== undefined) return there;
  if (spawnSync("/bin/sh", ["-c", "command -v apt-get"]).status === 0) {
    console.log("the engine tests need a MariaDB server: installing one with apt-get");
    const [program, ...args] = [...(process.getuid?.() === 0 ? [] : ["sudo", "-n"]), "sh", "-c", INSTALL];
    spawnSync(program, args, { stdio: ["ignore", "ignore", "inherit"] });
    const installed = find();
    if (installed !== undefined) return installed;
  }
  throw new Error(
    "the engine tests need mariadbd and mariadb-install-db: install MariaDB (Debian, Ubuntu: apt-get install mariadb-server; macOS: brew install mariadb)",
  );
}

function find(): { readonly server: string; readonly install: string } | undefined {
  const folders = [...(process.env["PATH"] ?? "").split(":"), "/usr/sbin", "/usr/local/sbin", "/usr/libexec"];
  const program = (name: string): string | undefined => folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
  const [server, install] = [program("mariadbd"), program("mariadb-install-db")];
  return server === undefined || install === undefined ? undefined : { server, install };
}
