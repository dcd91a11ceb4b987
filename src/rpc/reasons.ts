import { status } from "@grpc/grpc-js";
import type { Reason } from "../base/errors.ts";

interface Public {
  readonly code: status;
  /** The whole text a client sees: constant, because a status text is no place for anything that came from outside. */
  readonly text: string;
  /** What a well-behaved client waits, in milliseconds, unless the error says otherwise. */
  readonly retryAfterMs?: number;
}

/** What each reason looks like from outside. docs/errors.md says what to do about each. */
export const REASONS: Readonly<Record<Reason, Public>> = {
  REQUEST_INVALID: { code: status.INVALID_ARGUMENT, text: "a field of the request breaks its rule" },
  PATH_INVALID: { code: status.INVALID_ARGUMENT, text: "the path is not canonical" },
  PRINCIPAL_INVALID: { code: status.UNAUTHENTICATED, text: "the certificate names no usable SPIFFE id" },
  CERTIFICATE_EXPIRED: { code: status.UNAUTHENTICATED, text: "the client certificate has expired" },
  CERTIFICATE_REVOKED: { code: status.UNAUTHENTICATED, text: "the client certificate has been revoked" },
  PERMISSION_DENIED: { code: status.PERMISSION_DENIED, text: "no policy allows this" },
  SECRET_NOT_FOUND: { code: status.NOT_FOUND, text: "no such secret" },
  VERSION_NOT_FOUND: { code: status.NOT_FOUND, text: "the secret has no such version or staging label" },
  ROLE_NOT_FOUND: { code: status.NOT_FOUND, text: "no such role" },
  TARGET_NOT_FOUND: { code: status.NOT_FOUND, text: "no such target" },
  LEASE_NOT_FOUND: { code: status.NOT_FOUND, text: "no such lease" },
  POLICY_NOT_FOUND: { code: status.NOT_FOUND, text: "no such policy" },
  OPERATION_NOT_FOUND: { code: status.NOT_FOUND, text: "no such operation" },
  METHOD_NOT_FOUND: { code: status.UNIMPLEMENTED, text: "this broker does not serve that method" },
  VERSION_MISMATCH: { code: status.ABORTED, text: "the resource has changed since it was read" },
  CONFLICT: { code: status.ABORTED, text: "the request_id was used with another request" },
  SECRET_DELETED: { code: status.FAILED_PRECONDITION, text: "the secret is deleted; it can be restored until its purge_time" },
  VERSION_DELETED: { code: status.FAILED_PRECONDITION, text: "the version is deleted; it can be undeleted" },
  VERSION_DESTROYED: { code: status.FAILED_PRECONDITION, text: "the version's data is destroyed" },
  VERSION_NOT_YET_VALID: { code: status.FAILED_PRECONDITION, text: "the version's not_before lies ahead" },
  VERSION_EXPIRED: { code: status.FAILED_PRECONDITION, text: "the version's expire_time has passed" },
  LEASE_NOT_RENEWABLE: { code: status.FAILED_PRECONDITION, text: "the lease can't be renewed any more" },
  LEASE_ENDED: { code: status.FAILED_PRECONDITION, text: "the lease of this request_id has ended" },
  IN_USE: { code: status.FAILED_PRECONDITION, text: "something still uses it" },
  ROTATION_NOT_FOUND: { code: status.NOT_FOUND, text: "there is no such rotation" },
  ROTATION_IN_PROGRESS: { code: status.FAILED_PRECONDITION, text: "a rotation is under way" },
  LEASE_NOT_FORGETTABLE: { code: status.FAILED_PRECONDITION, text: "only a lease whose revocation has failed may be forgotten" },
  LEASE_QUOTA: { code: status.RESOURCE_EXHAUSTED, text: "the quota of live leases is used up", retryAfterMs: 1000 },
  TTL_ABOVE_MAXIMUM: { code: status.INVALID_ARGUMENT, text: "the ttl is above the maximum" },
  PAGE_TOKEN_INVALID: { code: status.INVALID_ARGUMENT, text: "the page_token is of another call, altered or too old" },
  RESPONSE_TOO_LARGE: { code: status.RESOURCE_EXHAUSTED, text: "it does not fit in the answer; ask for it by itself" },
  RATE_LIMITED: { code: status.RESOURCE_EXHAUSTED, text: "too many calls by this principal", retryAfterMs: 1000 },
  WATCH_TOO_SLOW: { code: status.RESOURCE_EXHAUSTED, text: "the watcher did not keep up; go on with the resume_token" },
  REVISION_COMPACTED: { code: status.OUT_OF_RANGE, text: "that revision is no longer kept; take a snapshot" },
  RESUME_TOKEN_STALE: { code: status.OUT_OF_RANGE, text: "the resume_token does not fit this store; take a snapshot" },
  REQUEST_IN_FLIGHT: { code: status.UNAVAILABLE, text: "the first call with this request_id is still under way", retryAfterMs: 500 },
  SEALED: { code: status.UNAVAILABLE, text: "the broker is sealed", retryAfterMs: 5000 },
  DRAINING: { code: status.UNAVAILABLE, text: "this replica is shutting down", retryAfterMs: 100 },
  OVERLOADED: { code: status.UNAVAILABLE, text: "too many calls in flight", retryAfterMs: 250 },
  STORE_UNAVAILABLE: { code: status.UNAVAILABLE, text: "the broker's store can't be asked", retryAfterMs: 1000 },
  TARGET_UNAVAILABLE: { code: status.UNAVAILABLE, text: "the target can't be asked", retryAfterMs: 1000 },
  TARGET_MISCONFIGURED: { code: status.FAILED_PRECONDITION, text: "the target refuses what the broker asks of it" },
  AUDIT_UNAVAILABLE: { code: status.UNAVAILABLE, text: "the audit record could not be written", retryAfterMs: 1000 },
  KMS_UNAVAILABLE: { code: status.UNAVAILABLE, text: "the key management system can't be asked", retryAfterMs: 1000 },
  DEADLINE_TOO_SHORT: { code: status.DEADLINE_EXCEEDED, text: "the deadline leaves no time to finish" },
  INTERNAL: { code: status.INTERNAL, text: "internal error" },
};
