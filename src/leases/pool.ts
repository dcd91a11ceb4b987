import { randomUUID } from "node:crypto";
import { LeaseholdError } from "../base/errors.ts";
import { reached } from "../base/fault-point.ts";
import type { Log } from "../base/log.ts";
import type { Catalog } from "../catalog/catalog.ts";
import { keyIdOf, seal } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { Target } from "../engines/engine.ts";
import { newLoginSuffix, newPassword } from "../engines/generate.ts";
import { loginName } from "../engines/names.ts";
import { systemActor } from "../model/audit.ts";
import type { PoolConfig, RoleRecord } from "../model/target.ts";
import type { Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { type Shelf, shelves, staleShelved } from "../store/pool.ts";
import { leaseBinding } from "./binding.ts";
import type { Due } from "./due.ts";
import { ownedObjectsOf } from "./login.ts";
import type { TargetReach } from "./reach.ts";
import type { LeaseRevoker } from "./revoke.ts";
import type { LeaseSettings } from "./settings.ts";
import type { TargetClocks } from "./target-clock.ts";

export interface PoolDeps {
  readonly db: Db;
  readonly catalog: Catalog;
  readonly reach: TargetReach;
  readonly clocks: TargetClocks;
  readonly keyring: Keyring;
  readonly committer: Committer;
  readonly revoker: LeaseRevoker;
  readonly due: Due;
  readonly instance: string;
  readonly settings: LeaseSettings;
  readonly log: Log;
}

const LOOK_MS = 1000;
/** While logins are taken, a pool is filled once it has fallen below this share: by the hundred, and seldom, so that filling is cheap and mostly out of the way of those who issue. */
const LOW_SHARE = 0.75;
/** Taken away at one look, when a role was changed or deleted. */
const DRAIN_AT_ONCE = 500;
/** After a failure a role is left alone for so long. */
const PAUSE_MS = 10_000;

/**
 * Keeps logins ready, by the same write-ahead as an issue: the row (PENDING, with nobody's name on it) is committed before the login is made, and READY after it, so no crash leaves a login that the
 * ledger does not know. Every replica looks; that a pool is not overfilled is decided in the transaction that adds to it.
 */
export class WarmPool {
  readonly #deps: PoolDeps;
  readonly #pausedUntil = new Map<string, number>();
  /** Logins on the shelf of a role at the last look. */
  readonly #before = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #stopped = false;

  constructor(deps: PoolDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#timer = setInterval(() => void this.look(), LOOK_MS);
    this.#timer.unref();
    void this.look();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#looking;
  }

  /** Fills what is short and takes away what is stale; one look at a time. Never rejects. */
  look(): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    this.#looking ??= this.#look()
      .catch((error: Error) => this.#deps.log.warn({ error: error.message }, "the warm pools could not be looked at"))
      .finally(() => (this.#looking = undefined));
    return this.#looking;
  }

  async #look(): Promise<void> {
    const { db, catalog } = this.#deps;
    const pooled = catalog.roles().filter((role) => role.pool !== undefined);
    const held = await shelves(db);
    if (pooled.length === 0 && held.length === 0) return;
    await Promise.all([...pooled.map((role) => this.#fill(role, role.pool!, held)), this.#drain(pooled)]);
  }

  async #fill(role: RoleRecord, pool: PoolConfig, held: readonly Shelf[]): Promise<void> {
    const there = held.find((shelf) => shelf.path === role.path && shelf.roleGeneration === role.generation)?.logins ?? 0;
    const quiet = this.#before.get(role.path) === there;
    this.#before.set(role.path, there);
    if (there >= pool.size || (there > pool.size * LOW_SHARE && !quiet) || performance.now() < (this.#pausedUntil.get(role.path) ?? 0)) return;
    const missing = Math.min(pool.size - there, pool.refillPerSecond);
    this.#pausedUntil.set(role.path, performance.now() + (1000 * missing) / pool.refillPerSecond);
    try {
      await this.#deps.reach.use(role.targetUid, async (target) => {
        if (target.enable === undefined) return;
        const results = await Promise.allSettled(Array.from({ length: missing }, () => this.#stock(target, role, pool)));
        const failed = results.find((result) => result.status === "rejected");
        if (failed !== undefined) throw failed.reason;
      });
    } catch (error) {
      this.#pausedUntil.set(role.path, performance.now() + PAUSE_MS);
      const reason = error instanceof LeaseholdError ? (error.metadata["problem"] ?? error.reason) : (error as Error).message;
      this.#deps.log.warn({ role: role.path, reason }, "a warm pool could not be filled; issuing goes on without it");
    }
  }

  /** One more, unless the pool is full by now. Throws TARGET_*. What is not known then stays PENDING, for the schedule. */
  async #stock(target: Target<unknown>, role: RoleRecord, pool: PoolConfig): Promise<void> {
    const { clocks, keyring, committer, settings, instance, due } = this.#deps;
    const time = await clocks.ask(target);
    const [id, password] = [randomUUID(), newPassword(role.passwordPolicy)];
    const name = loginName(instance, role.path, newLoginSuffix(), { maxBytes: target.maxNameBytes, template: role.usernameTemplate });
    const deadlineAt = time.now() + settings.createDeadlineMs;
    const actor = systemActor("lease.pool", "refill");
    const sealed = seal(keyring, leaseBinding(id), password.reveal());
    try {
      const args = {
        id,
        role_uid: role.uid,
        role_generation: role.generation,
        target_uid: role.targetUid,
        username: name,
        system_identifier: time.identity.systemIdentifier,
        owned_objects: ownedObjectsOf(role),
        sealed: Buffer.from(sealed).toString("base64"),
        key_id: keyIdOf(sealed),
        max_age_ms: pool.maxAgeMs,
        rollback_ms: settings.createDeadlineMs + settings.statementMs,
        pool_size: pool.size,
      };
      const stocked = await committer.commit({ kind: "lease.stock", path: role.path, actor, record: false, lease: id, args });
      if (!stocked.ok) return; // full, or the role was changed
      await reached("pool.committed");
      const made = await target.create({ name, password, role: role.config, validForMs: pool.maxAgeMs + settings.graceMs, deadlineAt, enabled: false });
      await reached("pool.created");
      const shelf = { id, generation: 1, oid: made.oid, system_identifier: made.systemIdentifier, connection: made.connection };
      await committer.commit({ kind: "lease.shelve", path: role.path, actor, lease: id, args: shelf });
      await reached("pool.shelved");
      due.scheduled(id, Date.now() + pool.maxAgeMs);
    } finally {
      password.wipe();
    }
  }

  /** Of roles that are gone, have no pool any more, or were changed since. */
  async #drain(pooled: readonly RoleRecord[]): Promise<void> {
    const { db, revoker } = this.#deps;
    const stale = await staleShelved(db, pooled, DRAIN_AT_ONCE);
    const actor = systemActor("lease.revoke", "the role was changed");
    await Promise.all(stale.map((lease) => revoker.mark(lease, actor, "POOL")));
  }
}
