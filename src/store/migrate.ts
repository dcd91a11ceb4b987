import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { LeaseholdError } from "../base/errors.ts";
import { storeError } from "./sqlstate.ts";

interface Migration {
  readonly id: number;
  readonly name: string;
  readonly sql: string;
  /** The file says `-- breaking` in its first line: an older binary must not run on what it leaves. */
  readonly breaking: boolean;
}

const FOLDER = fileURLToPath(new URL("./migrations/", import.meta.url));
const LOCK = 7164100;

function migrations(): Migration[] {
  return readdirSync(FOLDER)
    .filter((file) => file.endsWith(".sql"))
    .sort()
    .map((file) => {
      const sql = readFileSync(FOLDER + file, "utf8");
      return { id: Number(file.slice(0, 4)), name: file.slice(5, -4), sql, breaking: /^-- breaking\b/.test(sql) };
    });
}

/**
 * Brings the schema up to this binary's. Each file is one transaction that inserts its id first, under a transaction-level advisory lock: of two
 * starting replicas one does the work and the other finds it done. Answers the names applied. Refuses (STORE_UNAVAILABLE) a schema that a
 * newer binary made breaking for us. @param check only say what would be done.
 */
export async function migrate(config: pg.ClientConfig, options: { readonly check?: boolean } = {}): Promise<string[]> {
  const client = new pg.Client({ ...config, statement_timeout: 0, lock_timeout: 60_000 });
  const done: string[] = [];
  try {
    await client.connect();
    if (!options.check) {
      await inTransaction(client, () =>
        client.query(
          "create table if not exists schema_migration (id integer primary key, name text not null, breaking boolean not null, applied_at timestamptz not null default clock_timestamp())",
        ),
      );
    }
    const known = migrations();
    await refuseNewer(client, known);
    for (const migration of known) {
      if (await isApplied(client, migration.id)) continue;
      if (!options.check) {
        const applied = await inTransaction(client, () => apply(client, migration));
        if (!applied) continue;
      }
      done.push(migration.name);
    }
    return done;
  } catch (error) {
    throw storeError(error);
  } finally {
    await client.end().catch(() => {});
  }
}

async function apply(client: pg.Client, migration: Migration): Promise<boolean> {
  const inserted = await client.query("insert into schema_migration (id, name, breaking) values ($1, $2, $3) on conflict do nothing", [
    migration.id,
    migration.name,
    migration.breaking,
  ]);
  if (inserted.rowCount === 0) return false;
  await client.query(migration.sql);
  return true;
}

async function isApplied(client: pg.Client, id: number): Promise<boolean> {
  const exists = await client.query<{ there: boolean }>("select to_regclass('schema_migration') is not null as there");
  if (!exists.rows[0]!.there) return false;
  const found = await client.query("select from schema_migration where id = $1", [id]);
  return found.rowCount === 1;
}

async function refuseNewer(client: pg.Client, known: readonly Migration[]): Promise<void> {
  const exists = await client.query<{ there: boolean }>("select to_regclass('schema_migration') is not null as there");
  if (!exists.rows[0]!.there) return;
  const newest = known.at(-1)!.id;
  const newer = await client.query<{ name: string }>("select name from schema_migration where id > $1 and breaking order by id limit 1", [newest]);
  if (newer.rows[0] !== undefined)
    throw new LeaseholdError("STORE_UNAVAILABLE", `the database was migrated by a newer leasehold (${newer.rows[0].name}); this version must not run on it`);
}

async function inTransaction<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query("begin");
  try {
    await client.query("select pg_advisory_xact_lock($1)", [LOCK]);
    const result = await work();
    const commit = await client.query("commit");
    if (commit.command !== "COMMIT") throw new LeaseholdError("INTERNAL", "a migration was rolled back");
    return result;
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  }
}
