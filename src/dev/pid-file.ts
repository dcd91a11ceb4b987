import { execFile } from "node:child_process";
import { readFile, readlink, realpath, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** The lines of `postmaster.pid`, none when it is absent. */
export async function pidFile(dataDir: string): Promise<string[]> {
  const text = await readFile(join(dataDir, "postmaster.pid"), "utf8").catch(() => "");
  return text === "" ? [] : text.split("\n");
}

/**
 * PostgreSQL takes over the file of a dead server by itself, unless another process has got that pid since, as after a restart of a
 * container, where it refuses for ever. So a file whose process is surely no PostgreSQL of this folder is removed; in doubt it stays.
 */
export async function removeStalePidFile(dataDir: string): Promise<void> {
  const pid = Number((await pidFile(dataDir))[0]);
  if (!Number.isSafeInteger(pid) || pid <= 0 || !(await isSurelyAnother(pid, dataDir))) return;
  if (Number((await pidFile(dataDir))[0]) === pid) await rm(join(dataDir, "postmaster.pid"), { force: true });
}

async function isSurelyAnother(pid: number, dataDir: string): Promise<boolean> {
  if (process.platform === "linux") {
    // A postmaster's working folder is its data folder.
    const folder = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
    return folder !== undefined && folder !== (await realpath(dataDir));
  }
  const ps = await run("ps", ["-o", "command=", "-p", String(pid)]).catch(() => undefined);
  return ps !== undefined && !ps.stdout.includes("postgres");
}
