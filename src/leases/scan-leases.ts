import type { SeenLogin, Target } from "../engines/engine.ts";
import { systemActor } from "../model/audit.ts";
import type { Db } from "../store/db.ts";
import { activeGenerations, type ActiveLogin, activeLogins } from "../store/reconcile.ts";
import type { Due } from "./due.ts";
import { type FindingDeps, raise } from "./finding.ts";
import type { LeaseRevoker } from "./revoke.ts";

export interface ScanLeasesDeps extends FindingDeps {
  readonly db: Db;
  readonly revoker: LeaseRevoker;
  readonly due: Pick<Due, "changed">;
}

/** Clocks drift, and the ledger was asked a moment earlier than the target. */
const TOLERANCE_MS = 5000;

/** The ledger against the target, by the page: each ACTIVE lease has a login that lives as long as it does and may log in. The target is asked after the ledger. Answers the page. */
export async function scanLeases(
  deps: ScanLeasesDeps,
  targetUid: string,
  target: Target<unknown>,
  { system, after, limit }: { readonly system: string; readonly after: string; readonly limit: number },
): Promise<readonly ActiveLogin[]> {
  const leases = await activeLogins(deps.db, targetUid, after, system, limit);
  const there: ReadonlyMap<string, SeenLogin> = leases.length === 0 ? new Map() : await target.present!(leases.map((lease) => lease.username));
  const odd = leases.flatMap((lease) => {
    const kind = oddityOf(lease, there.get(lease.username));
    return kind === undefined ? [] : [{ lease, kind }];
  });
  if (odd.length === 0) return leases;
  // What has moved since it was read is no oddity: its login was on its way out, or is renewed.
  const now = await activeGenerations(
    deps.db,
    odd.map(({ lease }) => lease.id),
  );
  for (const { lease, kind } of odd) {
    // oxlint-disable-next-line no-await-in-loop -- few
    if (now.get(lease.id) === lease.generation) await ACTS[kind](deps, targetUid, lease);
  }
  return leases;
}

type Oddity = "missing" | "ends early" | "disabled";

function oddityOf({ leftMs }: ActiveLogin, seen: SeenLogin | undefined): Oddity | undefined {
  if (seen === undefined) return "missing";
  if (leftMs === null) return undefined;
  if (seen.canLogin === false) return "disabled";
  return seen.validForMs !== undefined && seen.validForMs < leftMs - TOLERANCE_MS ? "ends early" : undefined;
}

const ACTS: Readonly<Record<Oddity, (deps: ScanLeasesDeps, targetUid: string, lease: ActiveLogin) => Promise<void>>> = {
  async missing(deps, targetUid, lease) {
    await raise(deps, "LEASE_WITHOUT_LOGIN", targetUid, { name: lease.username, oid: lease.oid });
    await deps.revoker.mark(lease, systemActor("lease.revoke", "its login is missing"), "MISSING");
  },
  /** A failover undid a renewal: the schedule finishes it once more. */
  async "ends early"({ committer, due }, _targetUid, { id, path, generation }) {
    const actor = systemActor("lease.recover", "its login would have ended early");
    await committer.commit({ kind: "lease.renew_again", path, actor, lease: id, args: { id, generation } });
    await due.changed(id);
  },
  /** Said, and left so: it may be an administrator's emergency brake. */
  async disabled(deps, targetUid, lease) {
    await raise(deps, "LOGIN_DISABLED", targetUid, { name: lease.username, oid: lease.oid });
  },
};
