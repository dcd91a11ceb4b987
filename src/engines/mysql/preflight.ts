import { sleep } from "../../base/clock.ts";
import { Checklist, checkTls, Complaint, limits } from "../checklist.ts";
import type { LoginRef, OpenOptions, PreflightCheck, Target } from "../engine.ts";
import { newLoginSuffix, newPassword } from "../generate.ts";
import { loginName } from "../names.ts";
import { ABILITIES, MAX_NAME_BYTES } from "./abilities.ts";
import type { MysqlRoleConfig } from "./config.ts";
import type { Sessions } from "./sessions.ts";

const VALID_FOR_MS = 60_000;
const END_LIMIT_MS = 5000;
const ADVICE: Readonly<Record<string, string>> = {
  authentication_failed: "the server refused the user name or password, or has no account for the host we come from",
  authentication_refused: "the server asked for the password in a way that would show it",
  permission_missing: "the broker's account lacks a privilege: see docs/engines.md; what a role grants it must have itself, WITH GRANT OPTION",
  tls: "TLS failed: the server offers none, or its certificate is not from the configured CA or not for this host name",
  malformed: "a table of the role's grants does not exist, or a privilege does not fit",
};

/** Stops at the first check that makes the following ones meaningless. */
export async function preflight(
  target: Target<MysqlRoleConfig>,
  sessions: Sessions,
  options: OpenOptions,
  role: MysqlRoleConfig | undefined,
): Promise<readonly PreflightCheck[]> {
  const list = new Checklist(ADVICE);
  const connected = await list.check("connect", async () => {
    const identity = await target.identify();
    if (identity.inRecovery) throw new Complaint("the server is read-only (a replica): point the target at the primary");
    return `${identity.serverVersion}, system ${identity.systemIdentifier}, clock skew ${identity.clockSkewMs} ms`;
  });
  if (!connected) return list.checks;
  await list.check("tls", () => checkTls(sessions.config));
  await checkLife(target, sessions, options, role ?? { grants: [], hostPattern: "%" }, list);
  return [...list.checks, ...limits(ABILITIES)];
}

/** A throw-away login through its whole life, a live session ended by force included (lessons 3, 4, 21). */
async function checkLife(target: Target<MysqlRoleConfig>, sessions: Sessions, options: OpenOptions, role: MysqlRoleConfig, list: Checklist): Promise<void> {
  const name = loginName(options.instance, "preflight", newLoginSuffix(), { maxBytes: MAX_NAME_BYTES });
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
      const session = await sessions.connectAs(name, password);
      const gone = new AbortController();
      session.onEnd(() => gone.abort());
      try {
        await session.rows("SELECT 1");
        await target.revoke(ref);
        await sleep(options.clock, END_LIMIT_MS, gone.signal);
        if (!gone.signal.aborted) throw new Complaint("a live session of the throw-away login was not ended");
      } finally {
        session.destroy();
      }
      return "logged in, the live session was ended, and the login is gone";
    });
  } finally {
    await target.revoke(ref).catch(() => {});
    password.wipe();
  }
}
