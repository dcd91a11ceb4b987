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
import { reached } from "../base/fault-point.ts";
import { loginOf } from "./login.ts";
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

/** A READY login that the commit took from the pool, as `leases_create` answers it. */
interface Taken {
  readonly id: string;
  readonly generation: number;
  readonly username: string;
  readonly oid: string;
  readonly system_identifier: string;
  readonly connection: Readonly<Record<string, string>>;
  readonly owned_objects: unknown;
  readonly sealed: string;
}

/** A lease to be: what is committed first, and what the target is asked for then. */
interface Draft {
  readonly id: string;
  readonly role: RoleRecord;
  readonly ttlMs: number;
  /** Share of the TTL after which a client renews. */
  readonly share: number;
  readonly username: string;
  readonly password: Sensitive;
  /** By the target's clock, Unix milliseconds. */
  readonly deadlineAt: number;
  readonly order: Order;
}

/** A row in PENDING, whose login is usable. */
interface Made {
  readonly id: string;
  readonly generation: number;
  readonly login: CreatedLogin;
  readonly username: string;
  readonly password: Sensitive;
  readonly issuedAt: number;
}

const MAX_TRIES = 5;
const IN_FLIGHT_RETRY_MS = 500;

/**
 * Issue, write-ahead: the row with the chosen name is committed (PENDING) before the target is touched, the login is made under a deadline that the target's own clock checks, and the row becomes
 * ACTIVE. A crash anywhere leaves a PENDING row, which the schedule resolves: no login without a row (lesson 1), and none after the row was given up (finding 8).
 *
 * With a warm pool the same commit takes a READY login instead, if there is one, and the target only lets it log in.
 */
export class LeaseIssuer {
  readonly #deps: IssueDeps;

  constructor(deps: IssueDeps) {
    this.#deps = deps;
  }

  /** Throws ROLE_NOT_FOUND, TTL_ABOVE_MAXIMUM, LEASE_QUOTA, TARGET_UNAVAILABLE (unless refused, the login may still come; then the schedule takes it away), TARGET_MISCONFIGURED, CONFLICT, REQUEST_IN_FLIGHT, LEASE_ENDED. */
  async issue(order: Order): Promise<Issued> {
    const { catalog, reach } = this.#deps;
    for (let i = 0; i < MAX_TRIES; i++) {
      const role = (i === 0 ? catalog.role(order.path) : undefined) ?? (await catalog.refreshRole(order.path));
      if (role === undefined) throw new LeaseholdError("ROLE_NOT_FOUND");
      if (catalog.targetByUid(role.targetUid) === undefined) await catalog.refreshTarget(role.targetName);
      const ttlMs = effectiveTtl(order.ttlMs, role);
      let began = false;
      const outcome = await reach
        .call(role.targetUid, (target) => this.#onTarget(target, role, ttlMs, order, () => (began = true)))
        .catch((error: unknown) => {
          if (began) throw error;
          return this.#replayWithoutTarget(order, error);
        });
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

  /** The target could not be asked: a replay needs none. */
  async #replayWithoutTarget(order: Order, error: unknown): Promise<Issued> {
    const known = order.request === undefined ? undefined : await leaseOfRequest(this.#deps.db, order.actor.principal, order.request.id);
    if (known === undefined) throw error;
    return this.#replay(known.id, known.hash, order);
  }

  async #onTarget(
    target: Target<unknown>,
    role: RoleRecord,
    ttlMs: number,
    order: Order,
    began: () => void,
  ): Promise<Issued | Extract<Outcome, { ok: false }>> {
    const time = await this.#deps.clocks.ask(target);
    const draft: Draft = {
      id: randomUUID(),
      role,
      ttlMs,
      share: renewShare(),
      username: loginName(this.#deps.instance, role.path, newLoginSuffix(), {
        maxBytes: target.maxNameBytes,
        template: role.usernameTemplate,
        principal: order.actor.principal,
      }),
      password: newPassword(role.passwordPolicy),
      // Read before the row is written: whenever that is done, the row is not given up before this deadline has passed on the target.
      deadlineAt: time.now() + this.#deps.settings.createDeadlineMs,
      order,
    };
    try {
      const begun = await this.#begin(target, draft, time.identity.systemIdentifier);
      began();
      await reached("issue.committed");
      if (!begun.ok) return begun;
      const taken = begun.result["taken"] as Taken | null;
      const made = taken === null ? await this.#create(target, draft, begun) : await this.#enable(target, draft, taken, begun);
      await reached("issue.created");
      return await this.#activate(draft, made);
    } catch (error) {
      draft.password.wipe();
      throw error;
    }
  }

  #begin(target: Target<unknown>, draft: Draft, systemIdentifier: string): Promise<Outcome> {
    const { settings, keyring, committer } = this.#deps;
    const { id, role, ttlMs, order } = draft;
    const sealed = seal(keyring, leaseBinding(id), draft.password.reveal());
    return committer.commit({
      kind: "lease.create",
      path: role.path,
      actor: order.actor,
      record: false, // of the two halves the second is recorded
      lease: id,
      args: {
        id,
        role_uid: role.uid,
        role_generation: role.generation,
        target_uid: role.targetUid,
        username: draft.username,
        system_identifier: systemIdentifier,
        owned_objects: ownedObjectsOf(role),
        sealed: Buffer.from(sealed).toString("base64"),
        key_id: keyIdOf(sealed),
        default_ttl_ms: role.defaultTtlMs,
        ttl_ms: ttlMs,
        renew_ms: Math.floor(ttlMs * draft.share),
        max_ttl_ms: role.maxTtlMs,
        rollback_ms: settings.createDeadlineMs + settings.statementMs,
        pool: role.pool !== undefined && target.enable !== undefined,
        ...(role.quotas?.maxLeases === undefined ? {} : { max_live: role.quotas.maxLeases }),
        ...(role.quotas?.maxLeasesPerPrincipal === undefined ? {} : { max_live_per_principal: role.quotas.maxLeasesPerPrincipal }),
        ...(order.request === undefined ? {} : { request_id: order.request.id, request_hash: order.request.hash }),
      },
    });
  }

