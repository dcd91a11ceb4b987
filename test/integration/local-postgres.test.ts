import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { describe, expect, onTestFinished, test } from "vitest";
import { startLocalPostgres, type LocalPostgres, type LocalPostgresOptions } from "../../src/dev/local-postgres.ts";
import { embeddedPostgres } from "../../src/dev/postgres-binaries.ts";
import { freshCluster, freshDatabase } from "../support/postgres.ts";
import { groupOf, isRunning, type Program, startProgram } from "../support/process.ts";
import { tempFolder } from "../support/temp.ts";
import { until } from "../support/until.ts";

const HOLD = fileURLToPath(new URL("../support/hold-server.ts", import.meta.url));
const ROOT = process.getuid?.() === 0;

async function start(options: Partial<LocalPostgresOptions> & { readonly dataDir: string }): Promise<LocalPostgres> {
  const server = await startLocalPostgres({ password: "password", ...options });
  onTestFinished(() => server.stop());
  return server;
}

async function query(server: Pick<LocalPostgres, "port">, sql: string): Promise<pg.QueryResultRow[]> {
  const client = new pg.Client({ host: "127.0.0.1", port: server.port, user: "postgres", password: "password", database: "postgres" });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

async function held(program: Program): Promise<{ pid: number; port: number }> {
  const [, json] = await program.says(/started (\{.*\})/);
  return JSON.parse(json!) as { pid: number; port: number };
}

describe("data", () => {
  test("a second start keeps the data; only its owner may enter, and no password file stays", async () => {
    const folder = tempFolder("pg");
    const dataDir = join(folder, "data");
    const first = await start({ dataDir });
    await query(first, "create table kept as select 7 as n");
    await first.stop();
    await first.stop();
    expect(await first.exited).toBe(0);
    const second = await start({ dataDir });
    expect(await query(second, "select n from kept")).toEqual([{ n: 7 }]);
    expect(readdirSync(folder).toSorted()).toEqual(["data", "data.log"]);
    expect(statSync(dataDir).mode & 0o777).toBe(0o700);
    expect(statSync(`${dataDir}.log`).mode & 0o777).toBe(0o600);
  });

  test("a password is asked for, and the order of text is the server's own, not the machine's", async () => {
    const server = await start({ dataDir: join(tempFolder("pg"), "data") });
    const client = new pg.Client({ host: "127.0.0.1", port: server.port, user: "postgres", password: "wrong", database: "postgres" });
    await expect(client.connect()).rejects.toThrow("password authentication failed");
    const [row] = await query(
      server,
      "select datlocprovider, datlocale, (select setting from pg_hba_file_rules, lateral (select auth_method as setting) m group by 1) as auth from pg_database where datname = 'postgres'",
    );
    expect(row).toEqual({ datlocprovider: "b", datlocale: "C.UTF-8", auth: "scram-sha-256" });
  });

  test("a cluster that was killed comes back with its data", async () => {
    const cluster = await freshCluster();
    await cluster.query("create table kept (id int)");
    await cluster.kill();
    await cluster.start();
    expect(await cluster.query("select count(*)::int as n from kept")).toEqual([{ n: 0 }]);
    await cluster.remove();
    expect(existsSync(cluster.dataDir)).toBe(false);
  });

  test("a pid file left behind does not keep it from starting, even when another process has that pid now", async () => {
    const cluster = await freshCluster();
    await cluster.kill();
    const pidFile = join(cluster.dataDir, "postmaster.pid");
    writeFileSync(pidFile, readFileSync(pidFile, "utf8").replace(/^\d+/, String(process.pid)));
    await cluster.start();
    expect(await cluster.query("select 1 as one")).toEqual([{ one: 1 }]);
    await cluster.stop();
  });

  test("a start that was cut off while the cluster was made leaves no half of one", async () => {
    const folder = tempFolder("pg");
    const dataDir = join(folder, "data");
    const program = startProgram(process.execPath, [HOLD, "postgres", dataDir]);
    const half = await until("the cluster being made", () =>
      readdirSync(folder).find((name) => name.includes(".half-") && existsSync(join(folder, name, "PG_VERSION"))),
    );
    program.signal("SIGKILL");
    await program.ended;
    expect(existsSync(dataDir)).toBe(false);
    const server = await start({ dataDir });
    expect(await query(server, "select 1 as one")).toEqual([{ one: 1 }]);
    expect(readdirSync(folder).filter((name) => name.startsWith(half))).toEqual([]);
  });

  test("two first starts at once: one has it, the other is told", async () => {
    const dataDir = join(tempFolder("pg"), "data");
    const both = await Promise.allSettled([start({ dataDir }), start({ dataDir })]);
    expect(both.map((one) => one.status).toSorted()).toEqual(["fulfilled", "rejected"]);
    expect(both.find((one) => one.status === "rejected")?.reason).toMatchObject({
      reason: "STORE_UNAVAILABLE",
      message: expect.stringContaining("in use by another one") as string,
    });
  });
});

describe("what is in the way is one clear line", () => {
  test("a data folder in use", async () => {
    const dataDir = join(tempFolder("pg"), "data");
    const first = await start({ dataDir });
    const program = startProgram(process.execPath, [HOLD, "postgres", dataDir]);
    await program.says(/^failed cannot start PostgreSQL: the data folder .*data is in use by another one \(PID \d+\)\n$/);
    expect(program.stdout()).toContain(`(PID ${first.pid})`);
    expect(await query(first, "select 1 as one")).toEqual([{ one: 1 }]);
  });

  test("a taken port", async () => {
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void holder.close());
    const { port } = holder.address() as { port: number };
    const failure = startLocalPostgres({ dataDir: join(tempFolder("pg"), "data"), port, password: "password" });
    await expect(failure).rejects.toMatchObject({
      reason: "STORE_UNAVAILABLE",
      message: `cannot start PostgreSQL: port ${port} of 127.0.0.1 is in use by another program`,
    });
  });

  test("a data folder that is something else", async () => {
    const dataDir = join(tempFolder("pg"), "data");
    mkdirSync(dataDir);
    writeFileSync(join(dataDir, "diary.txt"), "mine");
    await expect(startLocalPostgres({ dataDir, password: "password" })).rejects.toThrow(/^cannot make the data folder .*data: something else is there$/);
    expect(readdirSync(dataDir)).toEqual(["diary.txt"]);
  });

  test("a setting it does not know", async () => {
    const failure = startLocalPostgres({ dataDir: join(tempFolder("pg"), "data"), password: "password", settings: { no_such_setting: "1" } });
    await expect(failure).rejects.toThrow(/^cannot start PostgreSQL on .*data: unrecognized configuration parameter "no_such_setting"$/);
  });
});

