import type { Log } from "../base/log.ts";
import { LeaseholdError } from "../base/errors.ts";
import type { OpenTargets } from "../catalog/open-targets.ts";
import type { Target } from "../engines/engine.ts";
import { type Actor, systemActor } from "../model/audit.ts";
import { type LeaseRecord, renewShare } from "../model/lease.ts";
import type { Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { type DueLease, findLease } from "../store/leases.ts";
import type { Due } from "./due.ts";
import { loginOf } from "./login.ts";
import type { LeaseRevoker } from "./revoke.ts";
import type { LeaseSettings } from "./settings.ts";

export interface ActDeps {
  readonly db: Db;
  readonly targets: OpenTargets;
  readonly committer: Committer;
  readonly revoker: LeaseRevoker;
  readonly due: Due;
  readonly settings: LeaseSettings;
  readonly log: Log;
}

/** Does what a due lease waits for, by its state. The database said that it is due; its generation keeps two workers from both doing it. */
export class LeaseActor {
  readonly #deps: ActDeps;

  constructor(deps: ActDeps) {
    this.#deps = deps;
  }

  /** Never throws: what fails is due again. */
  async act({ lease, now }: DueLease): Promise<void> {
    try {
      await this.#byState(lease, now);
    } catch (error) {
      this.#deps.log.warn({ lease: lease.id, state: lease.state, error: (error as Error).message }, "a due lease could not be worked on");
      if (error instanceof LeaseholdError && error.reason.startsWith("TARGET_")) await this.#deps.revoker.postpone(lease, error).catch(() => {});
    }
    await this.#deps.due.changed(lease.id).catch(() => {});
  }

  #byState(lease: LeaseRecord, now: number): Promise<void> {
    switch (lease.state) {
      case "ACTIVE":
        return this.#active(lease, now);
      case "PENDING":
        return this.#pending(lease);
      case "REVOKING":
        return this.#take(lease, actorOf(lease, "lease.revoke", "retry"));
      case "REVOKED":
      case "ROLLED_BACK":
        return this.#probe(lease);
    }
  }

  /** Expired; or a half renewal; or nobody has had the answer. */
  async #active(lease: LeaseRecord, now: number): Promise<void> {
    if (lease.expireAt > now && lease.renewingTo !== undefined) return this.#finishRenewal(lease, now);
    const cause = lease.expireAt <= now ? "EXPIRED" : lease.delivered ? undefined : "UNDELIVERED";
    if (cause === undefined) return;
    await this.#deps.revoker.revoke(lease.id, cause, actorOf(lease, cause === "EXPIRED" ? "lease.expire" : "lease.revoke", cause.toLowerCase()));
  }

  async #finishRenewal(lease: LeaseRecord, now: number): Promise<void> {
    const { targets, committer, settings } = this.#deps;
    const target = await targets.open(lease.targetUid);
    await target.renew(loginOf(lease), lease.renewingTo! - now + settings.graceMs);
    const args = { id: lease.id, generation: lease.generation, renew_share: renewShare() };
    await committer.commit({ kind: "lease.finish_renew", path: lease.path, actor: actorOf(lease, "lease.renew", "half renewal"), lease: lease.id, args });
  }

  /** No creation can happen any more: either the login is there, and goes, or it never came. */
  async #pending(lease: LeaseRecord): Promise<void> {
    const { targets, committer, settings } = this.#deps;
    const actor = actorOf(lease, "lease.recover", "creation did not finish");
    const found = await findOn(await targets.open(lease.targetUid), lease);
    if (found === undefined) {
      const args = { id: lease.id, generation: lease.generation, grace_ms: settings.graceMs };
      await committer.commit({ kind: "lease.roll_back", path: lease.path, actor, lease: lease.id, args });
      return;
    }
    await this.#reopen(lease, found.oid, actor);
  }

  /** The last look at the target, after the login's own VALID UNTIL and grace: nothing may be there. */
  async #probe(lease: LeaseRecord): Promise<void> {
    const { targets, committer } = this.#deps;
    const actor = actorOf(lease, "lease.probe", "last look");
    let found: { readonly oid: string } | undefined;
    try {
      found = await findOn(await targets.open(lease.targetUid), lease);
    } catch (error) {
      // A target that is gone for good, or another server now: the login's own VALID UNTIL has passed.
      if (!(error instanceof LeaseholdError) || error.reason === "TARGET_UNAVAILABLE") throw error;
    }
    if (found !== undefined) return this.#reopen(lease, found.oid, actor);
    await committer.commit({ kind: "lease.settle", path: lease.path, actor, lease: lease.id, args: { id: lease.id, generation: lease.generation } });
  }

  async #reopen(lease: LeaseRecord, oid: string, actor: Actor): Promise<void> {
    const { committer, db } = this.#deps;
    const outcome = await committer.commit({ kind: "lease.reopen", path: lease.path, actor, lease: lease.id, args: { id: lease.id, generation: lease.generation, oid } });
    if (!outcome.ok) return;
    const reopened = await findLease(db, lease.id);
    if (reopened?.state === "REVOKING") await this.#take(reopened, actor);
  }

  async #take(lease: LeaseRecord, actor: Actor): Promise<void> {
    await this.#deps.revoker.takeAway(lease, actor);
  }
}

/** The lease's login, on the server it was made on: absent elsewhere means nothing (finding 12). Throws TARGET_MISCONFIGURED `different_server`. */
async function findOn(target: Target<unknown>, lease: LeaseRecord): Promise<{ readonly oid: string } | undefined> {
  if (lease.systemIdentifier !== undefined) {
    const identity = await target.identify();
    if (identity.systemIdentifier !== lease.systemIdentifier || identity.inRecovery) {
      throw new LeaseholdError("TARGET_MISCONFIGURED", "another server", { metadata: { problem: "different_server" } });
    }
  }
  return target.find(lease.username);
}

function actorOf(lease: LeaseRecord, action: string, cause: string): Actor {
  return systemActor(action, cause, lease.traceId);
}
