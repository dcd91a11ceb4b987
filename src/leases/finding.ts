import { randomUUID } from "node:crypto";
import { LeaseholdError } from "../base/errors.ts";
import { systemActor } from "../model/audit.ts";
import type { Committer } from "../store/command.ts";
import type { FindingRecord } from "../store/reconcile.ts";

export interface FindingDeps {
  readonly committer: Committer;
  /** `targets/<name>` */
  readonly pathOf: (uid: string) => string;
}

/** Something on a target does not agree with the ledger: a finding, or one that is open already and was seen again. Answers how long ago it was seen first. */
export async function raise(
  { committer, pathOf }: FindingDeps,
  kind: FindingRecord["kind"],
  targetUid: string,
  login: { readonly name: string; readonly oid: string },
): Promise<{ readonly id: string; readonly ageMs: number }> {
  const args = { id: randomUUID(), kind, target_uid: targetUid, ...login };
  const outcome = await committer.commit({ kind: "finding.raise", path: pathOf(targetUid), actor: systemActor("finding.raise", kind), args });
  if (!outcome.ok) throw new LeaseholdError("INTERNAL", "a finding was refused");
  return { id: String(outcome.result["id"]), ageMs: Number(outcome.result["age_ms"]) };
}