describe("it lives as long as its parent", () => {
  test("the parent's kill -9 leaves no process, and the next start is a normal one", async () => {
    const dataDir = join(tempFolder("pg"), "data");
    const program = startProgram(process.execPath, [HOLD, "postgres", dataDir]);
    const { pid } = await held(program);
    const shell = process.platform === "linux" ? groupOf(pid) : pid;
    expect(isRunning(pid) && isRunning(shell)).toBe(true);
    program.signal("SIGKILL");
    await until("PostgreSQL and its shell to be gone", () => !isRunning(pid) && !isRunning(shell));
    expect(existsSync(join(dataDir, "postmaster.pid"))).toBe(false);
    await start({ dataDir });
  });

  test("a start right after the parent's kill -9 waits for the old one to be gone", async () => {
    const dataDir = join(tempFolder("pg"), "data");
    const program = startProgram(process.execPath, [HOLD, "postgres", dataDir]);
    const { pid } = await held(program);
    program.signal("SIGKILL");
    await until("the shutdown to begin", () => !isRunning(pid) || readFileSync(`${dataDir}.log`, "utf8").includes("received fast shutdown request"));
    const server = await start({ dataDir });
    expect(server.pid).not.toBe(pid);
  });

  test("Ctrl-C reaches the parent alone", async () => {
    const program = startProgram(process.execPath, [HOLD, "postgres", join(tempFolder("pg"), "data")]);
    const server = await held(program);
    process.kill(-program.pid, "SIGINT");
    await program.says(/interrupted/);
    expect(await query(server, "select 1 as one")).toEqual([{ one: 1 }]);
    expect(isRunning(server.pid)).toBe(true);
  });

  test.runIf(process.platform === "linux")("finding C7: nothing of the parent's environment reaches it, and no password its command line", async () => {
    const program = startProgram(process.execPath, [HOLD, "postgres", join(tempFolder("pg"), "data")], {
      env: { LEASEHOLD_KMS_KEY: "canary-of-c7", CANARY: "canary-of-c7" },
    });
    const { pid } = await held(program);
    expect(readFileSync(`/proc/${program.pid}/environ`, "utf8")).toContain("canary-of-c7");
    for (const one of [pid, groupOf(pid)]) {
      const environment = readFileSync(`/proc/${one}/environ`, "utf8")
        .split("\0")
        .filter((line) => line !== "");
      expect(
        environment
          .map((line) => line.split("=")[0]!)
          .filter((name) => !["PWD", "OLDPWD", "SHLVL", "_"].includes(name))
          .toSorted(),
      ).toEqual(["LC_ALL", "PATH"]);
      expect(readFileSync(`/proc/${one}/cmdline`, "utf8")).not.toContain("password");
    }
  });
});

