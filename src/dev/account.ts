import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { LeaseholdError } from "../base/errors.ts";

/** How a server that refuses to be root is started: with a command in front, or as another user. Both empty for a normal user. */
export interface Account {
  readonly prefix: readonly string[];
  readonly ids: { readonly uid?: number; readonly gid?: number };
  /** The owner its files must have; undefined where we cannot and need not change owners. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined;
}

const run = promisify(execFile);

/** All that a child server inherits: nothing of ours, which may hold keys (attack C7: /proc/<child>/environ). */
export function startEnvironment(): Record<string, string> {
  return { PATH: process.env["PATH"] ?? "/usr/bin:/bin", LC_ALL: "C" };
}

/**
 * A normal user runs the database as itself. Root runs it in a user namespace as `nobody`, where files stay root's and folders only root
 * may enter still work; where namespaces are forbidden (some containers), as the real `nobody`.
 * @param namespaces false only in tests of the second way.
 */
export async function unprivilegedAccount(namespaces = true): Promise<Account> {
  if (process.getuid?.() !== 0) return { prefix: [], ids: {}, owner: undefined };
  const uid = await idOf("-u");
  const gid = await idOf("-g");
  // The ids must exist in passwd: initdb looks its own user up.
  const prefix = ["unshare", "--user", `--map-user=${uid}`, `--map-group=${gid}`];
  if (namespaces && (await canRun({ prefix, ids: {}, owner: undefined }, ["true"]))) return { prefix, ids: {}, owner: { uid: 0, gid: 0 } };
  return { prefix: [], ids: { uid, gid }, owner: { uid, gid } };
}

/** Whether `command` succeeds as that account: the truth about modes, owners, ACLs and mount options, where reading modes would guess. */
export async function canRun(account: Account, command: readonly string[]): Promise<boolean> {
  const [file, ...args] = [...account.prefix, ...command];
  return run(file!, args, { cwd: "/", env: startEnvironment(), ...account.ids }).then(
    () => true,
    () => false,
  );
}

async function idOf(flag: "-u" | "-g"): Promise<number> {
  const { stdout } = await run("id", [flag, "nobody"]).catch((cause: unknown) => {
    throw new LeaseholdError("STORE_UNAVAILABLE", "PostgreSQL does not run as root, and this machine has no user `nobody` to run it as", { cause });
  });
  return Number(stdout);
}
