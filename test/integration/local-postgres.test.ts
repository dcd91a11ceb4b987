import { expect, test } from "vitest";
import pg from "pg";
import { freshCluster, freshDatabase } from "../support/postgres.ts";

test("a database of the run is the owner's, migrated, and no superuser's", async () => {
  const db = await freshDatabase();
  const client = new pg.Client({ connectionString: db.url });
  await client.connect();
  const { rows } = await client.query("select current_user, (select rolsuper from pg_roles where rolname = current_user) as super, to_regclass('schema_migration') is not null as migrated");
  expect(rows).toEqual([{ current_user: "leasehold", super: false, migrated: true }]);
  await client.end();
  await db.drop();
});

test("a cluster that was killed comes back with its data", async () => {
  const cluster = await freshCluster();
  await cluster.query("create table kept (id int)");
  await cluster.kill();
  await cluster.start();
  expect(await cluster.query("select count(*)::int as n from kept")).toEqual([{ n: 0 }]);
  await cluster.stop();
});
