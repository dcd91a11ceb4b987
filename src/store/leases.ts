import type { EndCause, LeaseRecord, LeaseState } from "../model/lease.ts";
import type { PathRange } from "../model/range.ts";
import type { Db } from "./db.ts";

interface Row {
  readonly id: string;
  readonly path: string;
  readonly target_uid: string;
  readonly principal: string;
  readonly state: LeaseState;
  readonly generation: number;
  readonly username: string;
  readonly login_oid: string | null;
  readonly system_identifier: string | null;
  readonly connection: Record<string, string> | null;
  readonly owned_objects: unknown;
  readonly issued_at: Date;
  readonly expire_at: Date;
  readonly renew_at: Date;
  readonly max_expire_at: Date;
  readonly renewing_to: Date | null;
  readonly next_action_at: Date | null;
  readonly attempts: number;
  readonly problem: string | null;
  readonly stalled: boolean;
  readonly end_cause: EndCause | null;
  readonly ended_at: Date | null;
  readonly delivered: boolean;
  readonly trace_id: string;
}

const COLUMNS = `id, path, target_uid, principal, state, generation, username, login_oid, system_identifier, connection, owned_objects, issued_at, expire_at, renew_at,
  max_expire_at, renewing_to, next_action_at, attempts, problem, stalled, end_cause, ended_at, delivered, trace_id`;

const FIND = { name: "lease_find", text: `select ${COLUMNS} from lease where namespace_id = 1 and id = $1` };

export async function findLease(db: Db, id: string): Promise<LeaseRecord | undefined> {
  const [row] = await db.query<Row>(FIND, [id]);
  return row === undefined ? undefined : recordOf(row);
}

const SEALED = { name: "lease_sealed", text: "select sealed from lease where id = $1" };

/** The sealed password; undefined once the lease has ended. */
export async function sealedCredential(db: Db, id: string): Promise<Uint8Array | undefined> {
  const [row] = await db.query<{ sealed: Buffer | null }>(SEALED, [id]);
  return row?.sealed ?? undefined;
}

/** Where a page of leases goes on: newest first, the id breaks ties. */
export interface LeaseCursor {
  readonly issuedAt: number;
  readonly id: string;
}

export interface LeaseFilter {
  /** Undefined: all paths. */
  readonly range: PathRange | undefined;
  /** Empty: everybody's. */
  readonly principal: string;
  readonly states: readonly LeaseState[];
  readonly stalled: boolean;
}

const PAGE = {
  name: "lease_page",
  text: `select ${COLUMNS} from lease where namespace_id = 1 and ($1::timestamptz is null or (issued_at, id) < ($1::timestamptz, $2::uuid))
           and ($3 = '' or path >= $3) and ($4 = '' or path < $4) and ($5 = '' or principal = $5) and state = any ($6::text[]) and (not $7 or stalled)
          order by issued_at desc, id desc limit $8`,
};
const NO_ID = "00000000-0000-0000-0000-000000000000";

export async function leasePage(db: Db, filter: LeaseFilter, after: LeaseCursor | undefined, limit: number): Promise<LeaseRecord[]> {
  const rows = await db.query<Row>(PAGE, [
    after === undefined ? null : new Date(after.issuedAt).toISOString(),
    after?.id ?? NO_ID,
    filter.range?.from ?? "",
    filter.range?.to ?? "",
    filter.principal,
    filter.states,
    filter.stalled,
    limit,
  ]);
  return rows.map(recordOf);
}

const CLAIM = {
  name: "lease_claim",
  text: `update lease set next_action_at = leasehold_now() + $2 * interval '1 ms'
          where id in (select id from lease where next_action_at <= leasehold_now() order by next_action_at limit $1 for update skip locked) returning ${COLUMNS}, leasehold_now() as now`,
};
const CLAIM_IDS = {
  name: "lease_claim_ids",
  text: `update lease set next_action_at = leasehold_now() + $2 * interval '1 ms'
          where id in (select id from lease where id = any ($1::uuid[]) and next_action_at <= leasehold_now() for update skip locked) returning ${COLUMNS}, leasehold_now() as now`,
};

/** A lease that is due by the database's clock, claimed: for `claimMs` no other worker sees it. */
export interface DueLease {
  readonly lease: LeaseRecord;
  /** Database clock at the claim. */
  readonly now: number;
}

/** Takes what is due, oldest first. */
export async function claimDueLeases(db: Db, limit: number, claimMs: number): Promise<DueLease[]> {
  const rows = await db.query<Row & { now: Date }>(CLAIM, [limit, claimMs]);
  return rows.map((row) => ({ lease: recordOf(row), now: row.now.getTime() }));
}

