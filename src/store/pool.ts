import type { Db } from "./db.ts";

/** What a warm pool holds, made and in the making, for one state of its role. */
export interface Shelf {
  readonly path: string;
  readonly roleGeneration: number;
  readonly logins: number;
}

const SHELVES = {
  name: "pool_shelves",
  text: `select path, role_generation as "roleGeneration", count(*) as logins from lease where shelf group by 1, 2`,
};

export function shelves(db: Db): Promise<Shelf[]> {
  return db.query(SHELVES);
}

const STALE = {
  name: "pool_stale",
  text: `select id, path from lease l where shelf and state = 'READY'
           and not exists (select from unnest($1::text[], $2::bigint[]) as current (path, generation) where current.path = l.path and current.generation = l.role_generation)
         limit $3`,
};

/** Logins that are ready for a role as it no longer is. */
export function staleShelved(
  db: Db,
  roles: readonly { readonly path: string; readonly generation: number }[],
  limit: number,
): Promise<{ readonly id: string; readonly path: string }[]> {
  return db.query(STALE, [roles.map((role) => role.path), roles.map((role) => role.generation), limit]);
}
