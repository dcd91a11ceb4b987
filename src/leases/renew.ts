import { LeaseholdError } from "../base/errors.ts";
import type { OpenTargets } from "../catalog/open-targets.ts";
import type { Actor } from "../model/audit.ts";
import { type LeaseRecord, renewShare } from "../model/lease.ts";
import type { Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { findLease } from "../store/leases.ts";
import type { Due } from "./due.ts";
import { loginOf } from "./login.ts";
import type { LeaseSettings } from "./settings.ts";

export interface RenewDeps {
  readonly db: Db;
  readonly targets: OpenTargets;
  readonly committer: Committer;
  readonly due: Due;
  readonly settings: LeaseSettings;
}

export interface Renewed {
  readonly lease: LeaseRecord;
  /** True when max_expire_time cut the increment. */
  readonly limited: boolean;
  readonly revision: number;
  readonly recorded: boolean;
}

const MAX_TRIES = 5;

/**
 * Renews: first the row says where the renewal will end (`renewing_to`), then the target's VALID UNTIL is moved, then the row's end. A crash between leaves a half renewal that the schedule
 * finishes, and never a VALID UNTIL that the ledger does not know of (finding 17). The right to log in is not touched, so a renewal can't bring a revoked login back.
 */
export class LeaseRenewer {
  readonly #deps: RenewDeps;

  constructor(deps: RenewDeps) {
    this.#deps = deps;
  }

  /** @param incrementMs from now; undefined: the role's default TTL. Throws LEASE_NOT_FOUND, LEASE_NOT_RENEWABLE, TARGET_UNAVAILABLE, CONFLICT. */
  async renew(id: string, incrementMs: number | undefined, actor: Actor, request: { readonly id: string; readonly hash: string } | undefined): Promise<Renewed> {
    const { db, committer, settings, due } = this.#deps;
    for (let i = 0; i < MAX_TRIES; i++) {
      const lease = await findLease(db, id);
      if (lease === undefined) throw new LeaseholdError("LEASE_NOT_FOUND");
      const args = { id, generation: lease.generation, increment_ms: incrementMs, redo_ms: settings.claimMs };
      const begun = await committer.commit({ kind: "lease.begin_renew", path: lease.path, actor, lease: id, request, args });
      if (!begun.ok && begun.reason === "STALE") continue;
      if (!begun.ok) throw refusal(begun);
      const limited = begun.result["limited"] === true;
      if (begun.replay === true || begun.result["unchanged"] === true) {
        return { lease: (await findLease(db, id)) ?? lease, limited, revision: begun.revision, recorded: begun.replay !== true };
      }
      await this.#onTarget(lease, Number(begun.result["valid_for_ms"]));
      const finish = { id, generation: Number(begun.result["generation"]), renew_share: renewShare() };
      const finished = await committer.commit({ kind: "lease.finish_renew", path: lease.path, actor, lease: id, args: finish });
      // STALE: the schedule finished it, or it was revoked meanwhile; the row says which.
      const now = await findLease(db, id);
      if (now === undefined) throw new LeaseholdError("LEASE_NOT_FOUND");
      if (now.state !== "ACTIVE") throw new LeaseholdError("LEASE_NOT_RENEWABLE", "ended meanwhile", { metadata: { state: now.state } });
      due.scheduled(id, now.nextActionAt ?? now.expireAt);
      return { lease: now, limited, revision: finished.ok ? finished.revision : begun.revision, recorded: true };
    }
    throw new LeaseholdError("STORE_UNAVAILABLE", "the lease kept changing", { retryAfterMs: 100 });
  }

  async #onTarget(lease: LeaseRecord, validForMs: number): Promise<void> {
    const target = await this.#deps.targets.open(lease.targetUid);
    await target.renew(loginOf(lease), validForMs + this.#deps.settings.graceMs);
  }
}
