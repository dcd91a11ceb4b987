import { randomUUID } from "node:crypto";
import { LeaseService, ListLeasesRequestSchema, RenewLeaseRequestSchema, RevokeLeaseRequestSchema } from "../../src/gen/leasehold/v1/lease_service_pb.ts";
import type { Bench, Result } from "../result.ts";
import { encode, pathOf } from "../wire.ts";
import { atLeast, call } from "./issue.ts";
import { type LeaseWorld, ROLES } from "./world.ts";

const LEASES = Number(process.env["LEASEHOLD_BENCH_MILLION"] ?? 1_000_000);
const REAL = LEASES / 10;
const ROUNDS = 200;
/** What the due index holds is measured with so many leases that end within its horizon. */
const HELD = 10_000;

export function millionBench(world: () => Promise<LeaseWorld>): Bench {
  return {
    name: "million_leases",
    reach: "start + 1 s, memory + 50 MB, Redis ≤ 160 bytes a held lease; list, renew, revoke ≤ 1.5 × an empty ledger",
    run: async () => million(await world()),
  };
}

interface Look {
  readonly startMs: number;
  readonly rssMb: number;
  readonly list: number;
  readonly renew: number;
  readonly revoke: number;
}

/** 1,000,000 live leases, every tenth of them a real login; the others are rows as an issue leaves them, put there by SQL. The empty ledger comes first, with a few hundred leases to work on. */
async function million(world: LeaseWorld): Promise<Result> {
  await atLeast(world, 4 * ROUNDS);
  const empty = await look(world);
  await atLeast(world, REAL);
  await world.sql.query(
    `insert into lease (id, namespace_id, path, target_uid, principal, state, username, login_oid, system_identifier, connection, owned_objects, sealed, key_id, default_ttl_ms, issued_at, expire_at, renew_at,
         max_expire_at, deadline_at, next_action_at, role_uid, role_generation, trace_id)
       select gen_random_uuid(), 1, path, target_uid, 'spiffe://bench.test/ns/' || i % 1000 || '/sa/app', 'ACTIVE', 'lh_synthetic_' || i, login_oid, system_identifier, connection, owned_objects, sealed, key_id,
         default_ttl_ms, issued_at - i * interval '1 ms', expire_at + i * interval '1 ms', renew_at, max_expire_at + i * interval '1 ms', deadline_at, expire_at + i * interval '1 ms', role_uid, role_generation, trace_id
       from (select * from lease where state = 'ACTIVE' and path = $2 limit 1) l, generate_series(1, $1::integer) i`,
    [LEASES - REAL, ROLES.low],
  );
  await world.sql.query("vacuum analyze lease");
  await world.sql.query("vacuum analyze lease_due");
  const full = await look(world);
  const redis = await redisBytes(world);
  return {
    value: full.startMs - empty.startMs,
    unit: "ms",
    detail: {
      start_empty_ms: empty.startMs,
      start_full_ms: full.startMs,
      memory_more_mb: full.rssMb - empty.rssMb,
      redis_bytes_a_lease: redis,
      list_ratio: full.list / empty.list,
      renew_ratio: full.renew / empty.renew,
      revoke_ratio: full.revoke / empty.revoke,
      list_ms: full.list,
      renew_ms: full.renew,
      revoke_ms: full.revoke,
    },
  };
}

async function look(world: LeaseWorld): Promise<Look> {
  const startedAt = performance.now();
  await world.restart();
  const startMs = performance.now() - startedAt;
  const address = (world.broker.ready as { address: string }).address;
  const { rows } = await world.sql.query<{ id: string }>(
    "select id from lease where state = 'ACTIVE' and path = $1 and username not like 'lh_synthetic%' and renewing_to is null limit $2",
    [ROLES.low, 2 * ROUNDS],
  );
  const paths = rows.map(({ id }) => `leases/${id}`);
  const list = [encode(ListLeasesRequestSchema, { prefix: ROLES.low, pageSize: 100 }).toString("base64")];
  const listed = await call(world, { address, method: pathOf(LeaseService.method.listLeases), requests: list }, { calls: ROUNDS, inFlight: 1 });
  const renew = paths
    .slice(0, ROUNDS)
    .map((path) => encode(RenewLeaseRequestSchema, { path, increment: { seconds: 25n * 86_400n }, requestId: randomUUID() }).toString("base64"));
  const renewed = await call(world, { address, method: pathOf(LeaseService.method.renewLease), requests: renew }, { calls: ROUNDS, inFlight: 1 });
  const revoke = paths.slice(ROUNDS).map((path) => encode(RevokeLeaseRequestSchema, { path, requestId: randomUUID() }).toString("base64"));
  // Most of a revocation is the wait for sessions that may still appear: many at a time, so that the rest shows.
  const revoked = await call(world, { address, method: pathOf(LeaseService.method.revokeLease), requests: revoke }, { calls: ROUNDS, inFlight: 50 });
  const { rss } = (await world.broker.ask({})) as { rss: number };
  return { startMs, rssMb: rss / 1e6, list: listed.p50, renew: renewed.p50, revoke: revoked.p50 };
}

/** Redis's own memory, before and after it holds leases that end within a minute. */
async function redisBytes(world: LeaseWorld): Promise<number> {
  const used = async (): Promise<number> => Number(/used_memory:([0-9]+)/.exec(await world.redis.info("memory"))![1]);
  const held = async (): Promise<number> => {
    const keys = await world.redis.keys("*:due");
    return keys.length === 0 ? 0 : world.redis.zcard(keys[0]!);
  };
  const [before, had] = [await used(), await held()];
  await world.sql.query(
    `update lease set next_action_at = leasehold_now() + interval '50 s', expire_at = leasehold_now() + interval '50 s' where id in (select id from lease where username like 'lh_synthetic%' limit $1)`,
    [HELD],
  );
  for (let i = 0; i < 300 && (await held()) < HELD; i++) await new Promise((resolve) => setTimeout(resolve, 100));
  const bytes = ((await used()) - before) / ((await held()) - had);
  await world.sql.query(
    "update lease set next_action_at = null, expire_at = expire_at + interval '30 days' where username like 'lh_synthetic%' and expire_at < leasehold_now() + interval '1 hour'",
  );
  return bytes;
}
