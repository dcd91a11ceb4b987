import type { LoginRef, OwnedObjects } from "../engines/engine.ts";
import type { LeaseRecord } from "../model/lease.ts";

/** What the target needs to find a lease's login, all of it from the lease's own row (lesson 7). */
export function loginOf(lease: LeaseRecord): LoginRef {
  return { name: lease.username, oid: lease.oid, systemIdentifier: lease.systemIdentifier, ownedObjects: lease.ownedObjects as OwnedObjects };
}
