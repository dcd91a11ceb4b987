import { LeaseholdError } from "../base/errors.ts";
import type { Capability } from "../model/capability.ts";
import { parsePath, parsePrefix, parseScope, type PathScope } from "../model/path.ts";
import type { Principal } from "../model/principal.ts";
import { authorized, type Authorized, type Identified, type Stored } from "./call.ts";
import type { CallState } from "./call-state.ts";
import type { Access, Decision, Resources } from "./collaborators.ts";
import type { MethodRow, RequestFacts } from "./methods.ts";
import { secretOfRotation } from "./rotation-path.ts";

/** What a call is about, read from its request and, where that is not enough, from the store. */
export interface Target {
  /** For the audit and for error metadata: what the caller named. */
  readonly path: string;
  /** What the policy is asked about; undefined when the store knows no such resource. */
  readonly rulePath: string | undefined;
  readonly stored: Stored | undefined;
  readonly facts: RequestFacts;
}

/** Longest list of scopes that is looked at before validation refuses it. */
const MAX_SCOPES = 128;

/** Reads the target; `known` are the facts that every call of the method has. Throws PATH_INVALID for what is not canonical, before anything is looked up. A promise only where the store must be read. */
export function resolveTarget(row: MethodRow<unknown>, request: unknown, known: RequestFacts, resources: Resources): Target | Promise<Target> {
  const { resource } = row;
  const version = row.version?.(request);
  const facts = version === undefined ? known : { ...known, version };
  switch (resource.kind) {
    case "self":
      return target("", facts);
    case "constant":
      return target(resource.path, facts);
    case "path": {
      const path = parsePath(resource.of(request), resource.root);
      return row.ttlMs === undefined ? target(path, facts) : withTtl(target(path, facts), path, row.ttlMs(request), resources);
    }
    case "rotation": {
      const path = parsePath(resource.of(request), "rotations");
      secretOfRotation(path);
      return target(path, facts);
    }
    case "subject":
      return target(parsePath(resource.path(request)), facts);
    case "set": {
      const scopes = resource.scopes(request).slice(0, MAX_SCOPES);
      for (const scope of scopes) parseAnyScope(scope);
      return target(scopes[0] ?? "", facts);
    }
    case "lease":
      return leaseTarget(parsePath(resource.of(request), "leases"), row.ttlMs?.(request), row.ttlMs !== undefined, facts, resources);
    case "operation":
      return operationTarget(parsePath(resource.of(request), "operations"), facts, resources);
  }
}

/** Throws PERMISSION_DENIED (or, to who may know, *_NOT_FOUND); after it the call is `Authorized`. */
export function authorize(
  call: CallState & Identified,
  row: MethodRow<unknown>,
  request: unknown,
  found: Target,
  access: Access,
): asserts call is CallState & Authorized {
  call.path = found.path;
  call.stored = found.stored;
  if (found.stored?.kind === "lease") call.lease = found.stored.id;
  if (!isAllowed(call.principal, row, request, found, access)) throw denied(row.capability, found.path);
  call[authorized] = true;
}

function isAllowed(principal: Principal, row: MethodRow<unknown>, request: unknown, found: Target, access: Access): boolean {
  const { capability, resource } = row;
  if (capability === "") return resource.kind === "self";
  switch (resource.kind) {
    case "self":
    case "set":
      return true;
    case "subject": {
      const subject = resource.of(request);
      return subject === "" || subject === principal.id || access.allowsFolder(principal, capability, resource.folder);
    }
    case "rotation":
      return [found.path, secretOfRotation(found.path)].every((path) => access.decide(principal, capability, path, found.facts) === "allow");
    case "path":
    case "constant":
      return access.decide(principal, capability, found.path, found.facts) === "allow";
    case "lease":
      return isStoredAllowed(principal, capability, resource.ownerMay, found, access, "LEASE_NOT_FOUND");
    case "operation":
      return isStoredAllowed(principal, capability, true, found, access, "OPERATION_NOT_FOUND");
  }
}

/** An owner needs no rule, but a rule that denies wins over him too. Whether a thing is missing, only learns who may act on its own path. */
function isStoredAllowed(
  principal: Principal,
  capability: Capability,
  ownerMay: boolean,
  found: Target,
  access: Access,
  missing: "LEASE_NOT_FOUND" | "OPERATION_NOT_FOUND",
): boolean {
  if (found.rulePath === undefined) {
    if (access.decide(principal, capability, found.path, found.facts) === "allow") throw new LeaseholdError(missing);
    return false;
  }
  const decision: Decision = access.decide(principal, capability, found.rulePath, found.facts);
  return decision === "allow" || (ownerMay && decision === "none" && found.stored?.owner === principal.id);
}

/** The one denial: what was asked for, never whether it exists. `path` must be canonical. */
export function denied(capability: Capability | "", path: string): LeaseholdError {
  return new LeaseholdError("PERMISSION_DENIED", undefined, { metadata: { capability, path } });
}

/** `""` (everything), a folder with its slash, a folder with `**`, or one path. Throws PATH_INVALID. */
export function parseAnyScope(scope: string): PathScope {
  if (scope === "") return { prefix: "", exact: false };
  return scope.endsWith("/") ? { prefix: parsePrefix(scope), exact: false } : parseScope(scope);
}

/** True when some path can be in both. */
export function overlaps(a: PathScope, b: PathScope): boolean {
  if (a.exact) return b.exact ? a.prefix === b.prefix : a.prefix.startsWith(b.prefix);
  return b.exact ? b.prefix.startsWith(a.prefix) : a.prefix.startsWith(b.prefix) || b.prefix.startsWith(a.prefix);
}

function target(path: string, facts: RequestFacts): Target {
  return { path, rulePath: path, stored: undefined, facts };
}

async function leaseTarget(path: string, ttlMs: number | undefined, hasTtl: boolean, facts: RequestFacts, resources: Resources): Promise<Target> {
  const id = idOf(path);
  const lease = await resources.lease(id);
  if (lease === undefined) return { path, rulePath: undefined, stored: undefined, facts };
  const found: Target = { path, rulePath: lease.rolePath, stored: { kind: "lease", id, ...lease }, facts };
  return hasTtl ? withTtl(found, lease.rolePath, ttlMs, resources) : found;
}

async function operationTarget(path: string, facts: RequestFacts, resources: Resources): Promise<Target> {
  const id = idOf(path);
  const operation = await resources.operation(id);
  return { path, rulePath: operation && path, stored: operation && { kind: "operation", id, owner: operation.owner }, facts };
}

/** Conditions see effective values: a TTL that was left out (or zero) is the role's default. */
function withTtl(found: Target, rolePath: string, asked: number | undefined, resources: Resources): Target | Promise<Target> {
  const as = (ttlMs: number | undefined): Target => ({ ...found, facts: { ...found.facts, ttlMs } });
  if (asked !== undefined && asked !== 0) return as(asked);
  const byDefault = resources.defaultTtlMs(rolePath);
  return byDefault instanceof Promise ? byDefault.then(as) : as(byDefault);
}

/** A resource with an id is exactly two segments deep. */
function idOf(path: string): string {
  const segments = path.split("/");
  if (segments.length !== 2) throw new LeaseholdError("PATH_INVALID");
  return segments[1]!;
}
