import type { LoginRef, OwnedObjects } from "../engines/engine.ts";

/** A lease's login as its row has it. */
export interface LeasedLogin {
  readonly username: string;
  readonly oid: string | undefined;
  readonly systemIdentifier: string | undefined;
  readonly ownedObjects: unknown;
}

/** What the target needs to find a lease's login, all of it from the lease's own row (lesson 7). */
export function loginOf(lease: LeasedLogin): LoginRef {
  return { name: lease.username, oid: lease.oid, systemIdentifier: lease.systemIdentifier, ownedObjects: lease.ownedObjects as OwnedObjects };
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
