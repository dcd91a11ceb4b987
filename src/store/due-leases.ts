import type { LeaseState } from "../model/lease.ts";
import type { Db } from "./db.ts";

/** A lease that is due by the database's clock, claimed: until the claim ends no other worker sees it. Only what acting on it needs. */
export interface DueLease {
  readonly id: string;
  /** Role path. */
  readonly path: string;
  readonly targetUid: string;
  /** REVOKING already, if it was ACTIVE and had expired: the claim moved it. */
  readonly state: LeaseState;
  readonly generation: number;
  readonly username: string;
  readonly oid: string | undefined;
  readonly systemIdentifier: string | undefined;
  readonly ownedObjects: unknown;
  /** Unix milliseconds, by the database's clock; as is `now`, the time of the claim. */
  readonly expireAt: number;
  readonly renewingTo: number | undefined;
  readonly enabling: boolean;
  readonly now: number;
  readonly attempts: number;
  readonly delivered: boolean;
  readonly pooled: boolean;
  /** True when this claim found it expired. */
  readonly expired: boolean;
  readonly traceId: string;
}

interface Row {
  readonly id: string;
  readonly path: string;
  readonly target_uid: string;
  readonly state: LeaseState;
  readonly generation: number;
  readonly username: string;
  readonly login_oid: string | null;
  readonly system_identifier: string | null;
  readonly owned_objects: unknown;
  readonly expire_ms: number;
  readonly renewing_ms: number | null;
  readonly enabling: boolean;
  readonly now_ms: number;
  readonly attempts: number;
  readonly delivered: boolean;
  readonly pooled: boolean;
  readonly expired: boolean;
  readonly trace_id: string;
}

const ms = (expression: string): string => `(extract(epoch from ${expression}) * 1000)::float8`;
const COLUMNS = `l.id, l.path, l.target_uid, l.state, l.generation, l.username, l.login_oid, l.system_identifier, l.owned_objects, ${ms("l.expire_at")} as expire_ms,
  ${ms("l.renewing_to")} as renewing_ms, l.enabling, ${ms("c.now")} as now_ms, l.attempts, l.delivered, l.pooled, l.trace_id`;

/**
 * `picked` names leases; those that are due are taken for $2 ms. An ACTIVE one that has expired becomes REVOKING by the same statement: no event and no record belong to that move, the end of the lease
 * has both, and a round trip through the committer for each would double the cost of expiry. Whoever renews it at the same moment waits for the row, and then finds it REVOKING.
 */
const taking = (picked: string): string => `with clock as materialized (select leasehold_now() as now),
  due as materialized (select lease_id from lease_due where ${picked} and at <= (select now from clock) for update skip locked),
  expired as (
    update lease l set state = 'REVOKING', generation = l.generation + 1, end_cause = 'EXPIRED', renewing_to = null, attempts = 0, problem = null,
        next_action_at = c.now + $2 * interval '1 ms'
      from due d, clock c where l.id = d.lease_id and l.state = 'ACTIVE' and l.expire_at <= c.now returning ${COLUMNS}, true as expired),
  held as (
    update lease_due d set at = c.now + $2 * interval '1 ms' from clock c
      where d.lease_id in (select lease_id from due except select id from expired) returning d.lease_id)
  select * from expired union all select ${COLUMNS}, false as expired from lease l join held h on l.id = h.lease_id, clock c`;

const CLAIM = {
  name: "lease_claim",
  text: taking(`lease_id in (
    select lease_id from (
      select lease_id, at, row_number() over (partition by target_uid order by at) as place from (
        select lease_id, target_uid, at from lease_due where at <= leasehold_now() and target_uid <> all ($3::uuid[]) order by at limit 2000
      ) as soonest) as ranked
    where place <= $4 order by at limit $1)`),
};
const CLAIM_IDS = { name: "lease_claim_ids", text: taking("lease_id = any ($1::uuid[]) and target_uid <> all ($3::uuid[])") };

const END = {
  name: "lease_end_many",
  text: `with clock as materialized (select leasehold_now() as now),
    ended as (
      update lease l set state = 'REVOKING', generation = l.generation + 1, end_cause = 'REVOKED', renewing_to = null, attempts = 0, problem = null,
          next_action_at = case when l.state = 'PENDING' and l.login_oid is null then greatest(l.deadline_at, c.now) else c.now + $2 * interval '1 ms' end
        from clock c where l.id = any ($1::uuid[]) and l.state in ('PENDING', 'ACTIVE') returning ${COLUMNS}, false as expired, l.login_oid is null and c.now < l.deadline_at as creating)
    select * from ended`,
};

/**
 * Leases become REVOKING by one statement, as expired ones do by being claimed: their ends have the event and the record. Answers those whose login can go now, which the caller has for `claimMs`; one that is
 * still being created goes by the schedule. Who has ended already is left out.
 */
export async function endLeases(db: Db, ids: readonly string[], claimMs: number): Promise<DueLease[]> {
  const rows = await db.query<Row & { readonly creating: boolean }>(END, [ids, claimMs]);
  return rows.filter((row) => !row.creating).map(dueOf);
}

const UPCOMING = {
  name: "lease_upcoming",
  text: `select lease_id as id, ${ms("at")} as at from lease_due
           where at <= leasehold_now() + $1 * interval '1 ms' and (at, lease_id) > (to_timestamp($3::float8 / 1000), $4::uuid) order by lease_due.at, lease_id limit $2`,
};
const TIMES = { name: "lease_times", text: `select lease_id as id, ${ms("at")} as at from lease_due where lease_id = any ($1::uuid[]) and at is not null` };

/** What is due among leases, for the schedule (src/schedule/clockwork.ts). */
export function dueLeases(db: Db) {
  return {
    claim: async (limit: number, perTarget: number, busyTargets: readonly string[], claimMs: number): Promise<DueLease[]> =>
      (await db.query<Row>(CLAIM, [limit, claimMs, busyTargets, perTarget])).map(dueOf),
    claimNamed: async (ids: readonly string[], busyTargets: readonly string[], claimMs: number): Promise<DueLease[]> =>
      (await db.query<Row>(CLAIM_IDS, [ids, claimMs, busyTargets])).map(dueOf),
    upcoming: (horizonMs: number, after: { readonly id: string; readonly at: number }, limit: number): Promise<{ id: string; at: number }[]> =>
      db.query(UPCOMING, [horizonMs, limit, after.at, after.id]),
    times: (ids: readonly string[]): Promise<{ id: string; at: number }[]> => db.query(TIMES, [ids]),
  };
}

/** Never throws: one odd row, with an infinite time for one, must not stop all the others (lesson 10). */
function dueOf(row: Row): DueLease {
  return {
    id: row.id,
    path: row.path,
    targetUid: row.target_uid,
    state: row.state,
    generation: row.generation,
    username: row.username,
    oid: row.login_oid ?? undefined,
    systemIdentifier: row.system_identifier ?? undefined,
    ownedObjects: row.owned_objects,
    expireAt: row.expire_ms,
    renewingTo: row.renewing_ms ?? undefined,
    enabling: row.enabling,
    now: row.now_ms,
    attempts: row.attempts,
    delivered: row.delivered,
    pooled: row.pooled,
    expired: row.expired,
    traceId: row.trace_id,
  };
}
