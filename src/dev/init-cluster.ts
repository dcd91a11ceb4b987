import { randomBytes } from "node:crypto";
import { chown, mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { LeaseholdError } from "../base/errors.ts";
import type { Account } from "./account.ts";
import type { PostgresBinaries } from "./postgres-binaries.ts";
import { tether } from "./tether.ts";

export const SUPERUSER = "postgres";

/**
 * Makes the cluster unless it is there. It is made under another name and renamed when whole, so that a start that was cut off leaves no
 * half cluster behind; what it does leave is removed by the next start once its process is gone. Of two starters at once one wins.
 * @param password of the superuser; reaches initdb through a 0600 file that is gone afterwards.
 */
export async function initCluster(dataDir: string, binaries: PostgresBinaries, account: Account, password: string): Promise<void> {
  if (await isFile(join(dataDir, "PG_VERSION"))) return;
  await removeHalves(dataDir);
  const half = `${dataDir}.half-${process.pid}-${randomBytes(4).toString("hex")}`;
  const passwordFile = `${half}.password`;
  const logFile = `${half}.log`;
  try {
    await mkdir(half, { mode: 0o700 });
    await writeFile(passwordFile, password, { mode: 0o600, flag: "wx" });
    if (account.owner !== undefined) {
      await chown(half, account.owner.uid, account.owner.gid);
      await chown(passwordFile, account.owner.uid, account.owner.gid);
    }
    const flags = ["-D", half, `--username=${SUPERUSER}`, "--auth=scram-sha-256", `--pwfile=${passwordFile}`, "--encoding=UTF8", ...binaries.localeFlags];
    const initdb = await tether([binaries.initdb, ...flags, "--no-sync", "--no-instructions"], { account, logFile, signal: "INT", lastResort: "KILL" });
    if ((await initdb.exited) !== 0) throw new LeaseholdError("STORE_UNAVAILABLE", `initdb failed: ${firstError(await readFile(logFile, "utf8"))}`);
    await rename(half, dataDir).catch(async (cause: unknown) => {
      if (!(await isFile(join(dataDir, "PG_VERSION"))))
        throw new LeaseholdError("STORE_UNAVAILABLE", `cannot make the data folder ${dataDir}: something else is there`, { cause });
    });
  } finally {
    await Promise.all([half, passwordFile, logFile].map((path) => rm(path, { recursive: true, force: true })));
  }
}

async function removeHalves(dataDir: string): Promise<void> {
  const start = `${basename(dataDir)}.half-`;
  for (const name of await readdir(dirname(dataDir))) {
    if (!name.startsWith(start) || isAlive(Number.parseInt(name.slice(start.length), 10))) continue;
    // Its initdb may still be writing its last file.
    await rm(join(dirname(dataDir), name), { recursive: true, force: true, maxRetries: 50, retryDelay: 20 });
  }
}

function isAlive(pid: number): boolean {
  if (pid === process.pid) return true;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function firstError(output: string): string {
  const lines = output.split("\n").filter((line) => line.trim() !== "");
  return lines.find((line) => /error|fatal/i.test(line)) ?? lines.at(-1) ?? "no output";
}

function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}
