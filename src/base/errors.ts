/**
 * The one error that crosses module boundaries. `reason` is public (proto/leasehold/v1/errors.proto carries the same list);
 * `rpc/status.ts` alone maps a reason to a gRPC code and a constant public text. Variables go to `metadata`, which is public too:
 * never put a secret, a SQL text or a driver's message there. The cause is for our log alone.
 */
export type Reason =
  | "REQUEST_INVALID"
  | "PATH_INVALID"
  | "PRINCIPAL_INVALID"
  | "CERTIFICATE_EXPIRED"
  | "CERTIFICATE_REVOKED"
  | "PERMISSION_DENIED"
  | "SECRET_NOT_FOUND"
  | "VERSION_NOT_FOUND"
  | "ROLE_NOT_FOUND"
  | "TARGET_NOT_FOUND"
  | "LEASE_NOT_FOUND"
  | "POLICY_NOT_FOUND"
  | "OPERATION_NOT_FOUND"
  | "METHOD_NOT_FOUND"
  | "VERSION_MISMATCH"
  | "CONFLICT"
  | "SECRET_DELETED"
  | "VERSION_DELETED"
  | "VERSION_DESTROYED"
  | "VERSION_NOT_YET_VALID"
  | "VERSION_EXPIRED"
  | "LEASE_NOT_RENEWABLE"
  | "LEASE_ENDED"
  | "IN_USE"
  | "TTL_ABOVE_MAXIMUM"
  | "LEASE_QUOTA"
  | "LEASE_NOT_FORGETTABLE"
  | "ROTATION_NOT_FOUND"
  | "ROTATION_IN_PROGRESS"
  | "PAGE_TOKEN_INVALID"
  | "RESPONSE_TOO_LARGE"
  | "RATE_LIMITED"
  | "WATCH_TOO_SLOW"
  | "REVISION_COMPACTED"
  | "RESUME_TOKEN_STALE"
  | "REQUEST_IN_FLIGHT"
  | "SEALED"
  | "DRAINING"
  | "OVERLOADED"
  | "STORE_UNAVAILABLE"
  | "TARGET_UNAVAILABLE"
  | "TARGET_MISCONFIGURED"
  | "AUDIT_UNAVAILABLE"
  | "KMS_UNAVAILABLE"
  | "DEADLINE_TOO_SHORT"
  | "INTERNAL";

export interface ErrorOptions {
  /** Public, constant names; values must be safe to show to the caller. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** What a well-behaved client waits before it tries again, in milliseconds. */
  readonly retryAfterMs?: number;
  /** Only for our own log. */
  readonly cause?: unknown;
  /** Field violations of REQUEST_INVALID: proto field path → constant description. */
  readonly violations?: readonly FieldViolation[];
}

export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

export class LeaseholdError extends Error {
  override readonly name = "LeaseholdError";
  readonly reason: Reason;
  readonly metadata: Readonly<Record<string, string>>;
  readonly retryAfterMs: number | undefined;
  readonly violations: readonly FieldViolation[];

  /** @param message for our log and, where `rpc/status.ts` has no better constant, nobody else. */
  constructor(reason: Reason, message?: string, options: ErrorOptions = {}) {
    super(message ?? reason, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.metadata = options.metadata ?? {};
    this.retryAfterMs = options.retryAfterMs;
    this.violations = options.violations ?? [];
  }
}

/** REQUEST_INVALID for one field (a proto field path such as `ttl` or `items[3].path`). */
export function invalid(field: string, description: string): LeaseholdError {
  return new LeaseholdError("REQUEST_INVALID", `${field}: ${description}`, { violations: [{ field, description }] });
}

export function isReason(error: unknown, ...reasons: readonly Reason[]): error is LeaseholdError {
  return error instanceof LeaseholdError && reasons.includes(error.reason);
}
