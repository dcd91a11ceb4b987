import { setTimeout as after } from "node:timers/promises";
import { systemActor } from "../model/audit.ts";
import type { Progress, Work } from "../operations/operations.ts";
import type { OperationRecord } from "../store/operations.ts";
import type { Db } from "../store/db.ts";
import { countRevocableLeases, countUntriedLeases, type RevocableLease, revocableLeases, type RevokeFilter } from "../store/leases.ts";
import type { LeaseRevoker } from "./revoke.ts";

const BATCH = 500;
const LOOK_MS = 200;
/** Pages whose logins are being taken away: most of that is waiting for sessions that may still appear. While clients are served it takes its time rather than theirs. */
const AHEAD = 6;
const AHEAD_SERVING = 1;

/** May the principal who asked revoke this lease's role path, by the policy of now? */
export type MayRevoke = (principal: string, path: string) => boolean;

/**
 * Behind `at` there may be more, or from the start without it, until `after` is null. A replica of an older version goes by `after` alone, which is an id to it: by the empty one it begins again, and finds what
 * is left.
 */
interface Cursor {
  readonly after: string | null;
  readonly at?: RevocableLease;
}

/**
 * Ends every lease of a prefix or a principal (lesson 17), a page at a time: each is authorized for who asked, becomes REVOKING (from then on nobody can renew it or be answered with it again), and its login is
 * taken away, which is one record for each. Then it waits until each one's target has been asked; what a target refuses is the schedule's for ever, and shows in the lease. What a dead replica had begun is
 * the schedule's too.
 *
 * How many there are is counted and saved before the first is marked: whoever takes over after a crash finds fewer than were meant, since those that were marked look like any other that is ending.
 */
export function revokeLeasesWork(db: Db, revoker: LeaseRevoker, may: MayRevoke, serving: () => boolean): Work {
  const ahead: Promise<unknown>[] = [];
  async function mark(operation: OperationRecord, behind: RevocableLease | undefined, total: number): Promise<Progress> {
    const filter = filterOf(operation);
    const leases = await revocableLeases(db, filter, behind, BATCH);
    const actor = { ...systemActor("lease.revoke", `operations/${operation.id}`), principal: operation.principal };
    const allowed = leases.filter((lease) => may(operation.principal, lease.path));
    const ids = allowed.map((lease) => lease.id);
    ahead.push((await revoker.endMany(ids, actor)).gone);
    while (ahead.length > (serving() ? AHEAD_SERVING : AHEAD)) await ahead.shift();
    if (leases.length === BATCH) return { cursor: { after: "", at: leases.at(-1)! }, done: 0, total };
    const spared = await countRevocableLeases(db, filter); // who asked may not revoke them
    return { cursor: { after: null }, done: 0, total: Math.max(total - spared, 0) };
  }

  return {
    kind: "revoke-leases",
    async step(operation, progress, signal) {
      const { cursor, done, total } = progress as Progress & { readonly cursor: Cursor | null };
      if (cursor === null) return { cursor: { after: "" }, done: 0, total: await countRevocableLeases(db, filterOf(operation)) };
      if (cursor.after !== null) return mark(operation, cursor.at, total);
      if (done >= total) return undefined;
      await after(done === 0 ? 0 : LOOK_MS, undefined, { signal }).catch(() => {});
      const untried = await countUntriedLeases(db, filterOf(operation));
      return { cursor, done: Math.max(done, total - untried), total };
    },
  };
}

function filterOf(operation: OperationRecord): RevokeFilter {
  return operation.args as unknown as RevokeFilter;
}
