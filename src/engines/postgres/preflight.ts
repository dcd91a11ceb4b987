import { isIP } from "node:net";
import { sleep } from "../../base/clock.ts";
import { isReason, LeaseholdError } from "../../base/errors.ts";
import type { LoginRef, OpenOptions, PreflightCheck, Target } from "../engine.ts";
import { newLoginSuffix, newPassword } from "../generate.ts";
import { loginName } from "../names.ts";
import { BOOTSTRAP_VERSION } from "./bootstrap.ts";
import { DEFAULT_SCRAM_ITERATIONS, type PostgresRoleConfig } from "./config.ts";
import { problemOf } from "./faults.ts";
import type { Sessions } from "./sessions.ts";
import { DISABLE, DROP, HAS_STATEMENT_SET, PROBLEM_GROUPS, SELF, TERMINATE } from "./statements.ts";

const VALID_FOR_MS = 60_000;
const END_LIMIT_MS = 5000;

/** Stops at the first check that makes the following ones meaningless. */
export async function preflight(
  target: Target<PostgresRoleConfig>,
  sessions: Sessions,
  options: OpenOptions,
  role: PostgresRoleConfig | undefined,
): Promise<readonly PreflightCheck[]> {
  const checks: PreflightCheck[] = [];
  const check = async (name: string, run: () => Promise<string>): Promise<boolean> => {
    try {
      checks.push({ name, ok: true, detail: await run() });
      return true;
    } catch (error) {
      checks.push({ name, ok: false, detail: error instanceof Complaint ? error.message : advice(error) });
      return false;
    }
  };
  if (!(await check("connect", () => checkConnect(target)))) return checks;
  await check("tls", () => checkTls(sessions));
  if (!(await check("bootstrap", () => checkBootstrap(sessions)))) return checks;
  await check("broker_login", () => checkSelf(sessions));
  await check("logging", () => checkLogging(sessions));
  if (role !== undefined && !(await check("groups", () => checkGroups(sessions, options, role)))) return checks;
  const set = role?.statementSet;
  if (set !== undefined && !(await check("statement_set", () => checkStatementSet(sessions, options, set)))) return checks;
  await checkLife(target, sessions, options, role, check);
  if (role !== undefined && role.ownedObjects.kind !== "refuse") {
    await check("owned_objects", () => sessions.inDatabase(role.database, checkBootstrap));
  }
  return checks;
}

/** A failed check, in words for the operator. */
class Complaint extends Error {}

async function checkConnect(target: Target<PostgresRoleConfig>): Promise<string> {
  const identity = await target.identify();
  if (identity.inRecovery) throw new Complaint("the server is in recovery (a standby): point the target at the primary");
  return `PostgreSQL ${identity.serverVersion}, system ${identity.systemIdentifier}, clock skew ${identity.clockSkewMs} ms`;
}

async function checkTls(sessions: Sessions): Promise<string> {
  const { host, tls } = sessions.config;
  if (tls.mode === "verify-full") return "verified";
  const local = host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
  if (!local) throw new Complaint("TLS is disabled and the server is on another host: set tls.mode to verify-full");
  return "disabled, on the loopback address";
}

interface SelfRow {
  readonly version: number;
  readonly powerful: boolean;
  readonly talkative: readonly string[];
}

async function self(sessions: Sessions): Promise<SelfRow> {
  return (await sessions.query<SelfRow>(SELF, []))[0]!;
}

async function checkBootstrap(sessions: Sessions): Promise<string> {
  const { version } = await self(sessions);
  if (version < BOOTSTRAP_VERSION) throw new Complaint(`bootstrap version ${version} is older than ${BOOTSTRAP_VERSION}: run leasehold target bootstrap again`);
  return `version ${version}`;
}

async function checkSelf(sessions: Sessions): Promise<string> {
  if ((await self(sessions)).powerful)
    throw new Complaint("the broker's login has attributes it must not have: make it NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS");
  return "no attributes";
}

async function checkLogging(sessions: Sessions): Promise<string> {
  const { talkative } = await self(sessions);
  if (talkative.length > 0)
    throw new Complaint(`verifiers could reach a log: run leasehold target bootstrap again, which sets ${talkative.join(", ")} for the broker's login`);
  return "verifiers stay out of the server's log";
}

async function checkGroups(sessions: Sessions, options: OpenOptions, role: PostgresRoleConfig): Promise<string> {
  const rows = await sessions.query<{ group_name: string; problem: string }>(PROBLEM_GROUPS, [options.instance, role.memberOf]);
  if (rows.length > 0) throw new Complaint(rows.map((row) => GROUP_ADVICE[row.problem]?.(row.group_name) ?? row.group_name).join("; "));
  return role.memberOf.length === 0 ? "none" : role.memberOf.join(", ");
}

async function checkStatementSet(sessions: Sessions, options: OpenOptions, set: string): Promise<string> {
  const [row] = await sessions.query<{ there: boolean }>(HAS_STATEMENT_SET, [options.instance, set]);
  if (row?.there !== true)
    throw new Complaint(`the target has no statement set ${set}: its superuser installs one with leasehold target bootstrap --statements ${set}=FILE`);
  return set;
}

