import type { PathRange } from "../model/range.ts";
import type { DueRotation, RotationDocument, RotationRecord, RotationState, RotationStep } from "../model/rotation.ts";
import type { Db } from "./db.ts";

interface Row {
  readonly uid: string;
  readonly path: string;
  readonly secret_uid: string;
  readonly rotator: string;
  readonly target: string;
  readonly document: RotationDocument;
  readonly edition: number;
  readonly state: RotationState;
  readonly step: RotationStep | null;
  readonly generation: number;
  readonly pending_version: number;
  readonly attempts: number;
  readonly failures: number;
  readonly problem: string;
  readonly cause: string;
  readonly step_at: Date | null;
  readonly stuck_since: Date | null;
  readonly due_at: Date | null;
  readonly planned_at: Date | null;
  readonly window_ends_at: Date | null;
  readonly last_at: Date | null;
  readonly updated_at: Date;
  /** Not of a claimed one. */
  readonly next_at?: Date | null;
}

interface DueRow extends Row {
  readonly turn: number;
  readonly base_version: number;
  readonly given_up: readonly (number | string)[];
  readonly reads: number;
  readonly finding_at: Date | null;
  readonly settled_at: Date;
  readonly trace_id: string;
  readonly now: Date;
  readonly secret_deleted: boolean;
  readonly current_version: number;
  readonly previous_version: number;
  readonly latest_version: number;
  readonly current_created_at: Date | null;
  readonly current_expire_at: Date | null;
}

const COLUMNS = [
  "uid",
  "path",
  "secret_uid",
  "rotator",
  "target",
  "document",
  "edition",
  "state",
  "step",
  "generation",
  "pending_version",
  "attempts",
  "failures",
  "problem",
  "cause",
  "step_at",
  "stuck_since",
  "due_at",
  "planned_at",
  "window_ends_at",
  "last_at",
  "updated_at",
]
  .map((name) => `r.${name}`)
  .join(", ");

const FIND = { name: "rotation_find", text: `select ${COLUMNS}, rotation_next(r) as next_at from rotation r where r.namespace_id = 1 and r.path = $1` };

export async function findRotation(db: Db, secretPath: string): Promise<RotationRecord | undefined> {
  const [row] = await db.query<Row>(FIND, [secretPath]);
  return row === undefined ? undefined : recordOf(row);
}

const LIST = {
  name: "rotation_list",
  text: `select ${COLUMNS}, rotation_next(r) as next_at from rotation r where r.namespace_id = 1 and r.path > $1 and r.path >= $2 and r.path < $3 and (not $4 or r.stuck_since is not null) order by r.path limit $5`,
};

/** Rotations of a range of secret paths, in path order, after `after` (exclusive; empty: from the start). */
export async function listRotations(db: Db, range: PathRange, after: string, stuck: boolean, limit: number): Promise<RotationRecord[]> {
  return (await db.query<Row>(LIST, [after, range.from, range.to, stuck, limit])).map(recordOf);
}

const OF_TARGET = {
  name: "rotation_of_target",
  text: "select rotator, document from rotation where namespace_id = 1 and target = $1 order by path limit 1000",
};

/** What rotates logins of a target, by its name; 1,000 of them at most. */
export async function rotationsOfTarget(db: Db, target: string): Promise<{ readonly rotator: string; readonly config: object }[]> {
  const rows = await db.query<Pick<Row, "rotator" | "document">>(OF_TARGET, [target]);
  return rows.map(({ rotator, document }) => ({ rotator, config: document.config }));
}

const NOW = { name: "rotation_now", text: "select leasehold_now() as now" };

/** The database's clock, Unix milliseconds. */
export async function ledgerNow(db: Db): Promise<number> {
  const [row] = await db.query<{ now: Date }>(NOW, []);
  return row!.now.getTime();
}

/**
 * Takes those of `picked` that are due, for $2 ms: `turn` counts, so that whoever had it before changes nothing any more. A step that may change the outside puts off the time from which on nothing can
 * happen any more; one that only looks does not.
 */
const DUE = `${COLUMNS}, r.turn, r.base_version, r.given_up, case when r.reads_version = s.current_version then r.reads else 0 end as reads, r.finding_at, r.settled_at, r.trace_id, c.now,
      s.deleted_at is not null as secret_deleted, s.current_version, s.previous_version, s.latest_version, v.created_at as current_created_at, v.expire_at as current_expire_at`;
const WITH_SECRET = "join secret s on s.uid = r.secret_uid left join secret_version v on v.secret_uid = s.uid and v.version = s.current_version, clock c";
const taking = (picked: string): string => `with clock as materialized (select leasehold_now() as now),
  due as materialized (select uid from rotation where ${picked} and due_at <= (select now from clock) for update skip locked),
  taken as (
    update rotation r set turn = r.turn + 1, attempts = r.attempts + (r.state = 'RUNNING')::integer, held_until = c.now + $2 * interval '1 ms', due_at = c.now + $2 * interval '1 ms',
        settled_at = case when r.step in ('CREATE', 'SET', 'RESTORE') then greatest(r.settled_at, c.now + $2 * interval '1 ms') else r.settled_at end
      from due d, clock c where r.uid = d.uid returning r.*)
  select ${DUE} from taken r ${WITH_SECRET}`;

