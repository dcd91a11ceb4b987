import { randomUUID } from "node:crypto";
import { isReason, LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { Sensitive } from "../base/sensitive.ts";
import type { Catalog } from "../catalog/catalog.ts";
import type { OpenTargets } from "../catalog/open-targets.ts";
import { keyIdOf, open, seal } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { CreatedLogin, Target } from "../engines/engine.ts";
import { loginName } from "../engines/names.ts";
import { newLoginSuffix, newPassword } from "../engines/generate.ts";
import { type Actor, systemActor } from "../model/audit.ts";
import { effectiveTtl, type LeaseRecord, renewShare } from "../model/lease.ts";
import type { RoleRecord } from "../model/target.ts";
import type { Committer, Outcome } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { findLease, sealedCredential } from "../store/leases.ts";
import { leaseBinding } from "./binding.ts";
import type { Due } from "./due.ts";
import type { LeaseSettings } from "./settings.ts";
import type { TargetClocks } from "./target-clock.ts";

/** A credential on lease. */
export interface Issued {
  readonly lease: LeaseRecord;
  readonly password: Sensitive;
  readonly revision: number;
  /** False for a replay: nothing was done now. */
  readonly recorded: boolean;
}

export interface IssueDeps {
  readonly db: Db;
  readonly catalog: Catalog;
  readonly targets: OpenTargets;
  readonly clocks: TargetClocks;
  readonly keyring: Keyring;
  readonly committer: Committer;
  readonly due: Due;
  readonly instance: string;
  readonly settings: LeaseSettings;
  readonly log: Log;
}

const MAX_TRIES = 5;

/**
 * Issue, write-ahead: the row with the chosen name is committed (PENDING) before the target is touched, the login is made under a deadline that the target's own clock checks,
 * and the row becomes ACTIVE. A crash anywhere leaves a PENDING row, which the schedule resolves: no login without a row, ever.
 */
export class LeaseIssuer {
  readonly #deps: IssueDeps;

  constructor(deps: IssueDeps) {
    this.#deps = deps;
  }

  /**
   * Throws ROLE_NOT_FOUND, TTL_ABOVE_MAXIMUM, TARGET_UNAVAILABLE, TARGET_MISCONFIGURED, CONFLICT, REQUEST_IN_FLIGHT, LEASE_ENDED.
   * @param askedTtlMs undefined: the role's default.
   */
  async issue(path: string, askedTtlMs: number | undefined, actor: Actor, request: { readonly id: string; readonly hash: string } | undefined): Promise<Issued> {
    for (let i = 0; i < MAX_TRIES; i++) {
      const role = (i === 0 ? this.#deps.catalog.role(path) : undefined) ?? (await this.#deps.catalog.refreshRole(path));
      if (role === undefined) throw new LeaseholdError("ROLE_NOT_FOUND");
      const target = await this.#deps.targets.open(role.targetUid);
      const id = randomUUID();
      const password = newPassword();
      const begun = await this.#begin(id, role, target, password, effectiveTtl(askedTtlMs, role), actor, request);
      if (begun.outcome.ok) return this.#create(id, role, target, password, begun, actor);
      if (begun.outcome.reason === "REPLAY") return this.#replay(begun.outcome.metadata["lease"]!, actor);
      if (begun.outcome.reason !== "STALE") throw refusal(begun.outcome);
    }
    throw new LeaseholdError("STORE_UNAVAILABLE", "the role kept changing", { retryAfterMs: 100 });
  }

  /** The answer did not reach HTTP/2: unless the caller asks again with its request_id, the credential is revoked after a minute. Never throws. */
  async undelivered(id: string): Promise<void> {
    const { committer, settings, due, log } = this.#deps;
    try {
      const args = { id, delivered: false, wait_ms: settings.undeliveredMs };
      const lease = await findLease(this.#deps.db, id);
      if (lease === undefined) return;
      await committer.commit({ kind: "lease.delivery", path: lease.path, actor: systemActor("lease.undelivered", "caller gone", lease.traceId), lease: id, args });
      await due.changed(id);
    } catch (error) {
      log.warn({ lease: id, error: (error as Error).message }, "an undelivered lease could not be marked; it ends at its expiry");
    }
  }

  async #begin(id: string, role: RoleRecord, target: Target<unknown>, password: Sensitive, ttlMs: number, actor: Actor, request: { readonly id: string; readonly hash: string } | undefined) {
    const { settings, keyring, committer, clocks, instance } = this.#deps;
    const identity = await clocks.identify(target);
    const username = loginName(instance, role.path, newLoginSuffix());
    const sealed = seal(keyring, leaseBinding(id), password.reveal());
    const outcome: Outcome = await committer.commit({
      kind: "lease.create",
      path: role.path,
      actor,
      lease: id,
      args: {
        id,
        role_uid: role.uid,
        role_generation: role.generation,
        target_uid: role.targetUid,
        username,
        system_identifier: identity.systemIdentifier,
        owned_objects: (role.config as { ownedObjects?: unknown }).ownedObjects ?? { kind: "refuse" },
        sealed: Buffer.from(sealed).toString("base64"),
        key_id: keyIdOf(sealed),
        default_ttl_ms: role.defaultTtlMs,
        ttl_ms: ttlMs,
        renew_ms: Math.floor(ttlMs * renewShare()),
        max_ttl_ms: role.maxTtlMs,
        deadline_ms: settings.createDeadlineMs,
        rollback_ms: settings.createDeadlineMs + settings.statementMs,
        ...(request === undefined ? {} : { request_id: request.id, request_hash: request.hash }),
      },
    });
    return { outcome, username, ttlMs, deadlineAt: Date.now() + identity.clockSkewMs + settings.createDeadlineMs };
  }

  async #create(id: string, role: RoleRecord, target: Target<unknown>, password: Sensitive, begun: { readonly username: string; readonly ttlMs: number; readonly deadlineAt: number }, actor: Actor): Promise<Issued> {
    const { settings, committer, db, due } = this.#deps;
    let created: CreatedLogin;
    try {
      created = await target.create({ name: begun.username, password, role: role.config, validForMs: begun.ttlMs + settings.graceMs, deadlineAt: begun.deadlineAt });
    } catch (error) {
      await this.#failed(id, role.path, begun.username, target, actor, error);
      throw error;
    }
    const args = { id, generation: 1, oid: created.oid, system_identifier: created.systemIdentifier, connection: created.connection };
    const outcome = await committer.commit({ kind: "lease.activate", path: role.path, actor, lease: id, args });
    // STALE: it was revoked while it was being created. The schedule takes the login away.
    if (!outcome.ok) throw outcome.reason === "STALE" ? new LeaseholdError("LEASE_ENDED") : refusal(outcome);
    const lease = await findLease(db, id);
    if (lease === undefined) throw new LeaseholdError("INTERNAL", "a lease vanished");
    due.scheduled(id, lease.nextActionAt ?? lease.expireAt);
    return { lease, password, revision: outcome.revision, recorded: true };
  }

  /** A refusal of the target's own leaves nothing behind: rolled back at once if the login is not there. What is not known stays PENDING, for the schedule. */
  async #failed(id: string, path: string, username: string, target: Target<unknown>, actor: Actor, error: unknown): Promise<void> {
    if (!isReason(error, "TARGET_MISCONFIGURED")) return;
    try {
      if ((await target.find(username)) !== undefined) return;
      await this.#deps.committer.commit({ kind: "lease.roll_back", path, actor, lease: id, args: { id, generation: 1, grace_ms: this.#deps.settings.graceMs } });
    } catch (failed) {
      this.#deps.log.warn({ lease: id, error: (failed as Error).message }, "a failed issue is left to the schedule");
    }
  }

  /** The same request again: answered from the ledger, never from a kept copy (finding 9). */
  async #replay(id: string, actor: Actor): Promise<Issued> {
    const { db, keyring, committer, due } = this.#deps;
    const [lease, sealed] = await Promise.all([findLease(db, id), sealedCredential(db, id)]);
    if (lease?.state === "PENDING") throw new LeaseholdError("REQUEST_IN_FLIGHT", "in flight", { retryAfterMs: 500 });
    if (lease?.state !== "ACTIVE" || sealed === undefined) throw new LeaseholdError("LEASE_ENDED");
    if (!lease.delivered) {
      const outcome = await committer.commit({ kind: "lease.delivery", path: lease.path, actor, lease: id, args: { id, delivered: true } });
      if (!outcome.ok) throw new LeaseholdError("LEASE_ENDED");
      due.scheduled(id, lease.expireAt);
    }
    const password = new Sensitive(await open(keyring, sealed, leaseBinding(id)));
    return { lease, password, revision: 0, recorded: false };
  }
}
