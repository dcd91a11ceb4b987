import type { RoleRecord, TargetRecord } from "../model/target.ts";
import type { Db } from "./db.ts";

interface TargetRow {
  readonly uid: string;
  readonly name: string;
  readonly engine: string;
  readonly document: object;
  readonly login: string | null;
  readonly otherLogin: string | null;
  readonly upkeep: TargetRecord["upkeep"];
  readonly generation: number;
  readonly updated_at: Date;
}

const TARGET = `uid, name, engine, document, login, other_login as "otherLogin", upkeep, generation, updated_at`;
const ALL_TARGETS = { name: "target_all", text: `select ${TARGET} from target where namespace_id = 1 order by name` };
const ONE_TARGET = { name: "target_one", text: `select ${TARGET} from target where namespace_id = 1 and name = $1` };
const PASSWORD = { name: "target_password", text: "select sealed_password as sealed, generation from target where uid = $1" };

export async function allTargets(db: Db): Promise<TargetRecord[]> {
  const rows = await db.query<TargetRow>(ALL_TARGETS);
  return rows.map(targetOf);
}

export async function findTarget(db: Db, name: string): Promise<TargetRecord | undefined> {
  const [row] = await db.query<TargetRow>(ONE_TARGET, [name]);
  return row === undefined ? undefined : targetOf(row);
}

/** The sealed password of the broker's login on a target. */
export async function sealedPassword(db: Db, uid: string): Promise<Uint8Array | undefined> {
  const [row] = await db.query<{ sealed: Buffer | null }>(PASSWORD, [uid]);
  return row?.sealed ?? undefined;
}

/** A login that is to become the broker's own. */
export interface CandidateLogin {
  readonly login: string;
  readonly sealed: Uint8Array;
}

const CANDIDATE = {
  name: "target_candidate",
  text: "select pending_login as login, pending_password as sealed from target where uid = $1 and pending_login is not null",
};
const CANDIDATES = {
  name: "target_candidates",
  text: "select name from target where pending_login is not null and pending_since < leasehold_now() - $1 * interval '1 ms' order by name",
};

const ROTATABLE = {
  name: "target_rotatable",
  text: `select name from target where pending_login is null and login_rotated_at + (upkeep->>'rotateLoginEveryMs')::bigint * interval '1 ms' <= leasehold_now() order by name`,
};
const SCANNABLE = { name: "target_scannable", text: "select uid from target where scan_at <= leasehold_now() and engine = any ($1) order by scan_at limit $2" };

export async function candidateLogin(db: Db, uid: string): Promise<CandidateLogin | undefined> {
  const [row] = await db.query<CandidateLogin>(CANDIDATE, [uid]);
  return row;
}

/** Names of targets whose rotation was begun longer ago. */
export async function targetsWithCandidate(db: Db, olderThanMs: number): Promise<string[]> {
  return (await db.query<{ name: string }>(CANDIDATES, [olderThanMs])).map((row) => row.name);
}

/** Names of targets on which the broker's login is due to be rotated. */
export async function targetsWithDueLogin(db: Db): Promise<string[]> {
  return (await db.query<{ name: string }>(ROTATABLE, [])).map((row) => row.name);
}

/** Targets of these engines that are due for a scan, the longest due first. */
export async function targetsDueForScan(db: Db, engines: readonly string[], limit: number): Promise<string[]> {
  return (await db.query<{ uid: string }>(SCANNABLE, [engines, limit])).map((row) => row.uid);
}

function targetOf(row: TargetRow): TargetRecord {
  return {
    uid: row.uid,
    name: row.name,
    engine: row.engine,
    config: row.document,
    login: row.login ?? undefined,
    otherLogin: row.otherLogin ?? undefined,
    upkeep: row.upkeep,
    generation: row.generation,
    updatedAt: row.updated_at.getTime(),
  };
}

interface RoleRow {
  readonly uid: string;
  readonly path: string;
  readonly target_uid: string;
  readonly target_name: string;
  readonly engine: string;
  readonly document: Pick<RoleRecord, "defaultTtlMs" | "maxTtlMs" | "pool" | "usernameTemplate" | "passwordPolicy" | "quotas" | "config">;
  readonly generation: number;
  readonly updated_at: Date;
}

const ROLE =
  "r.uid, r.path, r.target_uid, t.name as target_name, t.engine, r.document, r.generation, r.updated_at from role r join target t on t.uid = r.target_uid where r.namespace_id = 1";
const ALL_ROLES = { name: "role_all", text: `select ${ROLE} order by r.path` };
const ONE_ROLE = { name: "role_one", text: `select ${ROLE} and r.path = $1` };

export async function allRoles(db: Db): Promise<RoleRecord[]> {
  const rows = await db.query<RoleRow>(ALL_ROLES);
  return rows.map(roleOf);
}

export async function findRole(db: Db, path: string): Promise<RoleRecord | undefined> {
  const [row] = await db.query<RoleRow>(ONE_ROLE, [path]);
  return row === undefined ? undefined : roleOf(row);
}

function roleOf(row: RoleRow): RoleRecord {
  const { defaultTtlMs, maxTtlMs, pool, usernameTemplate, passwordPolicy, quotas, config } = row.document;
  return {
    uid: row.uid,
    path: row.path,
    targetUid: row.target_uid,
    targetName: row.target_name,
    engine: row.engine,
    defaultTtlMs,
    maxTtlMs,
    pool,
    usernameTemplate,
    passwordPolicy,
    quotas,
    config,
    generation: row.generation,
    updatedAt: row.updated_at.getTime(),
  };
}
