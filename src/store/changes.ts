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
  const [row] = await db.query<HeadRow>(HEAD);
  return headOf(row!);
}

/** The head, and the changes after a revision up to it (not all of them, if they are many). */
export interface Tail {
  readonly head: Head;
  readonly changes: readonly Change[];
}

const TAIL = {
  name: "change_tail",
  text: `select h.epoch, h.floor, h.head, h.now, h.moved, c.* from
           (select epoch, floor_revision as floor, coalesce((select max(revision) from change_log), 0) as head, leasehold_now() as now,
              timeline <> ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint as moved from store_state) h
           left join lateral (select revision, (extract(epoch from at) * 1000)::bigint as at, type, path, version, nullif(versions, '{}') as versions, lease_id, principal,
              floor(extract(epoch from expire_at) * 1000)::bigint as expire_at, removed from change_log where revision > $1 order by revision limit $2) c on true order by c.revision`,
};

/** Both in one statement, hence of one moment, for one round trip: what a change waits for before anybody hears of it. */
export async function readTail(db: Db, revision: number, limit: number): Promise<Tail> {
  const rows = await db.query<Omit<HeadRow, "revision"> & { head: number } & ChangeRow>(TAIL, [revision, limit]);
  const [first] = rows;
  return { head: headOf({ ...first!, revision: first!.head }), changes: first!.revision === null ? [] : rows.map(changeOf) };
}

interface HeadRow {
  readonly epoch: number;
  readonly floor: number;
  readonly revision: number;
  readonly now: Date;
  readonly moved: boolean;
}

function headOf(row: HeadRow): Head {
  return { epoch: row.epoch, revision: row.revision, floor: row.floor, now: row.now.getTime(), systemIdentifierChanged: row.moved };
}

interface ChangeRow {
  readonly revision: number;
  readonly at: number;
  readonly type: number;
  readonly path: string;
  readonly version: number;
  readonly versions: number[] | null;
  readonly lease_id: string | null;
  readonly principal: string;
  readonly expire_at: number | null;
  readonly removed: boolean;
}

/**
 * A page as one JSON text: PostgreSQL writes it in parallel to us, and to read it takes 1 µs a change; ten columns, each a value of its own on the wire, take 4. Times by `date_part`, whose
 * double is exact to a microsecond: `extract` would go through numeric. The inner order is kept by `string_agg`.
 */
const AFTER = {
  name: "change_after",
  text: `select '[' || string_agg('[' || revision || ',' || (date_part('epoch', at) * 1000)::bigint || ',' || type || ',' || to_json(path) || ',' || version || ',' ||
             case when versions = '{}' then 'null' else array_to_json(versions)::text end || case when lease_id is null then ',null,' else ',"' || lease_id || '",' end || to_json(principal) ||
             case when expire_at is null then ',null,' else ',' || floor(date_part('epoch', expire_at) * 1000 + 0.001)::bigint || ',' end || case when removed then 'true]' else 'false]' end, ',') || ']' as page
           from (select revision, at, type, path, version, versions, lease_id, principal, expire_at, removed from change_log where revision > $1 order by revision limit $2) c`,
};

type Row = readonly [
  revision: number,
  at: number,
  type: number,
  path: string,
  version: number,
  versions: number[] | null,
  leaseId: string | null,
  principal: string,
  expireAt: number | null,
  removed: boolean,
];

/** Changes after a revision, in commit order. */
export async function changesAfter(db: Db, revision: number, limit: number): Promise<Change[]> {
  const [row] = await db.query<{ page: string | null }>(AFTER, [revision, limit]);
  const page = JSON.parse(row?.page ?? "[]") as Row[];
  return page.map((each) => ({
    revision: each[0],
    at: each[1],
    type: each[2],
    path: each[3],
    version: each[4],
    versions: each[5] ?? NO_VERSIONS,
    leaseId: each[6] ?? undefined,
    principal: each[7],
    expireAt: each[8] ?? undefined,
    removed: each[9],
  }));
}

const NO_VERSIONS: readonly number[] = [];

function changeOf(row: ChangeRow): Change {
  return {
    revision: row.revision,
    at: row.at,
    type: row.type,
    path: row.path,
    version: row.version,
    versions: row.versions ?? NO_VERSIONS,
    leaseId: row.lease_id ?? undefined,
    principal: row.principal,
    expireAt: row.expire_at ?? undefined,
    removed: row.removed,
  };
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
