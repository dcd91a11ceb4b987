import type { ActSpans } from "../base/act-spans.ts";
import { isReason } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { type Actor, systemActor } from "../model/audit.ts";
import type { CommandKind, Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import type { DueLease } from "../store/due-leases.ts";
import { findLease } from "../store/leases.ts";
import type { Due } from "./due.ts";
import { enableLogin } from "./enable.ts";
import { LoginFinder } from "./find.ts";
import { loginOf } from "./login.ts";
import type { TargetReach } from "./reach.ts";
import { type LeaseRevoker, problemOf, type Taken } from "./revoke.ts";
import type { LeaseSettings } from "./settings.ts";
import type { TargetClocks } from "./target-clock.ts";

export interface ActDeps {
  readonly db: Db;
  readonly reach: TargetReach;
  readonly committer: Committer;
  readonly revoker: LeaseRevoker;
  readonly due: Due;
  readonly clocks: TargetClocks;
  readonly settings: LeaseSettings;
  readonly log: Log;
  readonly spans?: ActSpans | undefined;
}

/** For so long after a login's own end a target is still asked for the last look; then it is taken to be gone for good. */
const PROBE_FOR_MS = 24 * 3_600_000;

/** Does what a due lease waits for, by its state. The database said that it is due; its generation keeps two workers from both doing it. */
export class LeaseActor {
  readonly #deps: ActDeps;
  readonly #finder: LoginFinder;

  constructor(deps: ActDeps) {
    this.#deps = deps;
    this.#finder = new LoginFinder(deps.reach);
  }

  /** Never throws: what fails is due again. */
  async act(lease: DueLease): Promise<void> {
    const { revoker, due, spans } = this.#deps;
    const what = actOn(lease);
    const attributes = { "leasehold.path": lease.path, "leasehold.attempt": lease.attempts };
    const span = what && spans?.start(what.action, attributes, { why: what.cause, traceId: lease.traceId });
    try {
      const { revision, problem } = what === undefined ? {} : await this.#byState(lease, actorOf(lease, what.action, what.cause));
      span?.end(problem);
      if (revision !== undefined && lease.state === "REVOKING") return due.ended(lease.id);
    } catch (error) {
      span?.end(problemOf(error));
      // Without the store nothing can be written, and nothing need be: the claim ends by itself.
      if (isReason(error, "STORE_UNAVAILABLE", "AUDIT_UNAVAILABLE", "DRAINING"))
        this.#deps.log.warn({ lease: lease.id, reason: error.reason }, "a due lease waits for the store");
      else await revoker.postpone(lease, error);
    }
    await due.changed(lease.id).catch(() => {});
  }

  async #byState(lease: DueLease, actor: Actor): Promise<Taken> {
    switch (lease.state) {
      case "ACTIVE":
        return this.#active(lease, actor);
      case "PENDING":
        return this.#pending(lease, actor);
      case "READY":
        return this.#deps.revoker.end(lease, "POOL", actor);
      case "REVOKING":
        return this.#deps.revoker.takeAway(lease, actor, "use");
      case "REVOKED":
      case "ROLLED_BACK":
        return this.#probe(lease, actor);
    }
  }

  /** Nobody has had the answer; or the target has not been seen to follow what was decided. (What has expired is REVOKING already.) */
  async #active(lease: DueLease, actor: Actor): Promise<Taken> {
    const { reach, settings, revoker } = this.#deps;
    const leftMs = lease.expireAt - lease.now;
    if (!lease.delivered) return revoker.end(lease, "UNDELIVERED", actor);
    if (lease.enabling) {
      await reach.use(lease.targetUid, (target) => enableLogin(this.#deps, target, lease, leftMs));
      await this.#move(lease, "lease.confirm", actor, {});
    } else {
      await reach.use(lease.targetUid, (target) => target.renew(loginOf(lease), leftMs + settings.graceMs));
      await this.#move(lease, "lease.finish_renew", actor, {});
    }
    return {};
  }

  /** No creation can happen any more: either the login is there, and goes, or it never came. */
  async #pending(lease: DueLease, actor: Actor): Promise<Taken> {
    const found = await this.#finder.find(lease);
    if (found !== undefined) return this.#reopen(lease, found.oid, actor);
    await this.#move(lease, "lease.roll_back", actor, { grace_ms: this.#deps.settings.graceMs });
    return {};
  }

  /** The last look at the target, after the login's own VALID UNTIL and grace: nothing may be there. */
  async #probe(lease: DueLease, actor: Actor): Promise<Taken> {
    let found: { readonly oid: string } | undefined;
    let seen = actor;
    try {
      found = await this.#finder.find(lease);
    } catch (error) {
      if (lease.now < lease.expireAt + PROBE_FOR_MS) throw error;
      seen = actorOf(lease, actor.action, "target gone");
    }
    if (found !== undefined) return this.#reopen(lease, found.oid, actorOf(lease, "lease.recover", "login under an ended lease"));
    await this.#move(lease, "lease.settle", seen, {});
    return {};
  }

  async #reopen(lease: DueLease, oid: string, actor: Actor): Promise<Taken> {
    const moved = await this.#move(lease, "lease.reopen", actor, { oid, claim_ms: this.#deps.settings.claimMs });
    const reopened = moved ? await findLease(this.#deps.db, lease.id) : undefined;
    return reopened?.state === "REVOKING" ? this.#deps.revoker.takeAway(reopened, actor, "use") : {};
  }

  /** Answers false when somebody else moved the lease first. */
  async #move(lease: DueLease, kind: CommandKind, actor: Actor, more: Readonly<Record<string, unknown>>): Promise<boolean> {
    const args = { id: lease.id, generation: lease.generation, ...more };
    return (await this.#deps.committer.commit({ kind, path: lease.path, actor, lease: lease.id, args })).ok;
  }
}

/** What is done about a lease that is due, and why: for its record and its span. Undefined when it waits for nothing. */
function actOn(lease: DueLease): { readonly action: string; readonly cause: string } | undefined {
  switch (lease.state) {
    case "ACTIVE":
      if (!lease.delivered) return { action: "lease.revoke", cause: "undelivered" };
      if (lease.enabling) return { action: "lease.issue", cause: "half an issue" };
      return lease.renewingTo === undefined ? undefined : { action: "lease.renew", cause: "half renewal" };
    case "PENDING":
      return { action: "lease.recover", cause: "creation did not finish" };
    case "READY":
      return { action: "lease.revoke", cause: "unused for too long" };
    case "REVOKING":
      return lease.expired ? { action: "lease.expire", cause: "expired" } : { action: "lease.revoke", cause: "retry" };
    case "REVOKED":
    case "ROLLED_BACK":
      return { action: "lease.settle", cause: "last look" };
    default:
      return undefined; // of a newer version
  }
}

/** The act carries the trace of the call that issued the lease. */
function actorOf(lease: DueLease, action: string, cause: string): Actor {
  return systemActor(action, cause, lease.traceId);
}
