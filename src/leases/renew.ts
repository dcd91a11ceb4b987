import { LeaseholdError } from "../base/errors.ts";
import { reached } from "../base/fault-point.ts";
import type { Actor } from "../model/audit.ts";
import { type LeaseRecord, renewShare } from "../model/lease.ts";
import type { Command, Committer, Outcome } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { findLease } from "../store/leases.ts";
import type { Due } from "./due.ts";
import { loginFrom, loginOf } from "./login.ts";
import type { TargetReach } from "./reach.ts";
import type { LeaseSettings } from "./settings.ts";

export interface RenewDeps {
  readonly db: Db;
  readonly reach: TargetReach;
  readonly committer: Committer;
  readonly due: Due;
  readonly settings: LeaseSettings;
}

export interface Renewed {
  readonly lease: LeaseRecord;
  /** True when max_expire_time cut the increment. */
  readonly limited: boolean;
  readonly revision: number;
  /** False when nothing was changed now. */
  readonly recorded: boolean;
}

const MAX_TRIES = 5;
const IN_FLIGHT_RETRY_MS = 500;

/**
 * Renews: first the row says where the renewal will end (`renewing_to`), then the target's VALID UNTIL is moved, then the row's end. A crash between leaves a half renewal that the schedule
 * finishes, and never a VALID UNTIL that the ledger does not know of (finding 17). The right to log in is not touched, so a renewal can't bring a revoked login back (lesson 11).
 */
export class LeaseRenewer {
  readonly #deps: RenewDeps;

  constructor(deps: RenewDeps) {
    this.#deps = deps;
  }

  /**
   * @param incrementMs from now; undefined: the role's default TTL.
   * Throws LEASE_NOT_FOUND, LEASE_NOT_RENEWABLE, TARGET_UNAVAILABLE and TARGET_MISCONFIGURED (then the schedule tries on), CONFLICT, REQUEST_IN_FLIGHT.
   */
  async renew(id: string, incrementMs: number | undefined, actor: Actor, request: Command["request"]): Promise<Renewed> {
    const { db, committer, settings, due } = this.#deps;
    const lease = await findLease(db, id);
    if (lease === undefined) throw new LeaseholdError("LEASE_NOT_FOUND");
    for (let i = 0; i < MAX_TRIES; i++) {
      const beganAt = performance.now();
      const args = { id, increment_ms: incrementMs, redo_ms: settings.statementMs };
      const begun = await committer.commit({
        kind: "lease.begin_renew",
        path: lease.path,
        actor: { ...actor, action: "lease.begin_renew" },
        record: false,
        lease: id,
        request,
        args,
      });
      if (!begun.ok && begun.reason === "STALE") continue;
      if (!begun.ok) throw begun.reason === "REQUEST_IN_FLIGHT" ? inFlight() : refusal(begun);
      const limited = begun.result["limited"] === true;
      if (begun.replay === true || begun.result["unchanged"] === true) return this.#asItIs(id, limited, begun.revision);
      await reached("renew.committed");
      const login = loginFrom(begun.result);
      await this.#onTarget(id, login, Number(begun.result["valid_for_ms"]), beganAt);
      await reached("renew.altered");
      const finished = await this.#finish(lease, login.generation, actor);
      // STALE: the schedule finished it, or it was revoked meanwhile; the row says which.
      if (!finished.ok) return this.#asItIs(id, limited, 0);
      const { generation, expire_at, renew_at } = finished.result;
      const expireAt = Date.parse(String(expire_at));
      due.scheduled(id, expireAt);
      const renewed = {
        ...lease,
        generation: Number(generation),
        expireAt,
        renewAt: Date.parse(String(renew_at)),
        nextActionAt: expireAt,
        renewingTo: undefined,
      };
      return { lease: renewed, limited, revision: finished.revision, recorded: true };
    }
    throw new LeaseholdError("STORE_UNAVAILABLE", "the lease kept changing", { retryAfterMs: 100 });
  }

  async #onTarget(id: string, login: ReturnType<typeof loginFrom>, validForMs: number, beganAt: number): Promise<void> {
    const { reach, settings, due } = this.#deps;
    try {
      await reach.call(login.targetUid, async (target) => {
        // Who was frozen in between would count from a now that is long past: the schedule has it by then.
        if (performance.now() - beganAt > settings.statementMs) throw new LeaseholdError("TARGET_UNAVAILABLE", "too late to renew");
        await target.renew(loginOf(login), validForMs + settings.graceMs);
      });
    } catch (error) {
      await due.changed(id).catch(() => {});
      throw error;
    }
  }

  async #finish(lease: LeaseRecord, generation: number, actor: Actor): Promise<Outcome> {
    const args = { id: lease.id, generation, renew_share: renewShare() };
    const finished = await this.#deps.committer.commit({ kind: "lease.finish_renew", path: lease.path, actor, lease: lease.id, args });
    if (!finished.ok && finished.reason !== "STALE") throw refusal(finished);
    return finished;
  }

  async #asItIs(id: string, limited: boolean, revision: number): Promise<Renewed> {
    const lease = await findLease(this.#deps.db, id);
    if (lease === undefined) throw new LeaseholdError("LEASE_NOT_FOUND");
    if (lease.state !== "ACTIVE") throw new LeaseholdError("LEASE_NOT_RENEWABLE", "ended meanwhile", { metadata: { state: lease.state } });
    if (lease.renewingTo !== undefined) throw inFlight();
    return { lease, limited, revision, recorded: false };
  }
}

function inFlight(): LeaseholdError {
  return new LeaseholdError("REQUEST_IN_FLIGHT", "a renewal is under way", { retryAfterMs: IN_FLIGHT_RETRY_MS });
}
