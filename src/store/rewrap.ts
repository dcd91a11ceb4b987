import type { Db } from "./db.ts";

/** A sealed row, whatever its table, with what its ciphertext is bound to. */
export interface SealedRow {
  /** `candidate`: the password that the broker's login on a target is being given. */
  readonly kind: "secret" | "target" | "lease" | "candidate";
  readonly uid: string;
  readonly version: number;
  readonly sealed: Uint8Array;
}

const SOURCES = `
  select 'secret' as kind, secret_uid as uid, version, sealed from secret_version where key_id < $1
  union all select 'target', uid, 0, sealed_password from target where key_id < $1
  union all select 'candidate', uid, 0, pending_password from target where pending_key_id < $1
  union all select 'lease', id, 0, sealed from lease where key_id < $1`;
const OLD = {
  name: "rewrap_old",
  text: `select * from (${SOURCES}) old where (kind, uid, version) > ($3, $4::uuid, $5::bigint) order by kind, uid, version limit $2`,
};
const NO_ID = "00000000-0000-0000-0000-000000000000";
const COUNT = { name: "rewrap_count", text: `select count(*) as rows from (${SOURCES}) old` };
const REPLACE = {
  secret: { name: "rewrap_secret", text: "update secret_version set sealed = $4, key_id = $5 where secret_uid = $1 and version = $2 and sealed = $3" },
  target: { name: "rewrap_target", text: "update target set sealed_password = $4, key_id = $5 where uid = $1 and $2::bigint = 0 and sealed_password = $3" },
  candidate: {
    name: "rewrap_candidate",
    text: "update target set pending_password = $4, pending_key_id = $5 where uid = $1 and $2::bigint = 0 and pending_password = $3",
  },
  lease: { name: "rewrap_lease", text: "update lease set sealed = $4, key_id = $5 where id = $1 and $2::bigint = 0 and sealed = $3" },
};

/** Where a rewrap has come to: the last row it looked at. */
export type RewrapCursor = Pick<SealedRow, "kind" | "uid" | "version">;

/** Some rows that are sealed with an older seed than `keyId`, after the cursor. */
export function oldSeals(db: Db, keyId: number, after: RewrapCursor | undefined, limit: number): Promise<SealedRow[]> {
  return db.query<SealedRow>(OLD, [keyId, limit, after?.kind ?? "", after?.uid ?? NO_ID, after?.version ?? 0]);
}

export async function countOldSeals(db: Db, keyId: number): Promise<number> {
  const [row] = await db.query<{ rows: number }>(COUNT, [keyId]);
  return row!.rows;
}

/** Compare-and-set on the sealed bytes themselves: a row that changed meanwhile stays as it is. */
export async function replaceSeal(db: Db, row: SealedRow, sealed: Uint8Array, keyId: number): Promise<void> {
  await db.query(REPLACE[row.kind], [row.uid, row.version, Buffer.from(row.sealed), Buffer.from(sealed), keyId]);
}