const GROUP_ADVICE: Readonly<Record<string, (group: string) => string>> = {
  missing: (group) => `group ${group} does not exist: create it, then run leasehold target bootstrap with it`,
  not_allowed: (group) => `group ${group} is not on the target's list: run leasehold target bootstrap with it`,
  too_powerful: (group) => `group ${group} is, or is a member of, a role with SUPERUSER, CREATEROLE, REPLICATION, BYPASSRLS or a pg_* file or program role`,
};

/** A throw-away login through its whole life, a live session ended by force included (lessons 3, 4, 21). */
async function checkLife(
  target: Target<PostgresRoleConfig>,
  sessions: Sessions,
  options: OpenOptions,
  role: PostgresRoleConfig | undefined,
  check: (name: string, run: () => Promise<string>) => Promise<boolean>,
): Promise<void> {
  const { instance } = options;
  const name = loginName(instance, "preflight", newLoginSuffix());
  const password = newPassword();
  const tried: PostgresRoleConfig = role ?? {
    database: sessions.config.database,
    memberOf: [],
    scramIterations: DEFAULT_SCRAM_ITERATIONS,
    ownedObjects: { kind: "refuse" },
  };
  const { statementSet } = tried;
  // What the statements granted goes as it does from a lease's login; without them the throw-away login leaves nothing, and whatever it has is wrong.
  const ownedObjects = statementSet === undefined ? ({ kind: "refuse" } as const) : tried.ownedObjects;
  let ref: LoginRef = { name, oid: undefined, systemIdentifier: undefined, ownedObjects, statementSet };
  let dropped = false;
  try {
    const created = await check("create", async () => {
      const { clockSkewMs } = await target.identify();
      const deadlineAt = options.clock.now() + clockSkewMs + VALID_FOR_MS;
      const { oid, systemIdentifier } = await target.create({ name, password, role: tried, validForMs: VALID_FOR_MS, deadlineAt });
      ref = { ...ref, oid, systemIdentifier };
      return "a throw-away login was created";
    });
    if (!created) return;
    await check("login", () =>
      tryLogin(sessions, options, ref, tried.database, password).catch((error: unknown) => {
        // In no group, it may well be kept out of the database: that is what a role's groups are for.
        if (role === undefined && isReason(error, "TARGET_MISCONFIGURED") && error.metadata["problem"] === "permission_missing") return NEEDS_GROUPS;
        throw error;
      }),
    );
    dropped = await check("drop", async () => {
      if (statementSet !== undefined) {
        await target.revoke(ref);
        return `dropped, with the statements of ${statementSet}`;
      }
      await sessions.query(DISABLE, [instance, [name], [ref.oid], ref.systemIdentifier]);
      const [row] = await sessions.query<{ outcome: string }>(DROP, [instance, [name], [ref.oid], ref.systemIdentifier]);
      if (row?.outcome !== "dropped") throw new Complaint("the throw-away login could not be dropped: something on the target was granted to it");
      return "dropped";
    });
  } finally {
    if (!dropped) await target.revoke(ref).catch(() => {}); // else it ends by VALID UNTIL, without rights to do anything new
    password.wipe();
  }
}

const NEEDS_GROUPS = "the password was taken, and the database lets in none without a group: with a role (--role PATH) its groups are tried";

async function tryLogin(sessions: Sessions, options: OpenOptions, ref: LoginRef, database: string, password: ReturnType<typeof newPassword>): Promise<string> {
  const client = await sessions.connectAs(ref.name, database, password);
  const gone = new AbortController();
  client.once("end", () => gone.abort());
  try {
    await client.query("SELECT 1");
    await sessions.query(TERMINATE, [options.instance, [ref.oid]]);
    await sleep(options.clock, END_LIMIT_MS, gone.signal);
    if (!gone.signal.aborted) throw new Complaint("a live session of the throw-away login was not ended");
    return "logged in, and the live session was ended";
  } finally {
    await client.end().catch(() => {});
  }
}

const ADVICE: Readonly<Record<string, string>> = {
  authentication_failed: "the server refused the user name or password, or pg_hba.conf has no line for it",
  authentication_refused: "the server asked for the password in clear or as MD5, or for none at all: set scram-sha-256 in pg_hba.conf and password_encryption",
  tls: "TLS failed: the server offers none, or its certificate is not from the configured CA or not for this host name",
  database_missing: "the database does not exist",
  not_bootstrapped: "this database has no leasehold functions for this instance: run leasehold target bootstrap in it",
  bootstrap_outdated: "the leasehold functions there are of an older version: run leasehold target bootstrap in this database again",
  statement_refused:
    "the create statements made of the login what no leased login may be: renamed it, changed its password or VALID UNTIL, gave it an attribute, a powerful group or one with ADMIN OPTION, or made a temporary table",
  owned_objects:
    "after the drop statements the login still owned objects or had privileges: let them take back what create granted, or set owned_objects of the role",
  permission_missing: "the login lacks CONNECT on the database, or EXECUTE on the leasehold functions: run leasehold target bootstrap in it",
};

function advice(error: unknown): string {
  if (!(error instanceof LeaseholdError)) return "failed";
  const problem = problemOf(error);
  if (problem === undefined) return "the server could not be reached, or did not answer in time";
  const { statement } = error.metadata;
  if (statement !== undefined) return `a statement of the set failed (phase, place, SQLSTATE): ${statement}`;
  return ADVICE[problem] ?? problem;
}