const CLAIM = {
  name: "rotation_claim",
  text: taking(`uid in (
    select uid from (
      select uid, due_at, row_number() over (partition by coalesce(nullif(target, ''), uid::text) order by due_at) as place from (
        select uid, target, due_at from rotation where due_at <= leasehold_now() and coalesce(nullif(target, ''), uid::text) <> all ($3::text[]) order by due_at limit 2000
      ) as soonest) as ranked
    where place <= $4 order by due_at limit $1)`),
};
const CLAIM_NAMED = { name: "rotation_claim_named", text: taking("uid = any ($1::uuid[]) and coalesce(nullif(target, ''), uid::text) <> all ($3::text[])") };
const ms = (expression: string): string => `(extract(epoch from ${expression}) * 1000)::float8`;
const UPCOMING = {
  name: "rotation_upcoming",
  text: `select uid as id, ${ms("due_at")} as at from rotation
           where due_at <= leasehold_now() + $1 * interval '1 ms' and (due_at, uid) > (to_timestamp($3::float8 / 1000), $4::uuid) order by due_at, uid limit $2`,
};
const TIMES = { name: "rotation_times", text: `select uid as id, ${ms("due_at")} as at from rotation where uid = any ($1::uuid[]) and due_at is not null` };

const PEEK = {
  name: "rotation_peek",
  text: `with clock as materialized (select leasehold_now() as now) select ${DUE} from rotation r ${WITH_SECRET} where r.uid = $1`,
};

/** As a worker sees it, without claiming it. */
export async function peekRotation(db: Db, uid: string): Promise<DueRotation | undefined> {
  const [row] = await db.query<DueRow>(PEEK, [uid]);
  return row === undefined ? undefined : dueOf(row);
}

/** What is due among rotations, for the schedule (src/schedule/clockwork.ts). */
export function dueRotations(db: Db) {
  return {
    claim: async (limit: number, perTarget: number, busy: readonly string[], claimMs: number): Promise<DueRotation[]> =>
      (await db.query<DueRow>(CLAIM, [limit, claimMs, busy, perTarget])).map(dueOf),
    claimNamed: async (ids: readonly string[], busy: readonly string[], claimMs: number): Promise<DueRotation[]> =>
      (await db.query<DueRow>(CLAIM_NAMED, [ids, claimMs, busy])).map(dueOf),
    upcoming: (horizonMs: number, after: { readonly id: string; readonly at: number }, limit: number): Promise<{ id: string; at: number }[]> =>
      db.query(UPCOMING, [horizonMs, limit, after.at, after.id]),
    times: (ids: readonly string[]): Promise<{ id: string; at: number }[]> => db.query(TIMES, [ids]),
  };
}

const WATCHED = { name: "rotation_counts_reads", text: "select path from rotation where namespace_id = 1 and max_reads > 0" };

/** Secrets whose reads count. */
export async function pathsCountingReads(db: Db): Promise<string[]> {
  return (await db.query<{ path: string }>(WATCHED, [])).map((row) => row.path);
}

const COUNT = {
  name: "rotation_count_reads",
  text: `update rotation r set reads = case when r.reads_version = $2 then r.reads + $3 else $3 end, reads_version = $2,
      turn = r.turn + e.enough::integer, due_at = case when e.enough then least(r.due_at, leasehold_now()) else r.due_at end
    from secret s, rotation q, lateral (select q.state = 'WAITING' and q.max_reads > 0 and case when q.reads_version = $2 then q.reads + $3 else $3 end >= q.max_reads) e (enough)
    where q.uid = r.uid and r.namespace_id = 1 and r.path = $1 and s.uid = r.secret_uid and s.current_version = $2`,
};

/** Adds reads of a version, if it is still CURRENT; when there are enough, the rotation is due. */
export async function countReads(db: Db, path: string, version: number, reads: number): Promise<void> {
  await db.query(COUNT, [path, version, reads]);
}

const STUCK = { name: "rotation_stuck", text: "select count(*)::int as stuck from rotation where stuck_since is not null" };

export async function countStuck(db: Db): Promise<number> {
  const [row] = await db.query<{ stuck: number }>(STUCK, []);
  return row!.stuck;
}

function recordOf(row: Row): RotationRecord {
  return {
    ...row.document,
    uid: row.uid,
    path: row.path,
    secretUid: row.secret_uid,
    rotator: row.rotator,
    target: row.target,
    edition: row.edition,
    state: row.state,
    step: row.step ?? undefined,
    generation: row.generation,
    pendingVersion: row.pending_version,
    attempts: row.attempts,
    failures: row.failures,
    problem: row.problem,
    cause: row.cause,
    stepAt: row.step_at?.getTime(),
    stuckSince: row.stuck_since?.getTime(),
    dueAt: row.due_at?.getTime(),
    plannedAt: row.planned_at?.getTime(),
    windowEndsAt: row.window_ends_at?.getTime(),
    lastAt: row.last_at?.getTime(),
    updatedAt: row.updated_at.getTime(),
    nextAt: row.next_at?.getTime(),
  };
}

function dueOf(row: DueRow): DueRotation {
  return {
    ...recordOf(row),
    id: row.uid,
    targetUid: row.target === "" ? row.uid : row.target,
    turn: row.turn,
    baseVersion: row.base_version,
    givenUp: row.given_up.map(Number),
    reads: row.reads,
    findingAt: row.finding_at?.getTime(),
    settledAt: row.settled_at.getTime(),
    traceId: row.trace_id,
    now: row.now.getTime(),
    secret: {
      deleted: row.secret_deleted,
      current: row.current_version,
      previous: row.previous_version,
      latest: row.latest_version,
      createdAt: row.current_created_at?.getTime(),
      expireAt: row.current_expire_at?.getTime(),
    },
  };
}
