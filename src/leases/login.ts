import type { RoleRecord } from "../model/target.ts";
import type { LoginRef, OwnedObjects } from "../engines/engine.ts";

/** A lease's login as its row has it. */
export interface LeasedLogin {
  readonly username: string;
  readonly oid: string | undefined;
  readonly systemIdentifier: string | undefined;
  /** Column `owned_objects`, of `ownedObjectsOf`. */
  readonly ownedObjects: unknown;
}

type LeftToDo = OwnedObjects & { readonly statementSet?: string };

/** What revocation will do with objects the login leaves, and the statement set it was made with: kept in the lease's row, for the role may be gone by then (lesson 7). */
export function ownedObjectsOf(role: RoleRecord): unknown {
  const { ownedObjects = { kind: "refuse" }, statementSet } = role.config as { readonly ownedObjects?: OwnedObjects; readonly statementSet?: string };
  return { ...ownedObjects, ...(statementSet === undefined ? {} : { statementSet }) } satisfies LeftToDo;
}

/** What the target needs to find a lease's login, all of it from the lease's own row (lesson 7). */
export function loginOf(lease: LeasedLogin): LoginRef {
  const { statementSet, ...ownedObjects } = lease.ownedObjects as LeftToDo;
  return { name: lease.username, oid: lease.oid, systemIdentifier: lease.systemIdentifier, ownedObjects, statementSet };
}

/** The same, as a change's result has it (`login_of()` in migration 0004). */
export function loginFrom(result: Readonly<Record<string, unknown>>): LeasedLogin & { readonly targetUid: string; readonly generation: number } {
  return {
    targetUid: String(result["target_uid"]),
    generation: Number(result["generation"]),
    username: String(result["username"]),
    oid: (result["oid"] as string | null) ?? undefined,
    systemIdentifier: (result["system_identifier"] as string | null) ?? undefined,
    ownedObjects: result["owned_objects"],
  };
}
