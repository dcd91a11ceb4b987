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

/** `marked` counts what was found; behind `after` there may be more, until it is null. */
interface Cursor {
  readonly after: string | null;
  readonly marked: number;
}

/**
 * Ends every lease of a prefix or a principal (lesson 17). First all of them are marked REVOKING, a batch at a time, each authorized for who asked and audited by itself; from then on nobody can renew one or
 * be answered with it again. Then it waits until the schedule has asked each one's target; what a target refuses is the schedule's for ever, and shows in the lease.
 */
export function revokeLeasesWork(db: Db, revoker: LeaseRevoker, may: MayRevoke): Work {
  async function mark(operation: OperationRecord, cursor: Cursor, progress: Progress): Promise<Progress> {
    const filter = operation.args as unknown as RevokeFilter;
    const total = cursor.after === "" ? await countRevocableLeases(db, filter) : progress.total;
    const leases = await revocableLeases(db, filter, cursor.after ?? "", BATCH);
    const actor = { ...systemActor("lease.revoke", `operations/${operation.id}`), principal: operation.principal };
    const allowed = leases.filter((lease) => may(operation.principal, lease.path));
    await Promise.all(allowed.map((lease) => revoker.mark(lease, actor).catch(unlessGone)));
    const marked = cursor.marked + allowed.length;
    const next: Cursor = { after: leases.length < BATCH ? null : leases.at(-1)!.id, marked };
    return { cursor: next, done: 0, total: next.after === null ? marked : Math.max(total, marked) };
  }

  return {
    kind: "revoke-leases",
    async step(operation, progress, signal) {
      const cursor = (progress.cursor ?? { after: "", marked: 0 }) as Cursor;
      if (cursor.after !== null) return mark(operation, cursor, progress);
      if (progress.done >= cursor.marked) return undefined;
      await after(progress.done === 0 ? 0 : LOOK_MS, undefined, { signal }).catch(() => {});
      const untried = await countUntriedLeases(db, operation.args as unknown as RevokeFilter);
      return { cursor, done: Math.max(progress.done, cursor.marked - untried), total: cursor.marked };
    },
  };
}

function unlessGone(error: unknown): void {
  if (!isReason(error, "LEASE_NOT_FOUND")) throw error;
}
