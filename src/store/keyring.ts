import type { Db } from "./db.ts";

interface SeedRow {
  readonly id: number;
  readonly provider: string;
  readonly kms_key_id: string;
  readonly wrapped: Buffer;
  readonly created_at: Date;
}

const LIST = { name: "seed_list", text: "select id, provider, kms_key_id, wrapped, created_at from keyring_seed where retired_at is null order by id" };
const INSERT = { name: "seed_insert", text: "insert into keyring_seed (id, provider, kms_key_id, wrapped) values ($1, $2, $3, $4) on conflict do nothing" };
const USES = {
  name: "seed_uses",
  text: `select key_id as id, count(*) as uses from (select key_id from secret_version where key_id is not null union all select key_id from target where key_id is not null
           union all select pending_key_id from target where pending_key_id is not null union all select key_id from lease where key_id is not null) used group by key_id`,
};

/** The wrapped seeds, as the keyring wants them (crypto/keyring.ts: SeedRecords). */
export function seedRecords(db: Db) {
  return {
    async list() {
      const rows = await db.query<SeedRow>(LIST);
      return rows.map((row) => ({
        id: row.id,
        provider: row.provider,
        kmsKeyId: row.kms_key_id,
        wrapped: row.wrapped as Uint8Array,
        createdAt: row.created_at.getTime(),
      }));
    },
    async insertIfAbsent(seed: { readonly id: number; readonly provider: string; readonly kmsKeyId: string; readonly wrapped: Uint8Array }) {
      await db.query(INSERT, [seed.id, seed.provider, seed.kmsKeyId, Buffer.from(seed.wrapped)]);
    },
  };
}

/** How many rows each seed still seals. */
export async function seedUses(db: Db): Promise<ReadonlyMap<number, number>> {
  const rows = await db.query<{ id: number; uses: number }>(USES);
  return new Map(rows.map((row) => [row.id, row.uses]));
}