describe.runIf(ROOT)("finding 38: started as root", () => {
  /** A folder everybody may enter, as /var/lib is; the run's own is root's alone. */
  function openFolder(): string {
    const folder = mkdtempSync(join(tmpdir(), `leasehold-run-${process.pid}-open-`));
    chmodSync(folder, 0o755);
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    return folder;
  }
  const nobody = Number(spawnSync("id", ["-u", "nobody"], { encoding: "utf8" }).stdout);

  test("it is not root's process, below a folder only root may enter", async () => {
    const folder = tempFolder("roots");
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    const server = await start({ dataDir: join(folder, "data") });
    expect(await query(server, "select usesuper from pg_user where usename = 'postgres'")).toEqual([{ usesuper: true }]);
    const status = readFileSync(`/proc/${server.pid}/status`, "utf8");
    expect(/^CapEff:\s*0+$/m.test(status) || new RegExp(`^Uid:\\s*${nobody}\\b`, "m").test(status)).toBe(true);
  });

  test("without user namespaces, data and binaries it cannot reach go where it can, and are found again", async () => {
    const home = join(openFolder(), "home");
    const folder = tempFolder("roots");
    const embedded = await embeddedPostgres();
    const root = join(folder, "binaries");
    cpSync(embedded.root, root, { recursive: true, verbatimSymlinks: true });
    const binaries = { ...embedded, root, postgres: join(root, "bin/postgres"), initdb: join(root, "bin/initdb") };
    const options = { dataDir: join(folder, "data"), binaries, reachableHome: home, userNamespace: false };
    const first = await start(options);
    expect(statSync(first.dataDir).uid).toBe(nobody);
    expect(dirname(first.dataDir)).toBe(home);
    expect(statSync(first.dataDir).mode & 0o777).toBe(0o700);
    expect(readFileSync(`/proc/${first.pid}/status`, "utf8")).toMatch(new RegExp(`^Uid:\\s*${nobody}\\s+${nobody}\\s`, "m"));
    await query(first, "create table kept as select 7 as n");
    await first.stop();
    // Binaries that nobody could change would be a way up to root: the copy is root's.
    const copied = readdirSync(home).find((name) => name.startsWith("postgres-"))!;
    expect(statSync(join(home, copied, "bin/postgres"))).toMatchObject({ uid: 0 });
    expect(statSync(join(home, copied, "bin/postgres")).mode & 0o022).toBe(0);

    const again = await start(options);
    expect(await query(again, "select n from kept")).toEqual([{ n: 7 }]);
    await again.stop();
    const otherWay = await start({ ...options, userNamespace: true });
    expect(await query(otherWay, "select n from kept")).toEqual([{ n: 7 }]);
  });

  test("data made in a user namespace that cannot be reached without one is one clear line, not a new cluster", async () => {
    const dataDir = join(tempFolder("roots"), "data");
    await (await start({ dataDir })).stop();
    const failure = startLocalPostgres({ dataDir, password: "password", userNamespace: false, reachableHome: join(openFolder(), "home") });
    await expect(failure).rejects.toThrow(/^PostgreSQL does not run as root, and its user cannot reach .*data: start as a normal user/);
  });

  test("a normal user starts it as itself", async ({ skip }) => {
    const reachable =
      spawnSync(process.execPath, ["-e", "require('fs').readdirSync(process.argv[1])", dirname(HOLD)], { uid: nobody, gid: nobody }).status === 0;
    skip(!reachable, "the project lies where only root may enter");
    const folder = openFolder();
    chownSync(folder, nobody, nobody);
    const program = startProgram(process.execPath, [HOLD, "postgres", join(folder, "data")], { uid: nobody, gid: nobody });
    const server = await held(program);
    expect(await query(server, "select 1 as one")).toEqual([{ one: 1 }]);
    expect(statSync(join(folder, "data")).uid).toBe(nobody);
  });
});

test("a database of the run is the owner's, migrated, alone, and no superuser's", async () => {
  const [db, other, empty] = await Promise.all([freshDatabase(), freshDatabase("migrated"), freshDatabase("empty")]);
  const client = new pg.Client({ connectionString: db.url });
  await client.connect();
  const { rows } = await client.query(
    "select current_user, (select rolsuper from pg_roles where rolname = current_user) as super, to_regclass('schema_migration') is not null as migrated",
  );
  expect(rows).toEqual([{ current_user: "leasehold", super: false, migrated: true }]);
  await client.query("create table mine ()");
  await client.end();
  expect(await other.query("select to_regclass('mine') as mine")).toEqual([{ mine: null }]);
  expect(await empty.query("select to_regclass('schema_migration') as found")).toEqual([{ found: null }]);
  await db.drop();
  expect(await other.query("select count(*)::int as n from pg_database where datname = $1", [db.database])).toEqual([{ n: 0 }]);
});
