import { randomUUID } from "node:crypto";
import { isReason, LeaseholdError } from "../base/errors.ts";
import { reached } from "../base/fault-point.ts";
import { Sensitive } from "../base/sensitive.ts";
import { keyIdOf, open, seal } from "../crypto/envelope.ts";
import type { CreatedLogin, Target } from "../engines/engine.ts";
import { newLoginSuffix, newPassword } from "../engines/generate.ts";
import { loginName } from "../engines/names.ts";
import type { Actor } from "../model/audit.ts";
import { effectiveTtl, type LeaseRecord, renewShare } from "../model/lease.ts";
import type { Outcome } from "../store/command.ts";
import { refusal } from "../store/group-committer.ts";
import { leaseCredential, leaseOfRequest } from "../store/leases.ts";
import { leaseBinding } from "./binding.ts";
import { ownedObjectsOf } from "./login.ts";
import { argsOf, type IssueDeps, type Issued, issuedLease, type Order, type Terms } from "./order.ts";
import { PoolIssuer, type Refused } from "./take.ts";

/** A lease to be: what is committed first, and what the target is asked for then. */
interface Draft extends Terms {
  readonly id: string;
  readonly username: string;
  readonly password: Sensitive;
  /** By the target's clock, Unix milliseconds. */
  readonly deadlineAt: number;
}

const MAX_TRIES = 5;
const IN_FLIGHT_RETRY_MS = 500;

/**
 * Issue, write-ahead: the row with the chosen name is committed (PENDING) before the target is touched, the login is made under a deadline that the target's own clock checks, and the row becomes
 * ACTIVE. A crash anywhere leaves a PENDING row, which the schedule resolves: no login without a row (lesson 1), and none after the row was given up (finding 8).
 *
 * With a warm pool a READY login is taken instead, if there is one (take.ts).
 */
export class LeaseIssuer {
  readonly #deps: IssueDeps;
  readonly #pool: PoolIssuer;

  constructor(deps: IssueDeps) {
    this.#deps = deps;
    this.#pool = new PoolIssuer(deps);
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
        .call(role.targetUid, (target) => this.#onTarget(target, { order, role, ttlMs, share: renewShare() }, () => (began = true)))
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

  /** The answer did not reach HTTP/2 (finding 9). Never throws. */
  undelivered(lease: LeaseRecord): Promise<void> {
    return this.#pool.undelivered(lease);
  }

  /** The target could not be asked: a replay needs none. */
  async #replayWithoutTarget(order: Order, error: unknown): Promise<Issued> {
    const known = order.request === undefined ? undefined : await leaseOfRequest(this.#deps.db, order.actor.principal, order.request.id);
    if (known === undefined) throw error;
    return this.#replay(known.id, known.hash, order);
  }

  async #onTarget(target: Target<unknown>, terms: Terms, began: () => void): Promise<Issued | Refused> {
    const { role, order } = terms;
    if (role.pool !== undefined && target.enable !== undefined) {
      began();
      const taken = await this.#pool.take(target, terms);
      if (taken !== undefined) return taken;
    }
    const time = await this.#deps.clocks.ask(target);
    const draft: Draft = {
      ...terms,
      id: randomUUID(),
      username: loginName(this.#deps.instance, role.path, newLoginSuffix(), {
        maxBytes: target.maxNameBytes,
        template: role.usernameTemplate,
        principal: order.actor.principal,
      }),
      password: newPassword(role.passwordPolicy),
      // Read before the row is written: whenever that is done, the row is not given up before this deadline has passed on the target.
      deadlineAt: time.now() + this.#deps.settings.createDeadlineMs,
    };
    try {
      const begun = await this.#begin(draft, time.identity.systemIdentifier);
      began();
      await reached("issue.committed");
      if (!begun.ok) return begun;
      const login = await this.#create(target, draft);
      await reached("issue.created");
      return await this.#activate(draft, login, Date.parse(String(begun.result["issued_at"])));
    } catch (error) {
      draft.password.wipe();
      throw error;
    }
  }

  #begin(draft: Draft, systemIdentifier: string): Promise<Outcome> {
    const { settings, keyring, committer } = this.#deps;
    const { id, role, order } = draft;
    const sealed = seal(keyring, leaseBinding(id), draft.password.reveal());
    return committer.commit({
      kind: "lease.create",
      path: role.path,
      actor: order.actor,
      record: false, // of the two halves the second is recorded
      lease: id,
      args: {
        ...argsOf(draft),
        id,
        target_uid: role.targetUid,
        username: draft.username,
        system_identifier: systemIdentifier,
        owned_objects: ownedObjectsOf(role),
        sealed: Buffer.from(sealed).toString("base64"),
        key_id: keyIdOf(sealed),
        rollback_ms: settings.createDeadlineMs + settings.statementMs,
      },
    });
  }

  async #create(target: Target<unknown>, { id, role, username, password, deadlineAt, ttlMs, order }: Draft): Promise<CreatedLogin> {
    try {
      return await target.create({ name: username, password, role: role.config, validForMs: ttlMs + this.#deps.settings.graceMs, deadlineAt });
    } catch (error) {
      await this.#failed(target, { id, path: role.path, username, actor: order.actor }, error);
      throw error;
    }
  }

  async #activate(draft: Draft, login: CreatedLogin, issuedAt: number): Promise<Issued> {
    const { committer, due, owners } = this.#deps;
    const { id, role, order, username, password } = draft;
    const row = { id, username, ...login, generation: 2, ownedObjects: ownedObjectsOf(role), issuedAt };
    const lease = issuedLease(draft, row);
    const args = { id, generation: 1, oid: login.oid, system_identifier: login.systemIdentifier, connection: login.connection };
    const outcome = await committer.commit({ kind: "lease.activate", path: role.path, actor: order.actor, lease: id, args }).catch((error: unknown) => {
      void this.undelivered(lease); // if it was committed all the same
      throw error;
    });
    // STALE: it was revoked while it was being created. The schedule takes the login away.
    if (!outcome.ok) throw outcome.reason === "STALE" ? new LeaseholdError("LEASE_ENDED") : refusal(outcome);
    await reached("issue.activated");
    due.scheduled(id, lease.expireAt);
    owners.keep(id, { rolePath: role.path, owner: order.actor.principal });
    return { lease, password, revision: outcome.revision, recorded: true };
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
    if (found.lease.enabling) await this.#pool.settle(found.lease, order.actor);
    const actor = { ...order.actor, action: "lease.deliver" };
    const outcome = await committer.commit({ kind: "lease.delivery", path, actor, lease: id, args: { id, delivered: true } });
    if (!outcome.ok) throw new LeaseholdError("LEASE_ENDED"); // or at its end, by the database's clock
    due.scheduled(id, found.lease.expireAt);
    const password = new Sensitive(await open(keyring, found.sealed, leaseBinding(id)));
    return { lease: { ...found.lease, delivered: true, generation: Number(outcome.result["generation"]) }, password, revision: 0, recorded: false };
  }
}
