import { setTimeout as after } from "node:timers/promises";
import { LeaseholdError } from "../base/errors.ts";
import { reached } from "../base/fault-point.ts";
import type { Log } from "../base/log.ts";
import type { Actor } from "../model/audit.ts";
import { type LeaseView, renewShare } from "../model/lease.ts";
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
  readonly log: Log;
}

/** Which lease: its id and its role's path. */
export interface Renewable {
  readonly id: string;
  readonly path: string;
}

export interface Renewed {
  readonly lease: LeaseView;
  /** True when max_expire_time cut the increment. */
  readonly limited: boolean;
  readonly revision: number;
  /** False when nothing was changed now. */
  readonly recorded: boolean;
}

type Done = Extract<Outcome, { ok: true }>;

const MAX_TRIES = 5;
const IN_FLIGHT_RETRY_MS = 500;
/** A renewal that was answered just now, by another replica, is soon written to be whole. */
const ALMOST_WHOLE_MS = 25;

/**
 * Renews: one commit moves the lease's end, with event and record, and says that the target has not followed (`renewing_to`); then the target's VALID UNTIL is moved, and the caller is answered. That it has
 * followed is committed a moment later, with others. A crash anywhere leaves a half renewal that the schedule finishes, and never a VALID UNTIL that the ledger does not know of (finding 17).
 * The right to log in is not touched, so a renewal can't bring a revoked login back (lesson 11).
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
  async renew(lease: Renewable, incrementMs: number | undefined, actor: Actor, request: Command["request"]): Promise<Renewed> {
    const { committer, settings } = this.#deps;
    const args = { id: lease.id, increment_ms: incrementMs, renew_share: renewShare(), redo_ms: settings.statementMs };
    for (let i = 0; i < MAX_TRIES; i++) {
      const beganAt = performance.now();
      const begun = await committer.commit({ kind: "lease.begin_renew", path: lease.path, actor, lease: lease.id, request, args });
      if (!begun.ok && begun.reason === "STALE") continue;
      if (!begun.ok && begun.reason === "REQUEST_IN_FLIGHT") {
        if (i === MAX_TRIES - 1) throw inFlight();
        await after(ALMOST_WHOLE_MS);
        continue;
      }
      if (!begun.ok) throw refusal(begun);
      const limited = begun.result["limited"] === true;
      if (begun.replay === true || begun.result["unchanged"] === true) return this.#asItIs(lease.id, limited, begun.revision);
      await reached("renew.committed");
      await this.#onTarget(lease, begun, beganAt);
      await reached("renew.altered");
      void this.#finish(lease, begun, actor);
      return { lease: viewOf(lease, begun), limited, revision: begun.revision, recorded: true };
    }
    throw new LeaseholdError("STORE_UNAVAILABLE", "the lease kept changing", { retryAfterMs: 100 });
  }

  async #onTarget({ id }: Renewable, begun: Done, beganAt: number): Promise<void> {
    const { reach, settings, due } = this.#deps;
    const login = loginFrom(begun.result);
    try {
      await reach.call(login.targetUid, async (target) => {
        // Who was frozen in between would count from a now that is long past: the schedule has it by then.
        if (performance.now() - beganAt > settings.statementMs) throw new LeaseholdError("TARGET_UNAVAILABLE", "too late to renew");
        await target.renew(loginOf(login), Number(begun.result["valid_for_ms"]) + settings.graceMs);
      });
    } catch (error) {
      await due.changed(id).catch(() => {});
      throw error;
    }
  }

  /** Never rejects. STALE: the schedule was faster, or it was revoked. */
  async #finish({ id, path }: Renewable, begun: Done, actor: Actor): Promise<void> {
    const { committer, due, log } = this.#deps;
    const args = { id, generation: begun.result["generation"] };
    try {
      await committer.commit({ kind: "lease.finish_renew", path, actor: { ...actor, action: "lease.finish_renew" }, record: false, lease: id, args }, "soon");
      await reached("renew.finished");
      due.scheduled(id, timeOf(begun, "expire_at"));
    } catch (error) {
      log.warn({ lease: id, error: (error as Error).message }, "the end of a renewal is left to the schedule");
    }
  }

  async #asItIs(id: string, limited: boolean, revision: number): Promise<Renewed> {
    const lease = await findLease(this.#deps.db, id);
    if (lease === undefined) throw new LeaseholdError("LEASE_NOT_FOUND");
    if (lease.state !== "ACTIVE") throw new LeaseholdError("LEASE_NOT_RENEWABLE", "ended meanwhile", { metadata: { state: lease.state } });
    if (lease.renewingTo !== undefined) throw inFlight();
    return { lease, limited, revision, recorded: false };
  }
}

function viewOf({ id, path }: Renewable, begun: Done): LeaseView {
  return {
    id,
    path,
    principal: String(begun.result["principal"]),
    state: "ACTIVE",
    username: loginFrom(begun.result).username,
    issuedAt: timeOf(begun, "issued_at"),
    expireAt: timeOf(begun, "expire_at"),
    renewAt: timeOf(begun, "renew_at"),
    maxExpireAt: timeOf(begun, "max_expire_at"),
    endCause: undefined,
    endedAt: undefined,
    attempts: 0,
    problem: undefined,
    stalled: false,
    nextActionAt: undefined,
  };
}

function timeOf(begun: Done, name: string): number {
  return Date.parse(String(begun.result[name]));
}

function inFlight(): LeaseholdError {
  return new LeaseholdError("REQUEST_IN_FLIGHT", "a renewal is under way", { retryAfterMs: IN_FLIGHT_RETRY_MS });
}
