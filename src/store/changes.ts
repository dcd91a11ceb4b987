import type { Change } from "../model/event.ts";
import type { Db } from "./db.ts";

/** Where the change log stands. */
export interface Head {
  readonly epoch: number;
  /** Newest revision; 0 when nothing ever changed. */
  readonly revision: number;
  /** Changes up to here may have been pruned. */
  readonly floor: number;
  /** leasehold_now(), Unix milliseconds. */
  readonly now: number;
  readonly systemIdentifierChanged: boolean;
}

const HEAD = {
  name: "change_head",
  text: `select epoch, floor_revision as floor, coalesce((select max(revision) from change_log), 0) as revision, leasehold_now() as now,
           timeline <> ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint as moved from store_state`,
};

export async function readHead(db: Db): Promise<Head> {
  const [row] = await db.query<{ epoch: number; floor: number; revision: number; now: Date; moved: boolean }>(HEAD);
  return { epoch: row!.epoch, revision: row!.revision, floor: row!.floor, now: row!.now.getTime(), systemIdentifierChanged: row!.moved };
}

interface ChangeRow {
  readonly revision: number;
  readonly at: Date;
  readonly type: number;
  readonly path: string;
  readonly version: number;
  readonly versions: number[];
  readonly lease_id: string | null;
  readonly principal: string;
  readonly expire_at: Date | null;
  readonly removed: boolean;
}

const AFTER = {
  name: "change_after",
  text: "select revision, at, type, path, version, versions, lease_id, principal, expire_at, removed from change_log where revision > $1 order by revision limit $2",
};

/** Changes after a revision, in commit order. */
export async function changesAfter(db: Db, revision: number, limit: number): Promise<Change[]> {
  const rows = await db.query<ChangeRow>(AFTER, [revision, limit]);
  return rows.map((row) => ({
    revision: row.revision,
    at: row.at.getTime(),
    type: row.type,
    path: row.path,
    version: row.version,
    versions: row.versions,
    leaseId: row.lease_id ?? undefined,
    principal: row.principal,
    expireAt: row.expire_at?.getTime(),
    removed: row.removed,
  }));
}

const BUMP = {
  name: "change_bump_epoch",
  text: `update store_state set epoch = epoch + 1, timeline = ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint where epoch = $1`,
};

/** The history this process knew is not the one in the store (failover, restore): begins a new epoch, once for all who notice. */
export async function bumpEpoch(db: Db, seenEpoch: number): Promise<void> {
  await db.query(BUMP, [seenEpoch]);
}

/** How long the change log is kept. */
export interface KeepChanges {
  /** At least, in milliseconds. */
  readonly keepMs: number;
  /** As long as a durable subscription has not acknowledged them, changes are kept longer: up to this age, in milliseconds, */
  readonly keepForSubscriptionsMs: number;
  /** and up to so many of them. */
  readonly maxForSubscriptions: number;
}

// Both conditions hold for the oldest rows and not for newer ones, so the first `limit` rows are all that is looked at. The change at a cursor stays with it: after a failover it shows whether the new history has it too.
const PRUNE = {
  name: "change_prune",
  text: `with head as (select max(revision) as revision from change_log),
           held as (select min(revision) as revision from subscription where lost is null),
           floor as (select max(old.revision) as revision from (select revision, at from change_log order by revision limit $2) old, head, held
             where old.revision < head.revision and old.at < leasehold_now() - $1 * interval '1 ms'
               and (held.revision is null or old.revision < held.revision or old.at < leasehold_now() - $3 * interval '1 ms' or old.revision <= head.revision - $4::bigint)),
           raised as (update store_state set floor_revision = greatest(floor_revision, floor.revision) from floor where floor.revision is not null),
           gone as (delete from change_log using floor where change_log.revision <= floor.revision returning 1)
         select count(*) as pruned from gone`,
};

/** Removes changes older than `keepMs`, at most `limit`, and raises the floor in the same statement; above the cursor of the durable subscription that is farthest behind, within its bounds. The newest row always stays: revisions count on from it. */
export async function pruneChanges(db: Db, keep: KeepChanges, limit: number): Promise<number> {
  const { keepMs, keepForSubscriptionsMs, maxForSubscriptions } = keep;
  const [row] = await db.query<{ pruned: number }>(PRUNE, [keepMs, limit, Math.max(keepMs, keepForSubscriptionsMs), maxForSubscriptions]);
  return row!.pruned;
}
