import { isReason, LeaseholdError } from "../base/errors.ts";
import { reached } from "../base/fault-point.ts";
import { Sensitive } from "../base/sensitive.ts";
import { open } from "../crypto/envelope.ts";
import type { Target } from "../engines/engine.ts";
import { type Actor, systemActor } from "../model/audit.ts";
import type { LeaseRecord } from "../model/lease.ts";
import type { RoleRecord } from "../model/target.ts";
import type { Outcome } from "../store/command.ts";
import { leaseBinding } from "./binding.ts";
import type { DrawnLogin, PooledLogin } from "./drawn.ts";
import { enableLogin } from "./enable.ts";
import { argsOf, type IssueDeps, type Issued, issuedLease, type Terms } from "./order.ts";

export type Refused = Extract<Outcome, { ok: false }>;

/**
 * Issue from the warm pool: one commit makes a READY login the caller's (ACTIVE, with event and record), then the target lets it log in, and the caller is answered. That it was seen to is committed a
 * moment later, with others; after a crash in between the schedule lets it log in, since whether the caller was answered is not known.
 *
 * Of a role that is issued again and again some logins have been drawn ahead (drawn.ts): then the commit and the target are asked at the same time, and the caller is answered after both.
 */
export class PoolIssuer {
  readonly #deps: IssueDeps;

  constructor(deps: IssueDeps) {
    this.#deps = deps;
  }

  /** Undefined when the pool is empty. Throws TARGET_*: the lease is there all the same, and goes if nobody asks for it again. */
  async take(target: Target<unknown>, terms: Terms): Promise<Issued | Refused | undefined> {
    const { committer, settings } = this.#deps;
    const { order, role } = terms;
    const drawn = this.#deps.drawn.next(role, target);
    const ahead = drawn && this.#enableAhead(target, drawn, terms);
    const args = {
      ...argsOf(terms),
      redo_ms: settings.createDeadlineMs + settings.statementMs,
      ...(drawn === undefined ? {} : { drawn: { id: drawn.id, generation: drawn.generation } }),
    };
    const beganAt = performance.now();
    const outcome = await committer.commit({ kind: "lease.take", path: role.path, actor: order.actor, args }).catch((error: unknown) => {
      if (drawn === undefined) throw error;
      this.#deps.drawn.pause(role);
      // If it was committed all the same; if not, the row is PENDING, and the schedule's.
      if (!isReason(error, "OVERLOADED", "DRAINING"))
        void this.undelivered({ id: drawn.id, path: role.path, generation: drawn.generation + 1, traceId: order.actor.traceId });
      throw error;
    });
    const taken = outcome.ok ? (outcome.result["taken"] as PooledLogin | null) : null;
    if (drawn !== undefined && taken?.id !== drawn.id) {
      // (Who only asks again is no reason to do without.)
      if (outcome.ok || outcome.reason !== "REPLAY") this.#deps.drawn.pause(role);
      void this.#spoil(drawn, ahead!, role);
    }
    if (!outcome.ok) return outcome;
    if (taken === null) return undefined;
    await reached("take.committed");
    const issuedAt = Date.parse(String(outcome.result["issued_at"]));
    return this.#give(target, terms, taken, issuedAt, outcome.revision, taken.id === drawn?.id ? { enabled: ahead!, beganAt } : undefined);
  }

  /** Answers what went wrong; never rejects. */
  async #enableAhead(target: Target<unknown>, drawn: DrawnLogin, { ttlMs }: Terms): Promise<unknown> {
    try {
      await enableLogin(this.#deps, target, loginTaken(drawn), ttlMs, drawn.deadlineAt);
      await reached("take.enabled_ahead");
      return undefined;
    } catch (error) {
      return error;
    }
  }

  /** It may be enabled, and became nobody's: it goes at once, and by its deadline if that can't be written. Never throws. */
  async #spoil({ id }: DrawnLogin, ahead: Promise<unknown>, role: RoleRecord): Promise<void> {
    await ahead;
    await this.#deps.revoker.mark({ id, path: role.path }, systemActor("lease.revoke", "drawn for an issue that was refused"), "POOL").catch((error: Error) => {
      this.#deps.log.warn({ lease: id, error: error.message }, "a login that was drawn ahead in vain is left to the schedule");
    });
  }

  /** @param ahead the target is being asked already. */
  async #give(
    target: Target<unknown>,
    terms: Terms,
    taken: PooledLogin,
    issuedAt: number,
    revision: number,
    ahead: { readonly enabled: Promise<unknown>; readonly beganAt: number } | undefined,
  ): Promise<Issued> {
    const { keyring, owners, settings } = this.#deps;
    const { id, generation, connection } = taken;
    const lease = issuedLease(terms, { ...loginTaken(taken), id, generation, connection, issuedAt });
    owners.keep(id, { rolePath: lease.path, owner: lease.principal });
    const opening = open(keyring, Buffer.from(taken.sealed, "base64"), leaseBinding(id)).then((bytes) => new Sensitive(bytes));
    const enable = (): Promise<void> => enableLogin(this.#deps, target, lease, terms.ttlMs);
    // Again where it was too late for a login that is only drawn, a lease by now; and where VALID UNTIL, counted from before the commit, may leave too little room behind the lease's end.
    const isSlow = (): boolean => performance.now() - ahead!.beganAt > settings.graceMs / 2;
    const enabling = ahead?.enabled.then((error) => (isTooLate(error) || isSlow() ? enable() : raise(error))) ?? enable();
    try {
      const [password] = await Promise.all([opening, enabling]);
      await reached("take.enabled");
      void this.#confirm(lease, terms.order.actor, "soon");
      return { lease, password, revision, recorded: true };
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
  async undelivered(
    { id, path, generation, traceId }: Pick<LeaseRecord, "id" | "path" | "generation" | "traceId">,
    waitMs = this.#deps.settings.undeliveredMs,
  ): Promise<void> {
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

function loginTaken({ username, oid, system_identifier, owned_objects }: PooledLogin) {
  return { username, oid, systemIdentifier: system_identifier, ownedObjects: owned_objects };
}

function isTooLate(error: unknown): boolean {
  return error instanceof LeaseholdError && error.metadata["problem"] === "deadline_passed";
}

function raise(error: unknown): void {
  if (error !== undefined) throw error;
}
