import { LeaseholdError } from "../base/errors.ts";

/**
 * Canonical resource paths: `secrets/payments/stripe-key`, `credentials/postgres/payments/ro`, `leases/<id>`, `policies/<name>`.
 * Anything not canonical is refused, never repaired (lesson 47): a path means one thing to policy, SQL, audit and the watch.
 */
const MAX_BYTES = 512;
const MAX_SEGMENTS = 32;
const SEGMENT = /^[A-Za-z0-9._-]+$/;

export const ROOTS = ["secrets", "credentials", "leases", "policies", "targets", "roles", "operations", "rotations", "subscriptions", "audit", "sys"] as const;
export type Root = (typeof ROOTS)[number];

/** True for a canonical path of at least two segments below a known root. */
export function isPath(value: string): boolean {
  if (value.length === 0 || value.length > MAX_BYTES) return false;
  const segments = value.split("/");
  if (segments.length < 2 || segments.length > MAX_SEGMENTS) return false;
  if (!(ROOTS as readonly string[]).includes(segments[0]!)) return false;
  return segments.every(isSegment);
}

export function isSegment(value: string): boolean {
  return value !== "." && value !== ".." && SEGMENT.test(value);
}

/** Returns the path, or throws PATH_INVALID, which says nothing about what exists. With `root`, the path must stand below it. */
export function parsePath(value: string, root?: Root): string {
  if (!isPath(value) || (root !== undefined && !value.startsWith(`${root}/`))) throw new LeaseholdError("PATH_INVALID");
  return value;
}

/** Where a list, a watch or a prefix revocation looks: one path, everything below a folder, or everything below a root. */
export interface PathScope {
  /** `secrets/a/b` for an exact path; `secrets/a/` (with the slash) for everything below it. */
  readonly prefix: string;
  readonly exact: boolean;
}

/** Parses `secrets/a/b` (exact), `secrets/a/**` or `secrets/**` (everything below). Throws PATH_INVALID. */
export function parseScope(value: string): PathScope {
  if (!value.endsWith("/**")) return { prefix: parsePath(value), exact: true };
  return { prefix: parsePrefix(value.slice(0, -2)), exact: false };
}

/** Parses a folder prefix, `secrets/` or `secrets/a/` (trailing slash wanted). Throws PATH_INVALID. */
export function parsePrefix(value: string): string {
  const folder = value.slice(0, -1);
  const ok = value.endsWith("/") && ((ROOTS as readonly string[]).includes(folder) || isPath(folder));
  if (!ok) throw new LeaseholdError("PATH_INVALID");
  return value;
}

export function inScope(path: string, scope: PathScope): boolean {
  return scope.exact ? path === scope.prefix : path.startsWith(scope.prefix);
}