/** Takes those of the named ones that are really due: whoever named them only had a hint. */
export async function claimNamedLeases(db: Db, ids: readonly string[], claimMs: number): Promise<DueLease[]> {
  const rows = await db.query<Row & { now: Date }>(CLAIM_IDS, [ids, claimMs]);
  return rows.map((row) => ({ lease: recordOf(row), now: row.now.getTime() }));
}

const UPCOMING = {
  name: "lease_upcoming",
  text: "select id, next_action_at as at from lease where next_action_at <= leasehold_now() + $1 * interval '1 ms' order by next_action_at limit $2",
};

/** What becomes due within `horizonMs`, soonest first. */
export async function upcomingLeases(db: Db, horizonMs: number, limit: number): Promise<{ readonly id: string; readonly at: number }[]> {
  const rows = await db.query<{ id: string; at: Date }>(UPCOMING, [horizonMs, limit]);
  return rows.map((row) => ({ id: row.id, at: row.at.getTime() }));
}

const REVOCABLE = {
  name: "lease_revocable",
  text: `select id, path from lease where namespace_id = 1 and id > $1::uuid and ($2 = '' or path >= $2) and ($3 = '' or path < $3) and ($4 = '' or principal = $4)
           and state in ('PENDING', 'ACTIVE') and issued_at <= $6::timestamptz order by id limit $5`,
};
const REVOCABLE_COUNT = {
  name: "lease_revocable_count",
  text: `select count(*) as leases from lease where namespace_id = 1 and ($1 = '' or path >= $1) and ($2 = '' or path < $2) and ($3 = '' or principal = $3)
           and state in ('PENDING', 'ACTIVE') and issued_at <= $4::timestamptz`,
};

export interface RevokeFilter {
  readonly from: string;
  readonly to: string;
  readonly principal: string;
  /** Leases issued after the request are not meant. Unix milliseconds. */
  readonly issuedBefore: number;
}

/** Leases a prefix revocation still has to end, by id, after `after` (empty: from the start). */
export function revocableLeases(db: Db, filter: RevokeFilter, after: string, limit: number): Promise<{ readonly id: string; readonly path: string }[]> {
  return db.query(REVOCABLE, [after === "" ? NO_ID : after, filter.from, filter.to, filter.principal, limit, new Date(filter.issuedBefore).toISOString()]);
}

export async function countRevocableLeases(db: Db, filter: RevokeFilter): Promise<number> {
  const [row] = await db.query<{ leases: number }>(REVOCABLE_COUNT, [filter.from, filter.to, filter.principal, new Date(filter.issuedBefore).toISOString()]);
  return row!.leases;
}

const PRUNE = {
  name: "lease_prune",
  text: `delete from lease where id in (select id from lease where state in ('REVOKED', 'ROLLED_BACK') and next_action_at is null and ended_at < leasehold_now() - interval '24 hours' limit $1)`,
};

/** Removes leases that ended more than a day ago and whose target was probed for the last time. */
export async function pruneLeases(db: Db, limit: number): Promise<void> {
  await db.query(PRUNE, [limit]);
}

const PRUNE_REQUESTS = { name: "request_prune", text: "delete from request where ctid = any (array(select ctid from request where created_at < leasehold_now() - interval '24 hours' limit $1))" };

/** Forgets idempotency keys after a day. */
export async function pruneRequests(db: Db, limit: number): Promise<void> {
  await db.query(PRUNE_REQUESTS, [limit]);
}

function recordOf(row: Row): LeaseRecord {
  return {
    id: row.id,
    path: row.path,
    targetUid: row.target_uid,
    principal: row.principal,
    state: row.state,
    generation: row.generation,
    username: row.username,
    oid: row.login_oid ?? undefined,
    systemIdentifier: row.system_identifier ?? undefined,
    connection: row.connection ?? {},
    ownedObjects: row.owned_objects,
    issuedAt: row.issued_at.getTime(),
    expireAt: row.expire_at.getTime(),
    renewAt: row.renew_at.getTime(),
    maxExpireAt: row.max_expire_at.getTime(),
    renewingTo: row.renewing_to?.getTime(),
    nextActionAt: row.next_action_at?.getTime(),
    attempts: row.attempts,
    problem: row.problem ?? undefined,
    stalled: row.stalled,
    endCause: row.end_cause ?? undefined,
    endedAt: row.ended_at?.getTime(),
    delivered: row.delivered,
    traceId: row.trace_id,
  };
}
