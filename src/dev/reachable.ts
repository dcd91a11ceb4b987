import { createHash } from "node:crypto";
import { chmod, cp, lchown, lstat, mkdir, readdir, readlink, rename, rm, stat, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { LeaseholdError } from "../base/errors.ts";
import { canRun, type Account } from "./account.ts";
import type { PostgresBinaries } from "./postgres-binaries.ts";

/**
 * Attack finding 38: as root, binaries and data may lie below a folder that the database's account cannot enter (/root, or somebody's 0700
 * home). They then go below `home`, which only root may write, so that nobody can lay something in their place.
 */
export const REACHABLE_HOME = "/var/lib/leasehold-dev";

export async function reachableBinaries(binaries: PostgresBinaries, account: Account, home: string): Promise<PostgresBinaries> {
  if (account.owner === undefined || (await canRun(account, [binaries.postgres, "--version"]))) return binaries;
  const { mtimeMs, size } = await stat(binaries.postgres);
  const root = join(home, `postgres-${digest(`${binaries.root} ${mtimeMs} ${size}`)}`);
  const moved = (path: string): string => join(root, relative(binaries.root, path));
  if (!(await exists(root))) {
    await makeHome(home);
    const half = `${root}.${process.pid}`;
    await rm(half, { recursive: true, force: true });
    await cp(binaries.root, half, { recursive: true, verbatimSymlinks: true });
    await openToRead(half);
    // A copy that another starter finished first is as good as ours.
    await rename(half, root).catch(() => rm(half, { recursive: true, force: true }));
  }
  const copy = { ...binaries, postgres: moved(binaries.postgres), initdb: moved(binaries.initdb), root };
  if (!(await canRun(account, [copy.postgres, "--version"]))) throw unreachable(copy.postgres);
  return copy;
}

/**
 * The folder in which the cluster of `dataDir` really lies: itself, or, as root, a folder that the database's account can reach, to which
 * `dataDir` becomes a link. The link makes the choice permanent, so that another way of starting finds the same data.
 */
export async function reachableDataDir(dataDir: string, account: Account, home: string): Promise<string> {
  const kind = await lstat(dataDir).catch(() => undefined);
  if (kind?.isSymbolicLink()) return readlink(dataDir);
  await mkdir(dirname(dataDir), { recursive: true, mode: 0o700 });
  if (account.owner === undefined || (await canEnter(account, dirname(dataDir)))) return dataDir;
  if (kind !== undefined) throw unreachable(dataDir);
  const real = join(home, `data-${digest(dataDir)}`);
  await makeHome(home);
  if (!(await canEnter(account, home))) throw unreachable(home);
  await symlink(real, dataDir);
  return real;
}

/** Gives `dir` and all in it to the account, where an earlier start ran under another one. */
export async function own(dir: string, account: Account): Promise<void> {
  if (account.owner === undefined || (await stat(dir)).uid === account.owner.uid) return;
  const { uid, gid } = account.owner;
  // The folder itself last: its owner says whether this is done.
  for (const name of await readdir(dir, { recursive: true })) await lchown(join(dir, name), uid, gid);
  await lchown(dir, uid, gid);
}

function canEnter(account: Account, dir: string): Promise<boolean> {
  return canRun(account, ["/bin/sh", "-c", 'test -x "$1"', "sh", dir]);
}

async function makeHome(home: string): Promise<void> {
  await mkdir(home, { recursive: true });
  await chmod(home, 0o755);
}

async function openToRead(root: string): Promise<void> {
  await chmod(root, 0o755);
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) await chmod(path, 0o755);
    else if (entry.isFile()) await chmod(path, (await stat(path)).mode & 0o100 ? 0o755 : 0o644);
  }
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

function unreachable(path: string): LeaseholdError {
  return new LeaseholdError(
    "STORE_UNAVAILABLE",
    `PostgreSQL does not run as root, and its user cannot reach ${path}: start as a normal user, or move the project out of folders only root may enter`,
  );
}
