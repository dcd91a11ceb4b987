import { LeaseholdError } from "../base/errors.ts";
import { systemActor } from "../model/audit.ts";
import type { ListedLogin, Target } from "../engines/engine.ts";
import type { Progress, Work } from "../operations/operations.ts";
import { endedLeaseOf, liveUsernames } from "../store/reconcile.ts";
import type { TargetGate } from "./gate.ts";
import { raise } from "./finding.ts";
import { type ScanLeasesDeps, scanLeases } from "./scan-leases.ts";

const PAGE = 500;
const FIRST_ID = "00000000-0000-0000-0000-000000000000";

export interface ScanDeps extends ScanLeasesDeps {
  readonly gate: TargetGate;
  readonly open: (uid: string) => Promise<Target<unknown>>;
  /** With `dropOrphans`, an orphan is dropped once it was first seen this long ago, unless the scan says otherwise. */
  readonly graceMs: number;
}

interface ScanArgs {
  readonly targetUid: string;
  readonly dropOrphans: boolean;
  /** For so long an orphan must have been known; undefined: `ScanDeps.graceMs`, 0: a quarantine was ended with the order to drop them now. */
  readonly orphanAgeMs?: number;
  /** Orphans that are dropped at once. */
  readonly names: readonly string[];
}

interface Cursor {
  readonly phase: "logins" | "leases";
  readonly after: string;
}

/** Compares a target's logins with the ledger, both ways, by the page. A step can be repeated. Fails with TARGET_MISCONFIGURED `quarantined`, `in_recovery`, `not_enumerable`. */
export function scanTargetWork(deps: ScanDeps): Work {
  return {
    kind: "scan-target",
    async step(operation, progress) {
      const args = operation.args as unknown as ScanArgs;
      const cursor = (progress.cursor ?? { phase: "logins", after: "" }) as Cursor;
      // Anew: a scan follows a release, which may have been another replica's.
      if (progress.done === 0) await deps.gate.look(args.targetUid);
      await deps.gate.check(args.targetUid);
      const target = await deps.open(args.targetUid);
      if (target.list === undefined) throw new LeaseholdError("TARGET_MISCONFIGURED", "can't list logins", { metadata: { problem: "not_enumerable" } });
      const identity = await target.identify();
      if (identity.inRecovery) throw new LeaseholdError("TARGET_MISCONFIGURED", "in recovery", { metadata: { problem: "in_recovery" } });
      if (cursor.phase === "logins") return forward(progress, await scanLogins(deps, args, target, identity.systemIdentifier, cursor.after));
      const leases = await scanLeases(deps, args.targetUid, target, { system: identity.systemIdentifier, after: cursor.after, limit: PAGE });
      if (leases.length === PAGE) return forward(progress, { cursor: { phase: "leases", after: leases.at(-1)!.id }, count: PAGE });
      await settle(deps, args.targetUid, operation.createdAt);
      return undefined;
    },
  };
}

/** What an earlier scan found and this one did not is over. */
async function settle(deps: ScanDeps, targetUid: string, beganAt: number): Promise<void> {
  const args = { target_uid: targetUid, before: new Date(beganAt).toISOString() };
  await deps.committer.commit({ kind: "finding.settle", path: deps.pathOf(targetUid), actor: systemActor("finding.resolve", "not found again"), args });
}

interface Page {
  readonly cursor: Cursor | undefined;
  readonly count: number;
}

function forward(progress: Progress, { cursor, count }: Page): Progress {
  const done = progress.done + count;
  return { cursor, done, total: Math.max(progress.total, done) };
}

/** The ledger is asked after the listing: a row is committed before its login exists, so what has none then is nobody's. What ended meanwhile is not there any more when it is looked for again. */
async function scanLogins(deps: ScanDeps, args: ScanArgs, target: Target<unknown>, system: string, after: string): Promise<Page> {
  const listed = (await target.list?.(after, PAGE)) ?? [];
  const suspects = await withoutLease(deps, args.targetUid, listed);
  const there = suspects.length === 0 ? new Set() : await target.present!(suspects.map((one) => one.name));
  for (const one of suspects) if (there.has(one.name)) await orphan(deps, args, target, system, one);
  const more = listed.length === PAGE;
  return { cursor: more ? { phase: "logins", after: listed.at(-1)!.name } : { phase: "leases", after: FIRST_ID }, count: listed.length };
}

async function withoutLease(deps: ScanDeps, targetUid: string, listed: readonly ListedLogin[]): Promise<readonly ListedLogin[]> {
  if (listed.length === 0) return [];
  const live = await liveUsernames(
    deps.db,
    targetUid,
    listed.map((one) => one.name),
  );
  return listed.filter((one) => !live.has(one.name));
}

async function orphan(deps: ScanDeps, args: ScanArgs, target: Target<unknown>, systemIdentifier: string, login: ListedLogin): Promise<void> {
  // A login that came back under a lease that has ended, as after a failover that lost the target's tail: it goes the way of every revocation.
  const ended = await endedLeaseOf(deps.db, args.targetUid, login.name);
  if (ended !== undefined) {
    const reopen = { id: ended.id, generation: ended.generation, oid: login.oid, claim_ms: 0 };
    await deps.committer.commit({
      kind: "lease.reopen",
      path: ended.path,
      actor: systemActor("lease.recover", "found by a scan"),
      lease: ended.id,
      args: reopen,
    });
    return deps.due.changed(ended.id);
  }
  const { id, ageMs } = await raise(deps, "ORPHAN", args.targetUid, login);
  if (!(args.names.includes(login.name) || (args.dropOrphans && ageMs >= (args.orphanAgeMs ?? deps.graceMs)))) return;
  if ((await withoutLease(deps, args.targetUid, [login])).length === 0) return;
  await target.revoke({ name: login.name, oid: login.oid, systemIdentifier, ownedObjects: { kind: "refuse" } });
  const actor = systemActor("finding.resolve", "orphan dropped");
  await deps.committer.commit({ kind: "finding.resolve", path: deps.pathOf(args.targetUid), actor, args: { id, resolution: "dropped" } });
}
