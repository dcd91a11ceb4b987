import { isReason } from "../base/errors.ts";
import { reached } from "../base/fault-point.ts";
import { Sensitive } from "../base/sensitive.ts";
import { open } from "../crypto/envelope.ts";
import type { Target } from "../engines/engine.ts";
import { type Actor, systemActor } from "../model/audit.ts";
import type { LeaseRecord } from "../model/lease.ts";
import type { Outcome } from "../store/command.ts";
import { leaseBinding } from "./binding.ts";
import { enableLogin } from "./enable.ts";
import { argsOf, type IssueDeps, type Issued, issuedLease, type Terms } from "./order.ts";

/** A READY login that the commit took from the pool, as `lease_take` answers it. */
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

export type Refused = Extract<Outcome, { ok: false }>;

/**
 * Issue from the warm pool: one commit makes a READY login the caller's (ACTIVE, with event and record), then the target lets it log in, and the caller is answered. That it was seen to is committed a
 * moment later, with others; after a crash in between the schedule lets it log in, since whether the caller was answered is not known.
 */
export class PoolIssuer {
  readonly #deps: IssueDeps;

  constructor(deps: IssueDeps) {
    this.#deps = deps;
  }

  /** Undefined when the pool is empty. Throws TARGET_*: the lease is there all the same, and goes if nobody asks for it again. */
  async take(target: Target<unknown>, terms: Terms): Promise<Issued | Refused | undefined> {
    const { committer, keyring, owners, settings } = this.#deps;
    const { order, role, ttlMs } = terms;
    const args = { ...argsOf(terms), redo_ms: settings.createDeadlineMs + settings.statementMs };
    const outcome = await committer.commit({ kind: "lease.take", path: role.path, actor: order.actor, args });
    if (!outcome.ok) return outcome;
    const taken = outcome.result["taken"] as Taken | null;
    if (taken === null) return undefined;
    await reached("take.committed");
    const { id, generation, username, oid, connection } = taken;
    const row = { id, generation, username, oid, connection, systemIdentifier: taken.system_identifier, ownedObjects: taken.owned_objects };
    const lease = issuedLease(terms, { ...row, issuedAt: Date.parse(String(outcome.result["issued_at"])) });
    owners.keep(id, { rolePath: lease.path, owner: lease.principal });
    const opening = open(keyring, Buffer.from(taken.sealed, "base64"), leaseBinding(id)).then((bytes) => new Sensitive(bytes));
    try {
      const [password] = await Promise.all([opening, enableLogin(this.#deps, target, lease, ttlMs)]);
      await reached("take.enabled");
      void this.#confirm(lease, order.actor, "soon");
      return { lease, password, revision: outcome.revision, recorded: true };
    } catch (error) {
      opening.then(
        (password) => password.wipe(),
        () => {},
      );
      // What the target refused will not come; what is not known may be asked for again.
      await this.undelivered(lease, isReason(error, "TARGET_MISCONFIGURED") ? 0 : undefined);
      throw error;
    }
  }

  /** A lease that is asked for again, and has not been seen to be enabled: whoever saw to it may be dead. Throws TARGET_*, STORE_UNAVAILABLE. */
  async settle(lease: LeaseRecord, actor: Actor): Promise<void> {
    const { reach, clock } = this.#deps;
    await reach.call(lease.targetUid, (target) => enableLogin(this.#deps, target, lease, lease.expireAt - clock.now()));
    await this.#confirm(lease, actor, "now");
  }

  /**
   * The answer did not reach HTTP/2: unless the caller asks again with its request_id, the credential is revoked after a minute (finding 9). If it was answered again since, it stays. Never throws.
   */
  async undelivered({ id, path, generation, traceId }: LeaseRecord, waitMs = this.#deps.settings.undeliveredMs): Promise<void> {
    const { committer, due, log } = this.#deps;
    try {
      const actor = systemActor("lease.undelivered", "caller gone", traceId);
      const args = { id, generation, delivered: false, wait_ms: waitMs };
      await committer.commit({ kind: "lease.delivery", path, actor, lease: id, args });
      await due.changed(id);
    } catch (error) {
      log.warn({ lease: id, error: (error as Error).message }, "an undelivered lease could not be marked; it ends at its expiry");
    }
  }

  /** Never rejects. STALE: the schedule was faster, or it was revoked. */
  async #confirm({ id, path, generation, expireAt }: LeaseRecord, actor: Actor, when: "now" | "soon"): Promise<void> {
    const { committer, due, log } = this.#deps;
    const args = { id, generation };
    try {
      await committer.commit({ kind: "lease.confirm", path, actor: { ...actor, action: "lease.confirm" }, record: false, lease: id, args }, when);
      await reached("take.confirmed");
      due.scheduled(id, expireAt);
    } catch (error) {
      log.warn({ lease: id, error: (error as Error).message }, "that a login was enabled is left to the schedule to find");
    }
  }
}
