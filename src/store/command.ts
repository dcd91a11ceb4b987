import type { Actor } from "../model/audit.ts";
import type { Reason } from "../base/errors.ts";

/** What `commit_changes()` can do; each is a function in the migrations, where its arguments are. */
export type CommandKind =
  | "secret.put"
  | "secret.update_metadata"
  | "secret.delete_versions"
  | "secret.undelete_versions"
  | "secret.destroy_versions"
  | "secret.delete"
  | "secret.restore"
  | "secret.purge"
  | "policy.put"
  | "policy.delete"
  | "target.put"
  | "target.delete"
  | "target.stage_login"
  | "target.promote_login"
  | "role.put"
  | "role.delete"
  | "keyring.rotate"
  | "operation.create"
  | "operation.finish"
  | "lease.create"
  | "lease.draw"
  | "lease.put_back"
  | "lease.take"
  | "lease.confirm"
  | "lease.stock"
  | "lease.shelve"
  | "lease.activate"
  | "lease.roll_back"
  | "lease.begin_renew"
  | "lease.finish_renew"
  | "lease.begin_revoke"
  | "lease.finish_revoke"
  | "lease.fail_action"
  | "lease.renew_again"
  | "lease.delivery"
  | "lease.settle"
  | "lease.reopen"
  | "lease.forget"
  | "witness.mark"
  | "witness.seen"
  | "quarantine.begin"
  | "quarantine.extend"
  | "quarantine.end"
  | "finding.raise"
  | "finding.resolve"
  | "finding.settle"
  | "target.scan"
  | "subscription.put"
  | "subscription.delete"
  | "subscription.pause"
  | "subscription.resume"
  | "subscription.advance"
  | "subscription.fail"
  | "subscription.bury"
  | "subscription.lose"
  | "dead_letter.replay"
  | "dead_letter.discard"
  | "dead_letter.settle"
  | "rotation.put"
  | "rotation.delete"
  | "rotation.request"
  | "rotation.abort"
  | "rotation.resume"
  | "rotation.plan"
  | "rotation.begin"
  | "rotation.keep"
  | "rotation.stage"
  | "rotation.was_set"
  | "rotation.promote"
  | "rotation.finish"
  | "rotation.fail"
  | "rotation.give_up";

/** A change as plain data: what the process's one committer hands to the database. Holds sealed bytes only, never a secret. */
export interface Command {
  readonly kind: CommandKind;
  /** The resource: a secret's, role's or policy's path; for leases the role path. */
  readonly path: string;
  readonly actor: Actor;
  /** False: no audit record. For the first half of an act whose second half is recorded. */
  readonly record?: false;
  /** Lease id in clear: the record gets a keyed hash. */
  readonly lease?: string;
  /** The client's idempotency key, and a hash of the request it came with. */
  readonly request?: { readonly id: string; readonly hash: string } | undefined;
  /** JSON values; bytes as base64. */
  readonly args: Readonly<Record<string, unknown>>;
}

/** `STALE`: somebody moved the row since it was read; read again and decide anew. `REPLAY`: the lease of this request_id exists (metadata `lease`). */
export type RefusalReason = Reason | "STALE" | "REPLAY";

export type Outcome =
  | {
      readonly ok: true;
      /** Newest revision after the change; its own when it made an event. */
      readonly revision: number;
      readonly result: Readonly<Record<string, unknown>>;
      /** The request_id was known: this is its first answer, nothing was done now, and no record was written. */
      readonly replay?: boolean;
    }
  | { readonly ok: false; readonly reason: RefusalReason; readonly metadata: Readonly<Record<string, string>> };

export interface Committer {
  /**
   * `soon`: nobody waits for it; it is committed in 20 ms, or just before the next change of the same lease.
   *
   * Resolves once the change, its event and its audit record are durable, or with the refusal. Rejects with STORE_UNAVAILABLE or AUDIT_UNAVAILABLE when it can't be known or done in time.
   */
  commit(command: Command, when?: "now" | "soon"): Promise<Outcome>;
}
