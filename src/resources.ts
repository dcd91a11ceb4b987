import type { Catalog } from "./catalog/catalog.ts";
import type { Resources } from "./rpc/collaborators.ts";
import type { Db } from "./store/db.ts";
import { findLease } from "./store/leases.ts";
import { findOperation } from "./store/operations.ts";

/** What authorization must read of the store: whose a lease or an operation is. */
export function createResources(db: Db, catalog: Catalog): Resources {
  return {
    lease: async (id) => {
      const found = isUuid(id) ? await findLease(db, id) : undefined;
      return found === undefined ? undefined : { rolePath: found.path, owner: found.principal };
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
