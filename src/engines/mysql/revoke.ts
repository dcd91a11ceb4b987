import { sleep } from "../../base/clock.ts";
import type { LoginRef, OpenOptions, RevokeResult } from "../engine.ts";
import { misconfigured } from "../own-login.ts";
import { accountsOf } from "./accounts.ts";
import { kill } from "./lock.ts";
import { quoteAccount, quoteLiteral } from "./quote.ts";
import { requireServer } from "./server.ts";
import type { Session } from "./sessions.ts";

/** Logins that were past their password check may take a moment to appear, as on PostgreSQL (attack.md A4): two empty scans this far apart. */
const QUIET_MS = 250;
const RESCAN_MS = 50;
const DRAIN_LIMIT_MS = 15_000;

/** The safe order: lock the account → end sessions until none comes → DROP USER → look again. Every step may be repeated. */
export async function revoke(session: Session, options: OpenOptions, login: LoginRef): Promise<RevokeResult> {
  const server = await requireServer(session, login.systemIdentifier);
  const all = await accountsOf(session, server, login.name);
  const own = all.filter((account) => login.oid === undefined || account.oid === login.oid);
  if (own.length === 0) {
    // A session that outlived its account is the lease's; but not where another account has the name now.
    if (all.length === 0) await endSessions(session, options, login.name, 1);
    return "absent";
  }
  const accounts = own.map(({ host }) => quoteAccount(login.name, host)).join(", ");
  await session.rows(`ALTER USER ${accounts} ACCOUNT LOCK`);
  await endSessions(session, options, login.name, 2);
  await session.rows(`DROP USER IF EXISTS ${accounts}`);
  await endSessions(session, options, login.name, 1);
  return "revoked";
}

/** Until so many scans in a row find none. */
async function endSessions(session: Session, options: OpenOptions, name: string, enough: 1 | 2): Promise<void> {
  let emptyScans = 0;
  for (let waitedMs = 0; waitedMs <= DRAIN_LIMIT_MS;) {
    /* oxlint-disable no-await-in-loop -- one after the other is the point */
    const found = await session.rows<{ id: number }>(`SELECT ID AS id FROM information_schema.PROCESSLIST WHERE USER = ${quoteLiteral(name)}`);
    for (const { id } of found) await kill(session, id);
    emptyScans = found.length === 0 ? emptyScans + 1 : 0;
    if (emptyScans === enough) return;
    const pause = emptyScans > 0 ? QUIET_MS : RESCAN_MS;
    await sleep(options.clock, pause);
    waitedMs += pause;
    /* oxlint-enable no-await-in-loop */
  }
  throw misconfigured("sessions_remain");
}
