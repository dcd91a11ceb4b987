import type { Change } from "../model/event.ts";
import type { PathRange } from "../model/range.ts";
import type { Db } from "./db.ts";

/** An entry of a snapshot, in the form of the change that stands for all that led to it. */
export type Entry = Change;

const SECRETS = {
  name: "snapshot_secrets",
  text: `select path, current_version as version, updated_at as at from secret
          where namespace_id = 1 and path > $1 and path >= $2 and path < $3 and deleted_at is null order by path limit $4`,
};
const LEASES = {
  name: "snapshot_leases",
  text: `select id, path, principal, expire_at, issued_at as at from lease
          where namespace_id = 1 and state in ('ACTIVE', 'REVOKING') and (path, id) > ($1, $2::uuid) and path >= $3 and path < $4 order by path, id limit $5`,
};
const POLICIES = {
  name: "snapshot_policies",
  text: `select 'policies/' || name as path, updated_at as at from policy where namespace_id = 1 and name > $1 and 'policies/' || name >= $2 and 'policies/' || name < $3 order by name limit $4`,
};
const TARGETS = {
  name: "snapshot_targets",
  text: `select 'targets/' || name as path, updated_at as at from target where namespace_id = 1 and name > $1 and 'targets/' || name >= $2 and 'targets/' || name < $3 order by name limit $4`,
};
const NO_ID = "00000000-0000-0000-0000-000000000000";

/**
 * One page of what is there now below a range, in path order, each statement a snapshot of its own: what changes meanwhile is in the change log after the
 * revision that was read before the first page. Never one long transaction, which would hold the database's vacuum back.
 * @param after the entry the page before ended with.
 */
export async function snapshotPage(db: Db, range: PathRange, after: Entry | undefined, revision: number, limit: number): Promise<Entry[]> {
  if (range.from.startsWith("secrets/")) {
    const rows = await db.query<{ path: string; version: number; at: Date }>(SECRETS, [after?.path ?? "", range.from, range.to, limit]);
    return rows.map((row) => entry(revision, 1, row.path, row.at, { version: row.version, versions: [row.version] }));
  }
  if (range.from.startsWith("credentials/")) {
    const rows = await db.query<{ id: string; path: string; principal: string; expire_at: Date; at: Date }>(LEASES, [
      after?.path ?? "",
      after?.leaseId ?? NO_ID,
      range.from,
      range.to,
      limit,
    ]);
    return rows.map((row) => entry(revision, 20, row.path, row.at, { leaseId: row.id, principal: row.principal, expireAt: row.expire_at.getTime() }));
  }
  const [root, statement, type] = range.from.startsWith("policies/") ? (["policies/", POLICIES, 40] as const) : (["targets/", TARGETS, 41] as const);
  if (!range.from.startsWith(root)) return [];
  const rows = await db.query<{ path: string; at: Date }>(statement, [after?.path.slice(root.length) ?? "", range.from, range.to, limit]);
  return rows.map((row) => entry(revision, type, row.path, row.at, {}));
}

function entry(revision: number, type: number, path: string, at: Date, more: Partial<Change>): Entry {
  return { revision, type, path, at: at.getTime(), version: 0, versions: [], leaseId: undefined, principal: "", expireAt: undefined, removed: false, ...more };
}
