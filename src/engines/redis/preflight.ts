import { sleep } from "../../base/clock.ts";
import { LeaseholdError } from "../../base/errors.ts";
import { Checklist, checkTls, Complaint, limits } from "../checklist.ts";
import type { LoginRef, OpenOptions, PreflightCheck, Target } from "../engine.ts";
import { newLoginSuffix, newPassword } from "../generate.ts";
import { loginName } from "../names.ts";
import { problemOf } from "../own-login.ts";
import { ABILITIES } from "./abilities.ts";
import type { RedisRoleConfig } from "./config.ts";
import { save } from "./server.ts";
import type { Sessions } from "./sessions.ts";

const VALID_FOR_MS = 60_000;
const END_LIMIT_MS = 5000;
const ADVICE: Readonly<Record<string, string>> = {
  authentication_failed: "the server refused the user name or password",
  permission_missing: "the broker's user lacks a command: see docs/engines.md for the list",
  tls: "TLS failed: the server offers none, or its certificate is not from the configured CA or not for this host name",
  acl_not_saved: "the server can't write its aclfile: give its account the right to the file's folder",
  malformed: "the server does not know one of the role's rules",
};

/** Stops at the first check that makes the following ones meaningless. */
export async function preflight(
  target: Target<RedisRoleConfig>,
  sessions: Sessions,
  options: OpenOptions,
  role: RedisRoleConfig | undefined,
): Promise<readonly PreflightCheck[]> {
  const list = new Checklist(ADVICE);
  const connected = await list.check("connect", async () => {
    const identity = await target.identify();
    if (identity.inRecovery) throw new Complaint("the server is a replica: point the target at the primary");
    return `Redis ${identity.serverVersion}, system ${identity.systemIdentifier}, clock skew ${identity.clockSkewMs} ms`;
  });
  if (!connected) return list.checks;
  await list.check("tls", () => checkTls(sessions.config));
  await list.check("aclfile", async () =>
    (await sessions.use(save))
      ? "logins are saved in the server's aclfile"
      : "the server has no aclfile: a restart ends every login, and gives the server a new identity; leases from before it then stay REVOKING (different_server)",
  );
  await list.check("list", () => checkList(target, sessions.config.username));
  await checkLife(target, sessions, options, role ?? { rules: ["+ping"] }, list);
  return [...list.checks, ...limits(ABILITIES)];
}

/** Scans ask for every user's name; leases work without. */
async function checkList(target: Target<RedisRoleConfig>, username: string): Promise<string> {
  try {
    await target.list!("", 1);
    return "logins can be listed";
  } catch (error) {
    if (!(error instanceof LeaseholdError) || problemOf(error) !== "permission_missing") throw error;
    throw new Complaint(`the broker's user may not list users, so scans fail: ACL SETUSER ${username} +acl|users (Redis 6.2: +acl)`);
  }
}

/** A throw-away login through its whole life, a live session ended by force included (lessons 3, 4, 21). */
async function checkLife(target: Target<RedisRoleConfig>, sessions: Sessions, options: OpenOptions, role: RedisRoleConfig, list: Checklist): Promise<void> {
  const name = loginName(options.instance, "preflight", newLoginSuffix());
  const password = newPassword();
  let ref: LoginRef = { name, oid: undefined, systemIdentifier: undefined, ownedObjects: { kind: "refuse" } };
  const created = await list.check("create", async () => {
    const { clockSkewMs } = await target.identify();
    const deadlineAt = options.clock.now() + clockSkewMs + VALID_FOR_MS;
    const { oid, systemIdentifier } = await target.create({ name, password, role, validForMs: VALID_FOR_MS, deadlineAt });
    ref = { ...ref, oid, systemIdentifier };
    return "a throw-away login was created";
  });
  try {
    if (!created) return;
    await list.check("login_and_drop", async () => {
      const client = await sessions.connectAs(name, password);
      try {
        const gone = new AbortController();
        client.once("end", () => gone.abort());
        await target.revoke(ref);
        await sleep(options.clock, END_LIMIT_MS, gone.signal);
        if (!gone.signal.aborted) throw new Complaint("a live session of the throw-away login was not ended");
      } finally {
        client.disconnect();
      }
      return "logged in, the live session was ended, and the login is gone";
    });
  } finally {
    await target.revoke(ref).catch(() => {});
    password.wipe();
  }
}
