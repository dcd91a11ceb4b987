import { sleep } from "../../base/clock.ts";
import type { LoginRef, OpenOptions, OwnedObjects, RevokeResult } from "../engine.ts";
import { misconfigured, problemOf } from "./faults.ts";
import type { Sessions } from "./sessions.ts";
import { serverOf } from "./server.ts";
import { DISABLE, DROP, DROP_OF_SET, OWNED, SETTLE, TERMINATE } from "./statements.ts";

/**
 * How long logins that were past their password check may take to appear: after NOLOGIN the latest was seen 73 ms after the first scan
 * (attack.md A4), so two empty scans this far apart.
 */
const QUIET_MS = 250;
const RESCAN_MS = 50;
/** Sessions that outlive this many milliseconds of being terminated are somebody's problem; the lease stays and is tried again. */
const DRAIN_LIMIT_MS = 15_000;
const MAX_NAMED_DATABASES = 10;

/** Sessions that have not gone by then hold up the others of their batch, which is divided. */
const BATCH_DRAIN_LIMIT_MS = 1000;

/** A login that can't log in any more. */
export interface Disabled extends LoginRef {
  /** As it was found; undefined when it was absent. */
  readonly found: string | undefined;
}

/*
 * The safe order: NOLOGIN (committed) → end sessions until none comes → owned objects → DROP ROLE → end sessions again, for one that began
 * in between lives on without a name. Every step may be repeated. Absent is success only where `leasehold.check_server` passed.
 *
 * Many at a time, on one server. Each half throws when one of them may have stopped all: then the halves of the batch are to be tried.
 */

/** The first step, by itself: whoever waits for the sessions of others to end can log in no longer meanwhile. */
export async function disableAll(sessions: Sessions, { instance }: OpenOptions, logins: readonly LoginRef[]): Promise<Disabled[]> {
  const values = [instance, logins.map((login) => login.name), logins.map((login) => login.oid ?? null), serverOf(logins.map((login) => ({ login })))];
  const rows = await sessions.query<{ login: string; role_oid: string | null }>(DISABLE, values);
  const found = new Map(rows.map((row) => [row.login, row.role_oid ?? undefined]));
  return logins.map((login) => ({ ...login, found: found.get(login.name) }));
}

/** The others. Those that own nothing go together, the rest one by one, as do those of a statement set, of which each runs what may fail or wait. */
export async function endAll(sessions: Sessions, options: OpenOptions, logins: readonly Disabled[]): Promise<(RevokeResult | Error)[]> {
  const { instance } = options;
  const server = serverOf(logins.map((login) => ({ login })));
  const limitMs = logins.length > 1 ? BATCH_DRAIN_LIMIT_MS : DRAIN_LIMIT_MS;
  const oids = logins.map((login) => login.found ?? login.oid).filter((oid) => oid !== undefined);
  await endSessions(sessions, options, oids, 2, limitMs);

  const there = logins.flatMap((login) => (login.found === undefined ? [] : [{ ...login, oid: login.found }]));
  if (there.length === 0) return logins.map(() => "absent");
  const together = there.filter((login) => login.statementSet === undefined);
  const outcomes: Map<string, string | Error> = together.length === 0 ? new Map() : await drop(sessions, instance, together, server);
  for (const login of there) {
    // oxlint-disable-next-line no-await-in-loop -- each may lock much, and they are few
    if (login.statementSet !== undefined) outcomes.set(login.name, await dropOfSet(sessions, instance, login, server));
    // oxlint-disable-next-line no-await-in-loop
    if (outcomes.get(login.name) === "owned") outcomes.set(login.name, await settleAndDrop(sessions, instance, login, server));
  }
  await endSessions(
    sessions,
    options,
    there.map(({ oid }) => oid),
    1,
    limitMs,
  );
  return logins.map((login) => {
    const outcome = outcomes.get(login.name);
    if (outcome instanceof Error) return outcome;
    if (outcome === "owned") return misconfigured("owned_objects");
    return outcome === "dropped" ? "revoked" : "absent";
  });
}

type FoundLogin = LoginRef & { readonly oid: string };

