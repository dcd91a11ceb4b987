import type { Span } from "@opentelemetry/api";
import type { Reason } from "../base/errors.ts";
import type { Actor } from "../model/audit.ts";
import type { Capability } from "../model/capability.ts";
import type { PathScope } from "../model/path.ts";
import type { Principal } from "../model/principal.ts";
import type { Connection } from "./connection.ts";

/** A call that has been let in: it has an id, a trace and a deadline, but nobody knows yet who calls. */
export interface Call {
  /** Our own id of this call (UUID): in the audit record, the span, our log and every error. Not the client's idempotency key. */
  readonly requestId: string;
  /** W3C trace id or empty. */
  readonly traceId: string;
  /** `SecretService/GetSecret` */
  readonly action: string;
  /** Unix milliseconds. */
  readonly startedAt: number;
  /** Unix milliseconds by which the answer must be given: the client's deadline less a few milliseconds, capped per method. */
  readonly deadlineAt: number;
  /** Present when this call is sampled. Attributes only: names and versions, never values. */
  readonly span: Span | undefined;
  /** True once the caller is gone or the call was ended by us. */
  readonly cancelled: boolean;
  /** Aborted when the caller goes, the deadline passes, the connection's certificate ends or the drain gives up. Made at first use. */
  readonly signal: AbortSignal;
}

/** A call whose principal is known and may spend. */
export interface Identified extends Call {
  readonly connection: Connection;
  readonly principal: Principal;
}

/** Marks a call that authorization let through; only `authorize.ts` sets it. */
export const authorized: unique symbol = Symbol("authorized");

/** The stored resource an RPC was authorized against, read before the handler ran. */
export type Stored =
  | { readonly kind: "lease"; readonly id: string; readonly rolePath: string; readonly owner: string }
  | { readonly kind: "operation"; readonly id: string; readonly owner: string };

/** Outcome of one item of a set (batch, watch with values). */
export interface ItemRecord {
  readonly path: string;
  readonly outcome: "ok" | Reason;
  readonly version?: number;
  /** Default: the method's. */
  readonly capability?: Capability;
}

/**
 * A call that came through every step before the handler. Only the pipeline makes one.
 *
 * For a `set` method (lists, batches, watches, prefix revocation) nothing has been authorized yet but the right to ask: the handler must
 * go through `allows`, `authorizeItem`, `authorizeScope` or `allowedPrefixes`; a handler that answers without having done so is
 * answered INTERNAL.
 */
export interface Authorized extends Identified {
  readonly [authorized]: true;
  readonly capability: Capability | "";
  /** The canonical resource; for sets the prefix or first path that was asked for, possibly empty. */
  readonly path: string;
  readonly stored: Stored | undefined;

  /** Who and in which call, for the committer. */
  actor(): Actor;

  /** True when the principal has the capability (default: the method's) on the path, by the policy of now. */
  allows(path: string, capability?: Capability): boolean;
  /** Throws PERMISSION_DENIED unless `allows`. */
  authorizeItem(path: string, capability?: Capability): void;
  /** For a folder: throws PERMISSION_DENIED unless the principal may have the capability on at least a part of it. Its items are still to be filtered. */
  authorizeScope(scope: PathScope, capability?: Capability): void;
  /** Scopes outside of which the principal certainly has nothing, to be pushed into SQL; what is inside still needs `allows`. */
  allowedPrefixes(capability?: Capability): readonly PathScope[];

  /**
   * Adds a record of its own for an item. It is durable before the answer (unary) or before the next `write` (stream) leaves. When there
   * is at least one, the call has no further record.
   */
  recordItem(item: ItemRecord): void;

  /** Set by the handler of a change once the committer has written the audit record in the change's own transaction. */
  recorded: boolean;
  /** Version of the secret that was read or written, for the audit record. */
  version: number | undefined;
  /** Lease id in clear, for the audit record. */
  lease: string | undefined;

  /**
   * Runs when the handler's answer could not be handed to HTTP/2: the caller was gone, the deadline had passed or the audit failed
   * (lesson 53: the credential must not stay alive). At most once; the last one set counts. Must not throw.
   */
  onUndelivered(run: () => void): void;
}