  async #create(target: Target<unknown>, draft: Draft, begun: Extract<Outcome, { ok: true }>): Promise<Made> {
    const { id, role, username, password, deadlineAt, order } = draft;
    try {
      const validForMs = draft.ttlMs + this.#deps.settings.graceMs;
      const login = await target.create({ name: username, password, role: role.config, validForMs, deadlineAt });
      return { id, generation: 1, login, username, password, issuedAt: Date.parse(String(begun.result["issued_at"])) };
    } catch (error) {
      await this.#failed(target, { id, path: role.path, username, actor: order.actor }, error);
      throw error;
    }
  }

  /** A login of the pool. If it can't be enabled, the row stays PENDING, and the schedule takes the login away. */
  async #enable(target: Target<unknown>, draft: Draft, taken: Taken, begun: Extract<Outcome, { ok: true }>): Promise<Made> {
    const { keyring, settings, due } = this.#deps;
    draft.password.wipe();
    const login = { oid: taken.oid, systemIdentifier: taken.system_identifier, connection: taken.connection };
    const ref = { username: taken.username, oid: taken.oid, systemIdentifier: taken.system_identifier, ownedObjects: taken.owned_objects };
    try {
      const password = new Sensitive(await open(keyring, Buffer.from(taken.sealed, "base64"), leaseBinding(taken.id)));
      await target.enable!(loginOf(ref), draft.ttlMs + settings.graceMs, draft.deadlineAt);
      return { id: taken.id, generation: taken.generation, login, username: taken.username, password, issuedAt: Date.parse(String(begun.result["issued_at"])) };
    } catch (error) {
      await due.changed(taken.id).catch(() => {});
      throw error;
    }
  }

  async #activate({ role, ttlMs, share, order }: Draft, made: Made): Promise<Issued> {
    const { committer, due } = this.#deps;
    const { id, generation, login, issuedAt } = made;
    const args = { id, generation, oid: login.oid, system_identifier: login.systemIdentifier, connection: login.connection };
    const outcome = await committer.commit({ kind: "lease.activate", path: role.path, actor: order.actor, lease: id, args }).catch((error: unknown) => {
      void this.undelivered(id, generation + 1); // if it was committed all the same
      throw error;
    });
    // STALE: it was revoked while it was being created. The schedule takes the login away.
    if (!outcome.ok) throw outcome.reason === "STALE" ? new LeaseholdError("LEASE_ENDED") : refusal(outcome);
    await reached("issue.activated");
    const expireAt = issuedAt + ttlMs;
    due.scheduled(id, expireAt);
    const lease: LeaseRecord = {
      id,
      path: role.path,
      targetUid: role.targetUid,
      principal: order.actor.principal,
      state: "ACTIVE",
      generation: Number(outcome.result["generation"]),
      username: made.username,
      oid: login.oid,
      systemIdentifier: login.systemIdentifier,
      connection: login.connection,
      ownedObjects: ownedObjectsOf(role),
      issuedAt,
      expireAt,
      renewAt: issuedAt + Math.floor(ttlMs * share),
      maxExpireAt: issuedAt + role.maxTtlMs,
      renewingTo: undefined,
      nextActionAt: expireAt,
      attempts: 0,
      problem: undefined,
      stalled: false,
      endCause: undefined,
      endedAt: undefined,
      delivered: true,
      traceId: order.actor.traceId,
    };
    return { lease, password: made.password, revision: outcome.revision, recorded: true };
  }

  /** A refusal of the target's own leaves nothing behind: rolled back at once if the login is not there. What is not known stays PENDING, for the schedule. */
  async #failed(
    target: Target<unknown>,
    { id, path, username, actor }: { readonly id: string; readonly path: string; readonly username: string; readonly actor: Actor },
    error: unknown,
  ): Promise<void> {
    const { committer, settings, due, log } = this.#deps;
    const refused = isReason(error, "TARGET_MISCONFIGURED") || (isReason(error, "TARGET_UNAVAILABLE") && error.metadata["problem"] === "deadline_passed");
    try {
      if (refused && (await target.find(username)) === undefined) {
        const args = { id, generation: 1, refused: true, grace_ms: settings.graceMs };
        await committer.commit({ kind: "lease.roll_back", path, actor: { ...actor, action: "lease.roll_back" }, lease: id, args });
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

/** What revocation will do with objects the login leaves; kept in the lease's row, for the role may be gone by then (lesson 7). */
export function ownedObjectsOf(role: RoleRecord): unknown {
  return (role.config as { ownedObjects?: unknown }).ownedObjects ?? { kind: "refuse" };
}