async function drop(sessions: Sessions, instance: string, logins: readonly FoundLogin[], server: string | null): Promise<Map<string, string>> {
  const values = [instance, logins.map((login) => login.name), logins.map((login) => login.oid), server];
  const rows = await sessions.query<{ login: string; outcome: string }>(DROP, values);
  return new Map(rows.map((row) => [row.login, row.outcome]));
}

/** With the statements that its set has for the end; undone unless the login is dropped. Outcomes as those of `drop`, or what went wrong. */
async function dropOfSet(sessions: Sessions, instance: string, login: FoundLogin, server: string | null): Promise<string | Error> {
  try {
    const [row] = await sessions.query<{ outcome: string }>(DROP_OF_SET, [instance, login.name, login.oid, server, login.statementSet]);
    return row!.outcome;
  } catch (error) {
    return problemOf(error) === "owned_objects" ? "owned" : (error as Error);
  }
}

async function settleAndDrop(sessions: Sessions, instance: string, login: FoundLogin, server: string | null): Promise<string | Error> {
  try {
    await settleOwned(sessions, instance, login);
    if (login.statementSet !== undefined) return await dropOfSet(sessions, instance, login, server);
    return (await drop(sessions, instance, [login], server)).get(login.name) ?? "absent";
  } catch (error) {
    return error as Error;
  }
}

/** By oid alone: after the drop a session has no user name any more, but still its usesysid. Until so many scans in a row find none. */
async function endSessions(sessions: Sessions, options: OpenOptions, oids: readonly string[], enough: 1 | 2, limitMs: number): Promise<void> {
  if (oids.length === 0) return;
  const scan = async (): Promise<number> => (await sessions.query<{ seen: number }>(TERMINATE, [options.instance, oids]))[0]?.seen ?? 0;
  let emptyScans = 0;
  for (let waitedMs = 0; waitedMs <= limitMs;) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
    emptyScans = (await scan()) === 0 ? emptyScans + 1 : 0;
    if (emptyScans === enough) return;
    const pause = emptyScans > 0 ? QUIET_MS : RESCAN_MS;
    // oxlint-disable-next-line no-await-in-loop
    await sleep(options.clock, pause);
    waitedMs += pause;
  }
  throw misconfigured("sessions_remain");
}

/** Only where pg_shdepend names the role, in exactly the databases it names (finding 6). Throws `owned_objects`: the login is dead, but stays. */
async function settleOwned(sessions: Sessions, instance: string, login: FoundLogin): Promise<void> {
  const owned = await sessions.query<{ database_name: string | null }>(OWNED, [instance, login.name, login.oid]);
  if (owned.length === 0) return;
  const databases = owned.map((row) => row.database_name);
  if (login.ownedObjects.kind === "refuse") throw ownedIn(databases);
  // Privileges on shared objects are taken back by any database's turn: our own when there is no other.
  const named = databases.filter((name) => name !== null);
  for (const database of named.length > 0 ? named : [sessions.config.database]) {
    // oxlint-disable-next-line no-await-in-loop -- few, and each may lock
    await settleIn(sessions, database, instance, login, newOwner(login.ownedObjects));
  }
}

async function settleIn(sessions: Sessions, database: string, instance: string, login: FoundLogin, owner: string | null): Promise<void> {
  try {
    const values = [instance, login.name, login.oid, login.systemIdentifier ?? null, owner];
    await sessions.inDatabase(database, (there) => there.query(SETTLE, values));
  } catch (error) {
    const problem = problemOf(error);
    if (problem === "owned_objects") throw ownedIn([database]);
    if (problem === "not_bootstrapped" || problem === "permission_missing") throw misconfigured("not_bootstrapped", { databases: database });
    throw error;
  }
}

function newOwner(owned: OwnedObjects): string | null {
  return owned.kind === "reassign_to" ? owned.role : null;
}

function ownedIn(databases: readonly (string | null)[]): Error {
  const names = databases.map((name) => name ?? "(shared)").slice(0, MAX_NAMED_DATABASES);
  return misconfigured("owned_objects", { databases: names.join(",") });
}
