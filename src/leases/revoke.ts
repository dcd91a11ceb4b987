import { setTimeout as after } from "node:timers/promises";
import { LeaseholdError } from "../base/errors.ts";
import { reached } from "../base/fault-point.ts";
import type { Log } from "../base/log.ts";
import type { Counter } from "../base/metrics.ts";
import { backoffMs } from "../base/retry.ts";
import { type Actor, systemActor } from "../model/audit.ts";
import { type EndCause, type LeaseRecord, type LeaseState, RETRY_BASE_MS, RETRY_CAP_MS, STALLED_AFTER } from "../model/lease.ts";
import type { Command, Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { endLeases } from "../store/due-leases.ts";
import { findLease } from "../store/leases.ts";
import type { Due } from "./due.ts";
import { type LeasedLogin, loginFrom, loginOf } from "./login.ts";
import type { TargetReach } from "./reach.ts";
import type { LeaseSettings } from "./settings.ts";

export interface RevokeDeps {
  readonly db: Db;
  readonly reach: TargetReach;
  readonly committer: Committer;
  readonly due: Due;
  readonly settings: LeaseSettings;
  readonly log: Log;
  readonly revoked: Counter;
  readonly failed: Counter;
}

export interface Revoked {
  readonly lease: LeaseRecord;
  readonly revision: number;
  /** False for a replay. */
  readonly recorded: boolean;
}

/** A lease in REVOKING, and what taking its login away needs. */
export interface Ending extends LeasedLogin {
  readonly id: string;
  /** Role path. */
  readonly path: string;
  readonly targetUid: string;
  readonly state: LeaseState;
  readonly generation: number;
  readonly attempts: number;
  readonly traceId: string;
}

/** What came of one try. */
export interface Taken {
  /** Of the end; undefined when it did not come to that now, or another worker wrote it. */
  readonly revision?: number;
  /** A constant: what stood in the way. The next try is scheduled. */
  readonly problem?: string;
}

interface Named {
  readonly id: string;
  readonly path: string;
}

/** What stays as it is until somebody acts: said to be stalled at the first try. */
const STALLS: ReadonlySet<string> = new Set(["owned_objects", "statement_failed", "statement_set_missing", "statement_refused"]);

/** Takes logins away, and never gives up: what fails now is due again later, for ever (lesson 6). */
export class LeaseRevoker {
  readonly #deps: RevokeDeps;

  constructor(deps: RevokeDeps) {
    this.#deps = deps;
  }

  /**
   * Ends a lease on somebody's word: REVOKING is committed first, then the login goes in the engine's safe order. Answers the lease as it is then: REVOKED, or REVOKING when the target
   * can't be asked now, or takes longer than `patienceMs`. Throws LEASE_NOT_FOUND, CONFLICT, STORE_UNAVAILABLE.
   */
  async revoke(id: string, actor: Actor, request: Command["request"], patienceMs: number): Promise<Revoked> {
    const { db } = this.#deps;
    const found = await findLease(db, id);
    if (found === undefined) throw new LeaseholdError("LEASE_NOT_FOUND");
    const begun = await this.#begin(found, "REVOKED", actor, this.#deps.settings.claimMs, request);
    let { revision } = begun;
    if (begun.ending !== undefined) {
      const abort = new AbortController();
      // What is not done in time is done all the same: the answer only does not wait for it.
      const gone = this.takeAway(begun.ending, actor, "byHand");
      revision = (await Promise.race([gone, after(Math.max(patienceMs, 0), undefined, { signal: abort.signal })]))?.revision ?? revision;
      abort.abort();
    }
    const lease = await findLease(db, id);
    if (lease === undefined) throw new LeaseholdError("LEASE_NOT_FOUND");
    return { lease, revision, recorded: begun.recorded };
  }

  /**
   * Gives up a lease, without its target: one whose revocation has failed, or with `live` any. Throws LEASE_NOT_FOUND, LEASE_NOT_FORGETTABLE, CONFLICT.
   */
  async forget(lease: Named, live: boolean, actor: Actor, request: Command["request"]): Promise<{ readonly revision: number; readonly recorded: boolean }> {
    const outcome = await this.#deps.committer.commit({
      kind: "lease.forget",
      path: lease.path,
      actor,
      lease: lease.id,
      request,
      args: { id: lease.id, live },
    });
    if (!outcome.ok) throw refusal(outcome);
    await this.#deps.due.changed(lease.id).catch(() => {});
    return { revision: outcome.revision, recorded: outcome.replay !== true };
  }

  /** Commits that a lease is REVOKING, due at once: whichever replica comes first takes the login away. */
  async mark(lease: Named, actor: Actor, cause: EndCause = "REVOKED"): Promise<void> {
    await this.#begin(lease, cause, actor, 0, undefined);
    await this.#deps.due.changed(lease.id);
  }

  /** Ends many, on somebody's word that is on record already. Resolves when they are REVOKING; `gone` when each login has been taken away or was left to the schedule. */
  async endMany(ids: readonly string[], actor: Actor): Promise<{ readonly gone: Promise<unknown> }> {
    const { db, settings, due } = this.#deps;
    const ending = await endLeases(db, ids, settings.claimMs);
    const gone = ending.map(async (lease) => {
      const { revision } = await this.takeAway(lease, { ...actor, traceId: lease.traceId }, "use");
      if (revision !== undefined) due.ended(lease.id);
    });
    return { gone: Promise.all(gone) };
  }

  /** Ends a lease of the schedule's own accord, if the database agrees that it is to end so now. */
  async end(lease: Named, cause: Exclude<EndCause, "REVOKED" | "EXPIRED">, actor: Actor): Promise<Taken> {
    const { ending } = await this.#begin(lease, cause, actor, this.#deps.settings.claimMs, undefined);
    return ending === undefined ? {} : this.takeAway(ending, actor, "use");
  }

  /** One try for a lease in REVOKING. Never throws. */
  async takeAway(lease: Ending, actor: Actor, budget: "byHand" | "use"): Promise<Taken> {
    const { reach, committer, settings, revoked, log } = this.#deps;
    try {
      await reached("revoke.committed");
      await reach[budget](lease.targetUid, (target) => target.revoke(loginOf(lease)));
      if (budget === "byHand") await reach.counts(lease.targetUid);
    } catch (error) {
      await this.postpone(lease, error);
      return { problem: problemOf(error) };
    }
    try {
      await reached("revoke.removed");
      const outcome = await committer.commit({
        kind: "lease.finish_revoke",
        path: lease.path,
        actor: { ...actor, action: "lease.end" },
        lease: lease.id,
        args: { id: lease.id, generation: lease.generation, grace_ms: settings.graceMs },
      });
      if (!outcome.ok) return {}; // another worker finished it
      revoked.add();
      await reached("revoke.finished");
      return { revision: outcome.revision };
    } catch (error) {
      // The login is gone; the next try finds it absent and says so.
      log.warn({ lease: lease.id, error: (error as Error).message }, "the end of a lease could not be written; it is tried again");
      return { problem: problemOf(error) };
    }
  }

  /** Writes what a try met, and when the next one is. Never throws: a claim that is not answered ends by itself. */
  async postpone(lease: Omit<Ending, keyof LeasedLogin>, error: unknown): Promise<void> {
    const { committer, due, failed, log } = this.#deps;
    const problem = problemOf(error);
    const nextMs = Math.max(backoffMs(lease.attempts, RETRY_BASE_MS, RETRY_CAP_MS), error instanceof LeaseholdError ? (error.retryAfterMs ?? 0) : 0);
    const stalled = lease.attempts + 1 >= STALLED_AFTER || STALLS.has(problem);
    failed.add();
    const statement = error instanceof LeaseholdError ? error.metadata["statement"] : undefined;
    log.warn(
      { lease: lease.id, state: lease.state, problem, statement, attempts: lease.attempts + 1 },
      "a lease's target did not do what was asked; it is tried again",
    );
    const args = { id: lease.id, generation: lease.generation, problem, stalled, next_ms: nextMs };
    try {
      await committer.commit({ kind: "lease.fail_action", path: lease.path, actor: systemActor("lease.retry", problem, lease.traceId), lease: lease.id, args });
      await due.changed(lease.id);
    } catch (failure) {
      log.warn({ lease: lease.id, error: (failure as Error).message }, "a failed try could not be written");
    }
  }

  async #begin(
    { id, path }: Named,
    cause: EndCause,
    actor: Actor,
    claimMs: number,
    request: Command["request"],
  ): Promise<{ readonly ending: Ending | undefined; readonly revision: number; readonly recorded: boolean }> {
    const outcome = await this.#deps.committer.commit({ kind: "lease.begin_revoke", path, actor, lease: id, request, args: { id, cause, claim_ms: claimMs } });
    if (!outcome.ok && outcome.reason === "STALE") return { ending: undefined, revision: 0, recorded: false };
    if (!outcome.ok) throw refusal(outcome);
    // While it is being created there is nothing sure to take away: the schedule does it when no creation can come any more (finding 8).
    const takeAway = outcome.result["state"] === "REVOKING" && outcome.result["creating"] !== true && outcome.replay !== true;
    const ending: Ending | undefined = takeAway
      ? { id, path, state: "REVOKING", attempts: 0, traceId: actor.traceId, ...loginFrom(outcome.result) }
      : undefined;
    return { ending, revision: outcome.revision, recorded: outcome.replay !== true };
  }
}

/** A constant that says what went wrong, for people and programs. */
export function problemOf(error: unknown): string {
  if (!(error instanceof LeaseholdError)) return "internal";
  return error.metadata["problem"] ?? error.reason.toLowerCase();
}
