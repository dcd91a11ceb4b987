import { randomUUID } from "node:crypto";
import { isReason, LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { Sensitive } from "../base/sensitive.ts";
import type { Catalog } from "../catalog/catalog.ts";
import { keyIdOf, open, seal } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { CreatedLogin, Target } from "../engines/engine.ts";
import { loginName } from "../engines/names.ts";
import { newLoginSuffix, newPassword } from "../engines/generate.ts";
import { type Actor, systemActor } from "../model/audit.ts";
import { effectiveTtl, type LeaseRecord, renewShare } from "../model/lease.ts";
import type { RoleRecord } from "../model/target.ts";
import type { Command, Committer, Outcome } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { findLease, leaseCredential, leaseOfRequest } from "../store/leases.ts";
import { leaseBinding } from "./binding.ts";
import type { Due } from "./due.ts";
import type { TargetReach } from "./reach.ts";
import type { LeaseSettings } from "./settings.ts";
import type { TargetClocks } from "./target-clock.ts";

/** A credential on lease. */
export interface Issued {
  readonly lease: LeaseRecord;
  readonly password: Sensitive;
  /** 0 for a replay. */
  readonly revision: number;
  /** False for a replay: it is a disclosure, but no change. */
  readonly recorded: boolean;
}

export interface IssueDeps {
  readonly db: Db;
  readonly catalog: Catalog;
  readonly reach: TargetReach;
  readonly clocks: TargetClocks;
  readonly keyring: Keyring;
  readonly committer: Committer;
  readonly due: Due;
  readonly instance: string;
  readonly settings: LeaseSettings;
  readonly log: Log;
}

/** Who asks for what. */
export interface Order {
  readonly path: string;
  /** Undefined: the role's default. */
  readonly ttlMs: number | undefined;
  readonly actor: Actor;
  readonly request: Command["request"];
}

/** A lease in PENDING: what the target is asked for now. */
interface Draft {
  readonly id: string;
  readonly role: RoleRecord;
  readonly ttlMs: number;
  readonly username: string;
  readonly password: Sensitive;
  /** By the target's clock, Unix milliseconds. */
  readonly deadlineAt: number;
  readonly actor: Actor;
}

const MAX_TRIES = 5;
const IN_FLIGHT_RETRY_MS = 500;

/**
 * Issue, write-ahead: the row with the chosen name is committed (PENDING) before the target is touched, the login is made under a deadline that the target's own clock checks, and the row becomes
 * ACTIVE. A crash anywhere leaves a PENDING row, which the schedule resolves: no login without a row (lesson 1), and none after the row was given up (finding 8).
 */
export class LeaseIssuer {
  readonly #deps: IssueDeps;

  constructor(deps: IssueDeps) {
    this.#deps = deps;
  }

  /** Throws ROLE_NOT_FOUND, TTL_ABOVE_MAXIMUM, TARGET_UNAVAILABLE (unless refused, the login may still come; then the schedule takes it away), TARGET_MISCONFIGURED, CONFLICT, REQUEST_IN_FLIGHT, LEASE_ENDED. */
  async issue(order: Order): Promise<Issued> {
    const { db, catalog, reach } = this.#deps;
    if (order.request !== undefined) {
      // Before the target is asked for anything: a replay needs none.
      const known = await leaseOfRequest(db, order.actor.principal, order.request.id);
      if (known !== undefined) return this.#replay(known.id, known.hash, order);
    }
    for (let i = 0; i < MAX_TRIES; i++) {
      const role = (i === 0 ? catalog.role(order.path) : undefined) ?? (await catalog.refreshRole(order.path));
      if (role === undefined) throw new LeaseholdError("ROLE_NOT_FOUND");
      if (catalog.targetByUid(role.targetUid) === undefined) await catalog.refreshTarget(role.targetName);
      const ttlMs = effectiveTtl(order.ttlMs, role);
      const outcome = await reach.call(role.targetUid, (target) => this.#onTarget(target, role, ttlMs, order));
      if (!("reason" in outcome)) return outcome;
      if (outcome.reason === "REPLAY") return this.#replay(outcome.metadata["lease"]!, order.request!.hash, order);
      if (outcome.reason !== "STALE") throw refusal(outcome);
    }
    throw new LeaseholdError("STORE_UNAVAILABLE", "the role kept changing", { retryAfterMs: 100 });
  }

  /**
   * The answer did not reach HTTP/2: unless the caller asks again with its request_id, the credential is revoked after a minute (finding 9).
   * @param generation of the lease that was answered: if it was answered again since, it stays. Never throws.
   */
  async undelivered(id: string, generation: number): Promise<void> {
    const { committer, settings, due, log, db } = this.#deps;
    try {
      const lease = await findLease(db, id);
      if (lease === undefined) return;
      const actor = systemActor("lease.undelivered", "caller gone", lease.traceId);
      await committer.commit({
        kind: "lease.delivery",
        path: lease.path,
        actor,
        lease: id,
        args: { id, generation, delivered: false, wait_ms: settings.undeliveredMs },
      });
      await due.changed(id);
    } catch (error) {
      log.warn({ lease: id, error: (error as Error).message }, "an undelivered lease could not be marked; it ends at its expiry");
    }
  }

  async #onTarget(target: Target<unknown>, role: RoleRecord, ttlMs: number, order: Order): Promise<Issued | Extract<Outcome, { ok: false }>> {
    const time = await this.#deps.clocks.ask(target);
    const draft: Draft = {
      id: randomUUID(),
      role,
      ttlMs,
      username: loginName(this.#deps.instance, role.path, newLoginSuffix()),
      password: newPassword(),
      // Read before the row is written: whenever that is done, the row is not given up before this deadline has passed on the target.
      deadlineAt: time.now() + this.#deps.settings.createDeadlineMs,
      actor: order.actor,
    };
    try {
      const begun = await this.#begin(draft, time.identity.systemIdentifier, order.request);
      if (!begun.ok) return begun;
      return await this.#finish(target, draft);
    } catch (error) {
      draft.password.wipe();
      throw error;
    }
  }

  #begin(draft: Draft, systemIdentifier: string, request: Command["request"]): Promise<Outcome> {
    const { settings, keyring, committer } = this.#deps;
    const { id, role, ttlMs } = draft;
    const sealed = seal(keyring, leaseBinding(id), draft.password.reveal());
    return committer.commit({
      kind: "lease.create",
      path: role.path,
      actor: { ...draft.actor, action: "lease.create" },
      lease: id,
      args: {
        id,
        role_uid: role.uid,
        role_generation: role.generation,
        target_uid: role.targetUid,
        username: draft.username,
        system_identifier: systemIdentifier,
        owned_objects: (role.config as { ownedObjects?: unknown }).ownedObjects ?? { kind: "refuse" },
        sealed: Buffer.from(sealed).toString("base64"),
        key_id: keyIdOf(sealed),
        default_ttl_ms: role.defaultTtlMs,
        ttl_ms: ttlMs,
        renew_ms: Math.floor(ttlMs * renewShare()),
        max_ttl_ms: role.maxTtlMs,
        rollback_ms: settings.createDeadlineMs + settings.statementMs,
        ...(request === undefined ? {} : { request_id: request.id, request_hash: request.hash }),
      },
    });
  }

  async #finish(target: Target<unknown>, draft: Draft): Promise<Issued> {
    const { settings, committer, db, due } = this.#deps;
    const { id, role, password, actor } = draft;
    let created: CreatedLogin;
    try {
      const validForMs = draft.ttlMs + settings.graceMs;
      created = await target.create({ name: draft.username, password, role: role.config, validForMs, deadlineAt: draft.deadlineAt });
    } catch (error) {
      await this.#failed(target, draft, error);
      throw error;
    }
    const args = { id, generation: 1, oid: created.oid, system_identifier: created.systemIdentifier, connection: created.connection };
    const outcome = await committer.commit({ kind: "lease.activate", path: role.path, actor, lease: id, args }).catch((error: unknown) => {
      void this.undelivered(id, 2); // if it was committed all the same
      throw error;
    });
    // STALE: it was revoked while it was being created. The schedule takes the login away.
    if (!outcome.ok) throw outcome.reason === "STALE" ? new LeaseholdError("LEASE_ENDED") : refusal(outcome);
    const lease = await findLease(db, id);
    if (lease === undefined) throw new LeaseholdError("INTERNAL", "a lease vanished");
    due.scheduled(id, lease.nextActionAt ?? lease.expireAt);
    return { lease, password, revision: outcome.revision, recorded: true };
  }

  /** A refusal of the target's own leaves nothing behind: rolled back at once if the login is not there. What is not known stays PENDING, for the schedule. */
  async #failed(target: Target<unknown>, { id, role, username, actor }: Draft, error: unknown): Promise<void> {
    const { committer, settings, due, log } = this.#deps;
    const refused = isReason(error, "TARGET_MISCONFIGURED") || (isReason(error, "TARGET_UNAVAILABLE") && error.metadata["problem"] === "deadline_passed");
    try {
      if (refused && (await target.find(username)) === undefined) {
        const args = { id, generation: 1, refused: true, grace_ms: settings.graceMs };
        await committer.commit({ kind: "lease.roll_back", path: role.path, actor: { ...actor, action: "lease.roll_back" }, lease: id, args });
      }
      await due.changed(id);
    } catch (failed) {
      log.warn({ lease: id, error: (failed as Error).message }, "a failed issue is left to the schedule");
    }
  }

  /** The same request again: answered from the ledger, never from a kept copy (finding 9). */
  async #replay(id: string, hash: string, order: Order): Promise<Issued> {
    const { db, keyring, committer, due } = this.#deps;
    if (hash !== order.request?.hash) throw new LeaseholdError("CONFLICT");
    const found = await leaseCredential(db, id);
    if (found?.lease.state === "PENDING") throw new LeaseholdError("REQUEST_IN_FLIGHT", "in flight", { retryAfterMs: IN_FLIGHT_RETRY_MS });
    if (found?.lease.state !== "ACTIVE" || found.sealed === undefined) throw new LeaseholdError("LEASE_ENDED");
    const { path } = found.lease;
    const actor = { ...order.actor, action: "lease.deliver" };
    const outcome = await committer.commit({ kind: "lease.delivery", path, actor, lease: id, args: { id, delivered: true } });
    if (!outcome.ok) throw new LeaseholdError("LEASE_ENDED"); // or at its end, by the database's clock
    due.scheduled(id, found.lease.expireAt);
    const password = new Sensitive(await open(keyring, found.sealed, leaseBinding(id)));
    return { lease: { ...found.lease, delivered: true, generation: Number(outcome.result["generation"]) }, password, revision: 0, recorded: false };
  }
}
