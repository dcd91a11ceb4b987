import type { Catalog } from "./catalog/catalog.ts";
import type { LeaseOwners } from "./leases/owners.ts";
import type { Resources } from "./rpc/collaborators.ts";
import type { Db } from "./store/db.ts";
import { findLease } from "./store/leases.ts";
import { findOperation } from "./store/operations.ts";

/** What the pipeline must know of stored resources before it can authorize a call on them. */
export function resourcesOf(db: Db, catalog: Catalog, owners: LeaseOwners): Resources {
  return {
    lease: async (id) => {
      const known = owners.of(id);
      if (known !== undefined) return known;
      const found = isUuid(id) ? await findLease(db, id) : undefined;
      return found && owners.keep(id, { rolePath: found.path, owner: found.principal });
    },
    operation: async (id) => {
      const found = isUuid(id) ? await findOperation(db, id) : undefined;
      return found === undefined ? undefined : { owner: found.principal };
    },
    defaultTtlMs: (path) => catalog.role(path)?.defaultTtlMs,
  };
}

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

function isUuid(value: string): boolean {
  return UUID.test(value);
}
