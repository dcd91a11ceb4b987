import type { Db } from "./db.ts";

export interface Quarantine {
  readonly targetUid: string;
  readonly reason: "witness_ahead" | "witness_unknown" | "witness_missing" | "witness_behind" | "different_server";
  readonly witnessMark: string;
  readonly witnessEpoch: number;
  readonly since: Date;
  readonly endsAt: Date;
  /** By the database's clock: nothing that another history issued can be alive any more. */
  readonly over: boolean;
}

const QUARANTINES = {
  name: "quarantine_all",
  text: `select target_uid as "targetUid", reason, witness_mark as "witnessMark", witness_epoch::float8 as "witnessEpoch", since, ends_at as "endsAt", ends_at < leasehold_now() as over
           from quarantine order by since, target_uid`,
};

export function listQuarantines(db: Db): Promise<Quarantine[]> {
  return db.query<Quarantine>(QUARANTINES, []);
}

const EPOCH = { name: "witness_epoch", text: "select epoch::float8 as epoch from store_state" };

export async function storeEpoch(db: Db): Promise<number> {
  const [row] = await db.query<{ epoch: number }>(EPOCH, []);
  return row!.epoch;
}

const LIVE = { name: "scan_live", text: "select username from lease where target_uid = $1 and live and username = any ($2)" };

/** Which of these names a live lease accounts for, PENDING and pooled ones included. */
export async function liveUsernames(db: Db, targetUid: string, names: readonly string[]): Promise<ReadonlySet<string>> {
  const rows = await db.query<{ username: string }>(LIVE, [targetUid, names]);
  return new Set(rows.map((row) => row.username));
}

const ACTIVE = {
  name: "scan_active",
  text: `select id, path, generation, username, coalesce(login_oid, '') as oid,
             case when renewing_to is null and not enabling then extract(epoch from expire_at - leasehold_now())::float8 * 1000 end as "leftMs" from lease
           where target_uid = $1 and live and state = 'ACTIVE' and id > $2 and system_identifier = $3 order by id limit $4`,
};

export interface ActiveLogin {
  readonly id: string;
  readonly path: string;
  readonly generation: number;
  readonly username: string;
  readonly oid: string;
  /** Until the lease ends; null while the target may not have followed the ledger yet, which the schedule sees to. */
  readonly leftMs: number | null;
}

/** ACTIVE leases of a target whose logins were made on this server, by id. */
export function activeLogins(db: Db, targetUid: string, after: string, systemIdentifier: string, limit: number): Promise<ActiveLogin[]> {
  return db.query<ActiveLogin>(ACTIVE, [targetUid, after, systemIdentifier, limit]);
}

const STILL = { name: "scan_still", text: "select id, generation from lease where id = any ($1::uuid[]) and state = 'ACTIVE'" };

/** Those of these leases that are ACTIVE, and their generations. */
export async function activeGenerations(db: Db, ids: readonly string[]): Promise<ReadonlyMap<string, number>> {
  const rows = await db.query<{ id: string; generation: number }>(STILL, [ids]);
  return new Map(rows.map((row) => [row.id, row.generation]));
}

/** Something that did not agree between a target and the ledger. */
export interface FindingRecord {
  readonly id: string;
  readonly kind: "ORPHAN" | "LEASE_WITHOUT_LOGIN" | "LOGIN_DISABLED" | "QUARANTINE" | "ROTATION_STUCK";
  /** The rotation's uid for ROTATION_STUCK, whose `name` is the secret's path. */
  readonly targetUid: string;
  readonly name: string;
  readonly firstSeen: Date;
  readonly lastSeen: Date;
  /** Empty while it is open. */
  readonly resolution: string;
}

const FINDINGS = {
  name: "finding_list",
  text: `select id, kind, target_uid as "targetUid", name, first_seen as "firstSeen", last_seen as "lastSeen", resolution from finding
           where namespace_id = 1 and ($1 or state = 'OPEN') and not is_trial(finding) order by first_seen desc, id desc limit $2`,
};

/** Newest first. @param all resolved ones too. */
export function listFindings(db: Db, all: boolean, limit: number): Promise<FindingRecord[]> {
  return db.query(FINDINGS, [all, limit]);
}

const PRUNE = { name: "finding_prune", text: "delete from finding where state = 'RESOLVED' and last_seen < leasehold_now() - interval '30 days'" };

/** Forgets findings that were resolved 30 days ago. */
export async function pruneFindings(db: Db): Promise<void> {
  await db.query(PRUNE, []);
}

const ENDED = { name: "scan_ended", text: "select id, path, generation from lease where target_uid = $1 and username = $2 and not live limit 1" };

/** The ended lease that a login was once of. */
export async function endedLeaseOf(
  db: Db,
  targetUid: string,
  username: string,
): Promise<{ readonly id: string; readonly path: string; readonly generation: number } | undefined> {
  const [row] = await db.query<{ id: string; path: string; generation: number }>(ENDED, [targetUid, username]);
  return row;
}

const TARGET_LEASES = { name: "lease_of_target", text: "select id, path from lease where target_uid = $1 and live order by id limit $2" };

/** Live leases of a target, some of them. */
export function liveLeasesOf(db: Db, targetUid: string, limit: number): Promise<{ readonly id: string; readonly path: string }[]> {
  return db.query(TARGET_LEASES, [targetUid, limit]);
}
