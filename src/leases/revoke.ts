import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Counter } from "../base/metrics.ts";
import { backoffMs } from "../base/retry.ts";
import type { OpenTargets } from "../catalog/open-targets.ts";
import { type Actor, systemActor } from "../model/audit.ts";
import { type EndCause, type LeaseRecord, RETRY_BASE_MS, RETRY_CAP_MS, STALLED_AFTER } from "../model/lease.ts";
import type { Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { findLease } from "../store/leases.ts";
import type { Breakers } from "./breaker.ts";
import type { Due } from "./due.ts";
import { loginOf } from "./login.ts";
import type { LeaseSettings } from "./settings.ts";

export interface RevokeDeps {
  readonly db: Db;
  readonly targets: OpenTargets;
  readonly committer: Committer;
  readonly due: Due;
  readonly breakers: Breakers;
  readonly settings: LeaseSettings;
  readonly log: Log;
  readonly revoked: Counter;
  readonly failed: Counter;
}

/** Takes logins away, and never gives up: what fails now is due again later, for ever. */
export class LeaseRevoker {
  readonly #deps: RevokeDeps;

  constructor(deps: RevokeDeps) {
    this.#deps = deps;
  }

  /**
   * Ends a lease: REVOKING is committed first, then the login goes in the engine's safe order. Answers the lease as it is then: REVOKED, or REVOKING when the target
   * can't be asked now. Throws LEASE_NOT_FOUND, STORE_UNAVAILABLE.
   */
  async revoke(
    id: string,
    cause: EndCause,
    actor: Actor,
    request?: { readonly id: string; readonly hash: string },
  ): Promise<{ readonly lease: LeaseRecord; readonly revision: number; readonly recorded: boolean }> {
    const { db, committer, settings } = this.#deps;
    const found = await findLease(db, id);
    if (found === undefined) throw new LeaseholdError("LEASE_NOT_FOUND");
    const args = { id, cause, claim_ms: settings.claimMs };
    const begun = await committer.commit({ kind: "lease.begin_revoke", path: found.path, actor, lease: id, request, args });
    if (!begun.ok) throw refusal(begun);
    const wasCreating = found.state === "PENDING";
    const lease = (await findLease(db, id)) ?? found;
    // While it is being created there is nothing sure to take away: the schedule does it when no creation can come any more.
    if (lease.state !== "REVOKING" || wasCreating || begun.replay === true) return { lease, revision: begun.revision, recorded: begun.replay !== true };
    const revision = await this.takeAway(lease, actor);
    return { lease: (await findLease(db, id)) ?? lease, revision: revision ?? begun.revision, recorded: true };
  }

  /** One try for a lease in REVOKING. Answers the revision of the end, or undefined when it must be tried again (which is then scheduled). */
  async takeAway(lease: LeaseRecord, actor: Actor): Promise<number | undefined> {
    const { targets, committer, breakers, settings, revoked } = this.#deps;
    const breaker = breakers.of(lease.targetUid);
    try {
      breaker.check();
      const target = await targets.open(lease.targetUid);
      await target.revoke(loginOf(lease));
      breaker.succeeded();
    } catch (error) {
      breaker.failed(error);
      await this.postpone(lease, error);
      return undefined;
    }
    const args = { id: lease.id, generation: lease.generation, grace_ms: settings.graceMs };
    const outcome = await committer.commit({ kind: "lease.finish_revoke", path: lease.path, actor, lease: lease.id, args });
    if (!outcome.ok) return undefined; // another worker finished it
    revoked.add();
    return outcome.revision;
  }

  /** Writes what the try met, and when the next one is. */
  async postpone(lease: LeaseRecord, error: unknown): Promise<void> {
    const { committer, due, failed, log } = this.#deps;
    const problem = problemOf(error);
    const nextMs = Math.max(backoffMs(lease.attempts, RETRY_BASE_MS, RETRY_CAP_MS), (error as { retryAfterMs?: number }).retryAfterMs ?? 0);
    const stalled = lease.attempts + 1 >= STALLED_AFTER || problem === "owned_objects";
    failed.add();
    log.warn({ lease: lease.id, state: lease.state, problem, attempts: lease.attempts + 1 }, "a lease's target did not do what was asked; it is tried again");
    const actor = systemActor("lease.retry", problem, lease.traceId);
    await committer.commit({ kind: "lease.fail_action", path: lease.path, actor, lease: lease.id, args: { id: lease.id, generation: lease.generation, problem, stalled, next_ms: nextMs } });
    await due.changed(lease.id);
  }
}

/** A constant that says what went wrong, for people and programs. */
function problemOf(error: unknown): string {
  if (!(error instanceof LeaseholdError)) return "internal";
  return error.metadata["problem"] ?? error.reason.toLowerCase();
}
