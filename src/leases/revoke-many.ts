import { isReason } from "../base/errors.ts";
import { systemActor } from "../model/audit.ts";
import type { Work } from "../operations/operations.ts";
import type { Db } from "../store/db.ts";
import { countRevocableLeases, revocableLeases, type RevokeFilter } from "../store/leases.ts";
import type { LeaseRevoker } from "./revoke.ts";

const BATCH = 50;

/** May the principal who asked revoke this lease's role path, by the policy of now? */
export type MayRevoke = (principal: string, path: string) => boolean;

/**
 * Ends every lease of a prefix or a principal, a batch at a time; each is authorized for who asked and audited by itself. What its target can't do now is left to the schedule, so the operation ends
 * when every lease is REVOKING or further.
 */
export function revokeLeasesWork(db: Db, revoker: LeaseRevoker, may: MayRevoke): Work {
  return {
    kind: "revoke-leases",
    async step(operation, progress) {
      const filter = operation.args as unknown as RevokeFilter;
      const after = typeof progress.cursor === "string" ? progress.cursor : "";
      const total = after === "" ? await countRevocableLeases(db, filter) : progress.total;
      const leases = await revocableLeases(db, filter, after, BATCH);
      if (leases.length === 0) return undefined;
      const actor = { ...systemActor("lease.revoke", `operations/${operation.id}`), principal: operation.principal };
      await Promise.all(
        leases
          .filter((lease) => may(operation.principal, lease.path))
          .map((lease) =>
            revoker.revoke(lease.id, "REVOKED", actor).catch((error: unknown) => {
              if (!isReason(error, "LEASE_NOT_FOUND")) throw error;
            }),
          ),
      );
      return { cursor: leases.at(-1)!.id, done: progress.done + leases.length, total: Math.max(total, progress.done + leases.length) };
    },
  };
}

