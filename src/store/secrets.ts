import type { SecretMeta, VersionMeta } from "../model/secret.ts";
import type { PathRange } from "../model/range.ts";
import type { Db } from "./db.ts";

interface SecretRow {
  readonly uid: string;
  readonly path: string;
  readonly latest_version: number;
  readonly current_version: number;
  readonly previous_version: number;
  readonly pending_version: number;
  readonly labels: Record<string, string>;
  readonly annotations: Record<string, string>;
  readonly max_versions: number;
  readonly generation: number;
  readonly created_at: Date;
  readonly updated_at: Date;
  readonly deleted_at: Date | null;
  readonly purge_at: Date | null;
}

interface VersionRow {
  readonly version: number;
  readonly created_at: Date;
  readonly created_by: string;
  readonly not_before: Date | null;
  readonly expire_at: Date | null;
  readonly deleted_at: Date | null;
  readonly destroyed_at: Date | null;
}

const SECRET =
  "uid, path, latest_version, current_version, previous_version, pending_version, labels, annotations, max_versions, generation, created_at, updated_at, deleted_at, purge_at";
const VERSION = "version, created_at, created_by, not_before, expire_at, deleted_at, destroyed_at";

const FIND = {
  name: "secret_find",
  text: `select ${SECRET} from secret where namespace_id = 1 and path = $1 and (purge_at is null or purge_at > leasehold_now())`,
};

export async function findSecret(db: Db, path: string): Promise<SecretMeta | undefined> {
  const [row] = await db.query<SecretRow>(FIND, [path]);
  return row === undefined ? undefined : secretOf(row);
}

const FIND_VERSION = { name: "secret_find_version", text: `select ${VERSION}, sealed from secret_version where secret_uid = $1 and version = $2` };

/** One version with its sealed data (undefined once destroyed). */
export async function findVersion(
  db: Db,
  uid: string,
  version: number,
): Promise<{ readonly meta: VersionMeta; readonly sealed: Uint8Array | undefined } | undefined> {
  const [row] = await db.query<VersionRow & { sealed: Buffer | null }>(FIND_VERSION, [uid, version]);
  return row === undefined ? undefined : { meta: versionOf(row), sealed: row.sealed ?? undefined };
}

const LIST = {
  name: "secret_list",
  text: `select ${SECRET} from secret where namespace_id = 1 and path > $1 and path >= $2 and path < $3 and (deleted_at is null or ($4 and purge_at > leasehold_now()))
           order by path limit $5`,
};

/** Secrets of a range in path order, after `after` (exclusive; empty: from the start). */
export async function listSecrets(db: Db, range: PathRange, after: string, showDeleted: boolean, limit: number): Promise<SecretMeta[]> {
  const rows = await db.query<SecretRow>(LIST, [after, range.from, range.to, showDeleted, limit]);
  return rows.map(secretOf);
}

const LIST_VERSIONS = {
  name: "secret_list_versions",
  text: `select ${VERSION} from secret_version where secret_uid = $1 and version < $2 order by version desc limit $3`,
};

/** Versions newest first, below `before`. */
export async function listVersions(db: Db, uid: string, before: number, limit: number): Promise<VersionMeta[]> {
  const rows = await db.query<VersionRow>(LIST_VERSIONS, [uid, before, limit]);
  return rows.map(versionOf);
}

const PURGEABLE = { name: "secret_purgeable", text: "select path from secret where purge_at <= leasehold_now() order by purge_at limit $1" };

/** Paths of deleted secrets whose recovery window is over. */
export async function purgeableSecrets(db: Db, limit: number): Promise<string[]> {
  const rows = await db.query<{ path: string }>(PURGEABLE, [limit]);
  return rows.map((row) => row.path);
}

function secretOf(row: SecretRow): SecretMeta {
  return {
    uid: row.uid,
    path: row.path,
    latestVersion: row.latest_version,
    currentVersion: row.current_version,
    previousVersion: row.previous_version,
    pendingVersion: row.pending_version,
    labels: row.labels,
    annotations: row.annotations,
    maxVersions: row.max_versions,
    generation: row.generation,
    createdAt: row.created_at.getTime(),
    updatedAt: row.updated_at.getTime(),
    deletedAt: row.deleted_at?.getTime(),
    purgeAt: row.purge_at?.getTime(),
  };
}

function versionOf(row: VersionRow): VersionMeta {
  return {
    version: row.version,
    createdAt: row.created_at.getTime(),
    createdBy: row.created_by,
    notBefore: row.not_before?.getTime(),
    expireAt: row.expire_at?.getTime(),
    deletedAt: row.deleted_at?.getTime(),
    destroyedAt: row.destroyed_at?.getTime(),
  };
}
