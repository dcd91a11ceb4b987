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
  readonly enabling: boolean;
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
  max_expire_at, renewing_to, enabling, next_action_at, attempts, problem, stalled, end_cause, ended_at, delivered, trace_id`;

const FIND = { name: "lease_find", text: `select ${COLUMNS} from lease where namespace_id = 1 and id = $1` };

export async function findLease(db: Db, id: string): Promise<LeaseRecord | undefined> {
  const [row] = await db.query<Row>(FIND, [id]);
  return row === undefined ? undefined : recordOf(row);
}

const OF_REQUEST = { name: "lease_of_request", text: "select id, request_hash from lease where namespace_id = 1 and principal = $1 and request_id = $2" };

/** The lease that this principal's request_id has made, and the hash of the request it came with. */
export async function leaseOfRequest(db: Db, principal: string, requestId: string): Promise<{ readonly id: string; readonly hash: string } | undefined> {
  const [row] = await db.query<{ id: string; request_hash: string }>(OF_REQUEST, [principal, requestId]);
  return row && { id: row.id, hash: row.request_hash };
}

const CREDENTIAL = { name: "lease_credential", text: `select ${COLUMNS}, sealed from lease where namespace_id = 1 and id = $1` };

/** A lease with its sealed password, as long as it has one. */
export async function leaseCredential(db: Db, id: string): Promise<{ readonly lease: LeaseRecord; readonly sealed: Uint8Array | undefined } | undefined> {
  const [row] = await db.query<Row & { sealed: Buffer | null }>(CREDENTIAL, [id]);
  return row && { lease: recordOf(row), sealed: row.sealed ?? undefined };
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
  /** What a warm pool holds, PENDING or READY, is seen only if READY is among them. */
  readonly states: readonly LeaseState[];
  readonly stalled: boolean;
  /** Rows outside of these and not `viewer`'s own are not wanted. */
  readonly allowed: readonly PathRange[];
  readonly viewer: string;
}

/** Behind the cursor, before which a stretch of an index is looked at: by principal or path where one is asked for. */
const behind = (condition: string): string => `namespace_id = 1 and (issued_at, id) < (coalesce($1::timestamptz, 'infinity'), $2::uuid) and ${condition}`;
const BY = {
  all: "($3 = '' and $4 = '' and $5 = '')",
  path: "(path >= $3 and ($4 = '' or path < $4) and $5 = '')",
  principal: "(principal = $5 and path >= $3 and ($4 = '' or path < $4))",
} as const;
const statements = (by: keyof typeof BY) => ({
  bound: { name: `lease_bound_${by}`, text: `select issued_at, id from lease where ${behind(BY[by])} order by issued_at desc, id desc offset $6 limit 1` },
  page: {
    name: `lease_page_${by}`,
    text: `select ${COLUMNS} from lease where ${behind(BY[by])} and (issued_at, id) >= (coalesce($6::timestamptz, '-infinity'), $7::uuid)
             and state = any ($8::text[]) and (not shelf or 'READY' = any ($8::text[])) and (not $9 or stalled)
             and (principal = $10 or exists (select from unnest($11::text[], $12::text[]) as allowed (f, t) where path >= f and path < t))
            order by issued_at desc, id desc limit $13`,
  },
});
const PAGES = { all: statements("all"), path: statements("path"), principal: statements("principal") };
const FIRST_ID = "00000000-0000-0000-0000-000000000000";
const LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff";

/**
 * Leases newest first, out of at most `look` rows behind `after`. `next`: where the following page begins, behind the last lease when there are `limit` of them, else behind the last row looked at;
 * undefined when nothing is behind.
 */
export async function leasePage(
  db: Db,
  filter: LeaseFilter,
  after: LeaseCursor | undefined,
  limit: number,
  look: number,
): Promise<{ readonly leases: readonly LeaseRecord[]; readonly next: LeaseCursor | undefined }> {
  const { bound, page } = PAGES[filter.principal !== "" ? "principal" : filter.range === undefined ? "all" : "path"];
  const from = [
    after === undefined ? null : new Date(after.issuedAt).toISOString(),
    after?.id ?? LAST_ID,
    filter.range?.from ?? "",
    filter.range?.to ?? "",
    filter.principal,
  ];
  const [last] = await db.query<{ issued_at: Date; id: string }>(bound, [...from, look - 1]);
  const allowed = [filter.allowed.map((range) => range.from), filter.allowed.map((range) => range.to)];
  const rows = await db.query<Row>(page, [
    ...from,
    last?.issued_at.toISOString() ?? null,
    last?.id ?? FIRST_ID,
    filter.states,
    filter.stalled,
    filter.viewer,
    ...allowed,
    limit + 1,
  ]);
  const leases = rows.slice(0, limit).map(recordOf);
  if (rows.length > limit) return { leases, next: cursorOf(leases.at(-1)!) };
  return { leases, next: last && { issuedAt: last.issued_at.getTime(), id: last.id } };
}

function cursorOf(lease: LeaseRecord): LeaseCursor {
  return { issuedAt: lease.issuedAt, id: lease.id };
}

const REVOCABLE = { name: "lease_revocable", text: "select id, path, principal from revocable_leases($1, $2, $3, $4, $5, $6, $7)" };
const REVOCABLE_COUNT = {
  name: "lease_revocable_count",
  text: `select count(*) as leases from lease where namespace_id = 1 and live and not shelf and path >= $1 and path < $2 and ($3 = '' or principal = $3)
           and state in ('PENDING', 'ACTIVE') and issued_at <= $4::timestamptz`,
};
/** After every path. */
const LAST_PATH = "\u{10ffff}";

export interface RevokeFilter {
  readonly from: string;
  readonly to: string;
  readonly principal: string;
  /** Leases issued after the request are not meant. Unix milliseconds. */
  readonly issuedBefore: number;
}

/** Where a prefix revocation has come to. */
export interface RevocableLease {
  readonly id: string;
  readonly path: string;
  readonly principal: string;
}

/** Leases that a prefix revocation still has to end, after `after` (undefined: from the start). */
export function revocableLeases(db: Db, filter: RevokeFilter, after: RevocableLease | undefined, limit: number): Promise<RevocableLease[]> {
  const { path, principal, id } = after ?? { path: filter.from, principal: "", id: FIRST_ID };
  return db.query(REVOCABLE, [path, principal, id, filter.to || LAST_PATH, filter.principal, new Date(filter.issuedBefore).toISOString(), limit]);
}

export async function countRevocableLeases(db: Db, filter: RevokeFilter): Promise<number> {
  const [row] = await db.query<{ leases: number }>(REVOCABLE_COUNT, [
    filter.from,
    filter.to || LAST_PATH,
    filter.principal,
    new Date(filter.issuedBefore).toISOString(),
  ]);
  return row!.leases;
}

const UNTRIED = {
  name: "lease_untried",
  text: `select count(*) as leases from lease where namespace_id = 1 and live and not shelf and path >= $1 and path < $2 and ($3 = '' or principal = $3)
           and state = 'REVOKING' and attempts = 0 and issued_at <= $4::timestamptz`,
};

/** Leases of a prefix revocation whose target has not been asked yet. */
export async function countUntriedLeases(db: Db, filter: RevokeFilter): Promise<number> {
  const [row] = await db.query<{ leases: number }>(UNTRIED, [
    filter.from,
    filter.to || LAST_PATH,
    filter.principal,
    new Date(filter.issuedBefore).toISOString(),
  ]);
  return row!.leases;
}

const PRUNE = {
  name: "lease_prune",
  text: `delete from lease where id in (select id from lease where not live and next_action_at is null and ended_at < leasehold_now() - interval '24 hours' order by ended_at limit $1) returning id`,
};

/** Removes leases that ended more than a day ago and whose target was probed for the last time; `limit` of them a statement, for `budgetMs` at most. */
export async function pruneLeases(db: Db, limit: number, budgetMs: number): Promise<void> {
  const endAt = performance.now() + budgetMs;
  while (performance.now() < endAt) {
    // oxlint-disable-next-line no-await-in-loop -- short statements, so that nothing waits for one long one
    const pruned = await db.query(PRUNE, [limit]);
    if (pruned.length < limit) return;
  }
}

const PRUNE_REQUESTS = {
  name: "request_prune",
  text: "delete from request where ctid = any (array(select ctid from request where created_at < leasehold_now() - interval '24 hours' limit $1))",
};

/** Forgets idempotency keys after a day. */
export async function pruneRequests(db: Db, limit: number): Promise<void> {
  await db.query(PRUNE_REQUESTS, [limit]);
}

/** Never throws: one odd row, with an infinite time for one, must not stop all the others (lesson 10). */
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
    issuedAt: Number(row.issued_at),
    expireAt: Number(row.expire_at),
    renewAt: Number(row.renew_at),
    maxExpireAt: Number(row.max_expire_at),
    renewingTo: time(row.renewing_to),
    enabling: row.enabling,
    nextActionAt: time(row.next_action_at),
    attempts: row.attempts,
    problem: row.problem ?? undefined,
    stalled: row.stalled,
    endCause: row.end_cause ?? undefined,
    endedAt: time(row.ended_at),
    delivered: row.delivered,
    traceId: row.trace_id,
  };
}

function time(value: Date | null): number | undefined {
  return value === null ? undefined : Number(value);
}
