import { randomBytes, randomUUID } from "node:crypto";
import type pg from "pg";
import { Sensitive } from "../../src/base/sensitive.ts";
import { brokerVerifier } from "../../src/engines/registry.ts";
import { GROUP, type LeaseWorld } from "./world.ts";

/*
 * What the same PostgreSQL does without a broker, by plain `pg`. Logins are made, changed and dropped as the bootstrapped login, by its functions: it has no other way.
 */
const VERIFIER_TAIL = `$${Buffer.alloc(32).toString("base64")}:${Buffer.alloc(32).toString("base64")}`;
const CREATE = "select count(*) from leasehold.create_logins($1, $2::text[], $3::text[], $4::bigint[], $5::text[], null, $6::bigint, true)";
const HOUR = 3_600_000;

export function floorName(world: LeaseWorld): string {
  return `lh_${world.instance}_floor_${randomUUID().replaceAll("-", "").slice(0, 16)}`;
}

export async function createLogins(client: pg.Client, world: LeaseWorld, names: readonly string[]): Promise<void> {
  const verifiers = names.map(() => `SCRAM-SHA-256$1:${randomBytes(16).toString("base64")}${VERIFIER_TAIL}`);
  await client.query({ name: "create", text: CREATE, values: [world.instance, names, verifiers, names.map(() => HOUR), [GROUP], Date.now() + HOUR] });
}

/** One `ALTER ROLE` (by its function) and one durable insert, one after the other, by one caller: the median in milliseconds. */
export async function alterAndInsert(world: LeaseWorld, rounds: number): Promise<number> {
  const [target, store] = [await world.target(), await world.store()];
  const names = Array.from({ length: 50 }, () => floorName(world));
  await createLogins(target, world, names);
  await store.query("create table if not exists floor_row (id uuid primary key, path text, principal text, at timestamptz, document jsonb)");
  const times: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const startedAt = performance.now();
    await target.query({
      name: "alter",
      text: "select login from leasehold.renew_logins($1, $2::text[], $3::oid[], $4::bigint[], null)",
      values: [world.instance, [names[i % names.length]], [null], [HOUR + i]],
    });
    await store.query({
      name: "insert",
      text: "insert into floor_row values ($1, $2, $3, now(), $4)",
      values: [randomUUID(), "credentials/postgres/bench/low", "spiffe://bench.test/app", JSON.stringify({ username: names[0], host: "127.0.0.1" })],
    });
    times.push(performance.now() - startedAt);
  }
  await dropLogins(target, world, names);
  await Promise.all([target.end(), store.end()]);
  times.sort((a, b) => a - b);
  return times[times.length >> 1]!;
}

/** A fresh verifier of 4096 iterations and a creation each, at the best of some concurrencies: creations a second. */
export async function createEach(world: LeaseWorld, seconds: number): Promise<{ readonly perSecond: number; readonly concurrency: number }> {
  let best = { perSecond: 0, concurrency: 0 };
  for (const concurrency of [2, 4, 8, 16]) {
    const clients = await Promise.all(Array.from({ length: concurrency }, () => world.target()));
    const names: string[] = [];
    const startedAt = performance.now();
    await Promise.all(
      clients.map(async (client) => {
        while (performance.now() - startedAt < seconds * 1000) {
          const name = floorName(world);
          const verifier = await brokerVerifier(Sensitive.text(randomBytes(24).toString("hex")));
          await client.query({ name: "create", text: CREATE, values: [world.instance, [name], [verifier], [HOUR], [GROUP], Date.now() + HOUR] });
          names.push(name);
        }
      }),
    );
    const perSecond = (names.length * 1000) / (performance.now() - startedAt);
    if (perSecond > best.perSecond) best = { perSecond, concurrency };
    await dropLogins(clients[0]!, world, names);
    await Promise.all(clients.map((client) => client.end()));
  }
  return best;
}

const BATCH = 500;

/** Disabling, two scans for sessions, the drop, another scan, in batches of 500 over two connections, without the wait between the scans: logins a second. */
export async function dropInBatches(world: LeaseWorld, count: number): Promise<number> {
  const clients = [await world.target(), await world.target()];
  const names = Array.from({ length: count }, () => floorName(world));
  for (let i = 0; i < names.length; i += BATCH) await createLogins(clients[0]!, world, names.slice(i, i + BATCH));
  const batches = Array.from({ length: Math.ceil(count / BATCH) }, (_, i) => names.slice(i * BATCH, (i + 1) * BATCH));
  const startedAt = performance.now();
  await Promise.all(
    clients.map(async (client) => {
      for (let batch = batches.pop(); batch !== undefined; batch = batches.pop()) await dropLogins(client, world, batch);
    }),
  );
  const perSecond = (count * 1000) / (performance.now() - startedAt);
  await Promise.all(clients.map((client) => client.end()));
  return perSecond;
}

async function dropLogins(client: pg.Client, world: LeaseWorld, names: readonly string[]): Promise<void> {
  for (let i = 0; i < names.length; i += BATCH) {
    const some = names.slice(i, i + BATCH);
    const none = some.map(() => null);
    const { rows } = await client.query<{ role_oid: string }>({
      name: "disable",
      text: "select role_oid::text from leasehold.disable_logins($1, $2::text[], $3::oid[], null)",
      values: [world.instance, some, none],
    });
    const oids = rows.map((row) => row.role_oid);
    const scan = { name: "scan", text: "select leasehold.terminate_sessions($1, $2::oid[])", values: [world.instance, oids] };
    await client.query(scan);
    await client.query(scan);
    await client.query({
      name: "drop",
      text: "select count(*) from leasehold.drop_logins($1, $2::text[], $3::oid[], null)",
      values: [world.instance, some, oids],
    });
    await client.query(scan);
  }
}
