import { setTimeout as after } from "node:timers/promises";
import { isReason } from "../base/errors.ts";
import { systemActor } from "../model/audit.ts";
import type { Progress, Work } from "../operations/operations.ts";
import type { OperationRecord } from "../store/operations.ts";
import type { Db } from "../store/db.ts";
import { countRevocableLeases, countUntriedLeases, revocableLeases, type RevokeFilter } from "../store/leases.ts";
import type { LeaseRevoker } from "./revoke.ts";

const BATCH = 200;
const LOOK_MS = 200;

/** May the principal who asked revoke this lease's role path, by the policy of now? */
export type MayRevoke = (principal: string, path: string) => boolean;

/** Behind `after` there may be more, until it is null. */
interface Cursor {
  readonly after: string | null;
}

/**
 * Ends every lease of a prefix or a principal (lesson 17). First all of them are marked REVOKING, a batch at a time, each authorized for who asked and audited by itself; from then on nobody can renew one or
 * be answered with it again. Then it waits until the schedule has asked each one's target; what a target refuses is the schedule's for ever, and shows in the lease.
 *
 * How many there are is counted and saved before the first is marked: whoever takes over after a crash finds fewer than were meant, since those that were marked look like any other that is ending.
 */
export function revokeLeasesWork(db: Db, revoker: LeaseRevoker, may: MayRevoke): Work {
  async function mark(operation: OperationRecord, behind: string, total: number): Promise<Progress> {
    const filter = filterOf(operation);
    const leases = await revocableLeases(db, filter, behind, BATCH);
    const actor = { ...systemActor("lease.revoke", `operations/${operation.id}`), principal: operation.principal };
    const allowed = leases.filter((lease) => may(operation.principal, lease.path));
    await Promise.all(allowed.map((lease) => revoker.mark(lease, actor).catch(unlessGone)));
    if (leases.length === BATCH) return { cursor: { after: leases.at(-1)!.id }, done: 0, total };
    const spared = await countRevocableLeases(db, filter); // who asked may not revoke them
    return { cursor: { after: null }, done: 0, total: Math.max(total - spared, 0) };
  }

  return {
    kind: "revoke-leases",
    async step(operation, progress, signal) {
      const { cursor, done, total } = progress as Progress & { readonly cursor: Cursor | null };
      if (cursor === null) return { cursor: { after: "" }, done: 0, total: await countRevocableLeases(db, filterOf(operation)) };
      if (cursor.after !== null) return mark(operation, cursor.after, total);
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

function unlessGone(error: unknown): void {
  if (!isReason(error, "LEASE_NOT_FOUND")) throw error;
}
