import { passwordPolicyViolation } from "../engines/generate.ts";
import type { PasswordPolicyConfig } from "../model/target.ts";
import type { Violation } from "./rotator.ts";

export function policyViolations(policy: PasswordPolicyConfig | undefined): readonly Violation[] {
  const found = policy === undefined ? undefined : passwordPolicyViolation(policy);
  return found === undefined ? [] : [{ field: `password_policy.${found.field}`, description: found.description }];
}

/** A target's name, one path segment. */
export function targetViolations(target: string): readonly Violation[] {
  return /^[A-Za-z0-9._-]{1,128}$/.test(target) && target !== "." && target !== ".." ? [] : [{ field: "target", description: "must be the name of a target" }];
}

/** A role's name on PostgreSQL. */
export function roleNameViolations(field: string, value: string): readonly Violation[] {
  // oxlint-disable-next-line no-control-regex -- they are what is refused
  const good = value.length > 0 && Buffer.byteLength(value) <= 63 && !/[\u0000-\u001f\u007f]/.test(value) && value.isWellFormed();
  return good ? [] : [{ field, description: "must be 1 to 63 bytes without control characters" }];
}
