import { startChild } from "../child.ts";
import { postgresCpu } from "../cpu.ts";
import { LeaseService, RenewLeaseRequestSchema } from "../../src/gen/leasehold/v1/lease_service_pb.ts";
import { type Bench, median, type Result } from "../result.ts";
import { encode, pathOf } from "../wire.ts";
import { alterAndInsert, dropInBatches } from "./floors.ts";
import { atLeast, call, warmCaller } from "./issue.ts";
import { type LeaseWorld, ROLES, secretCall } from "./world.ts";

const FEW = 10_000;
const MANY = 20_000;
const STORM = Number(process.env["LEASEHOLD_BENCH_STORM"] ?? 100_000);
const LAG_LEASES = 10_000;
const LAG_PER_SECOND = 1000;
const RENEW_ROUNDS = 5;
const RENEW_CALLS = 300;
/** Until the code of a process that was started for this is compiled as that of a running broker is. */
const WARM_UP = 1000;

type Get = () => Promise<LeaseWorld>;

export function endBenches(world: Get): Bench[] {
  return [
    { name: "renew", reach: "≤ 2 × one ALTER ROLE and one durable write", run: async () => renew(await world()) },
    { name: "revoke_batched", reach: "≥ 0.35 × the target's drop function, ≥ 5,000/s", run: async () => revoke(await world()) },
    { name: "expiry_lag_p99", reach: "≤ 300 ms at 1,000 expirations/s", run: async () => lag(await world()) },
    { name: "expiry_storm_100k", reach: "≥ 0.35 × idle; under GetSecret ≥ 0.15 × with p99 ≤ 3 × + 5 ms", run: async () => storm(await world()) },
  ];
}

/** One caller, a lease of its own each time. */
async function renew(world: LeaseWorld): Promise<Result> {
  const measure = async (): Promise<readonly [number, number]> => {
    const { rows } = await world.sql.query<{ id: string }>("select id from lease where state = 'ACTIVE' and renewing_to is null limit $1", [
      RENEW_ROUNDS * RENEW_CALLS + WARM_UP,
    ]);
    const requests = rows.map(({ id }) => encode(RenewLeaseRequestSchema, { path: `leases/${id}`, increment: { seconds: 25n * 86_400n } }).toString("base64"));
    const what = { ...addressOf(world), method: pathOf(LeaseService.method.renewLease) };
    const caller = await warmCaller(world);
    await call(world, { ...what, requests: requests.slice(0, WARM_UP) }, { calls: WARM_UP, inFlight: 1 }, caller);
    const rounds: (readonly [value: number, floor: number])[] = [];
    for (let i = WARM_UP; i < requests.length; i += RENEW_CALLS) {
      const floor = await alterAndInsert(world, RENEW_CALLS);
      const run = await call(world, { ...what, requests: requests.slice(i, i + RENEW_CALLS) }, { calls: RENEW_CALLS, inFlight: 1 }, caller);
      rounds.push([run.p50, floor]);
    }
    await caller.stop();
    return [median(rounds.map(([value]) => value)), median(rounds.map(([, floor]) => floor))];
  };
  await atLeast(world, RENEW_ROUNDS * RENEW_CALLS + WARM_UP);
  const [value, floor] = await measure();
  await atLeast(world, MANY);
  const [many, manyFloor] = await measure();
  return { value, unit: "ms", floor, ratio: value / floor, detail: { at_20000: many, at_20000_floor: manyFloor, at_20000_ratio: many / manyFloor } };
}

/** A prefix of live leases by RevokeLeases, from the call until the last row says REVOKED. */
async function revoke(world: LeaseWorld): Promise<Result> {
  const measure = async (): Promise<number> => {
    const live = await liveOf(world, ROLES.low);
    const startedAt = performance.now();
    await world.admin.call(LeaseService.method.revokeLeases, { prefix: ROLES.low });
    await ended(world, ROLES.low);
    return (live * 1000) / (performance.now() - startedAt);
  };
  await atLeast(world, FEW);
  const floor = await dropInBatches(world, FEW);
  const few = await measure();
  await atLeast(world, MANY);
  const manyFloor = await dropInBatches(world, FEW);
  const many = await measure();
  return { value: few, unit: "1/s", floor, ratio: few / floor, detail: { at_20000: many, at_20000_floor: manyFloor, at_20000_ratio: many / manyFloor } };
}

/** Leases that expire a millisecond after one another. The lag is that of the login, seen on the target every 10 ms: how long it could still be used; beside it that of the row (REVOKED). */
async function lag(world: LeaseWorld): Promise<Result> {
  await lowAtLeast(world, LAG_LEASES);
  await world.sql.query("create table if not exists bench_lag (username text primary key, expire_at timestamptz, off_at timestamptz)");
  await world.sql.query("truncate bench_lag");
  const soon = 8000;
  await expireApart(world, LAG_LEASES, soon, 1000 / LAG_PER_SECOND);
  await world.sql.query("insert into bench_lag select username, expire_at, null from lease where state = 'ACTIVE' and expire_at < now() + interval '1 hour'");
  const endAt = performance.now() + soon + (LAG_LEASES / LAG_PER_SECOND) * 1000 + 3000;
  while (performance.now() < endAt) {
    await world.sql.query(
      "update bench_lag b set off_at = clock_timestamp() where off_at is null and expire_at <= clock_timestamp() and not exists (select from pg_roles r where r.rolname = b.username and r.rolcanlogin)",
    );
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const percentiles = (difference: string, from: string) =>
    world.sql.query<{ p50: number; p99: number; n: number }>(
      `select percentile_cont(0.5) within group (order by ms) as p50, percentile_cont(0.99) within group (order by ms) as p99, count(*)::int as n from (select extract(epoch from ${difference})::float8 * 1000 as ms from ${from}) x`,
    );
  const login = (await percentiles("off_at - expire_at", "bench_lag where off_at is not null")).rows[0]!;
  const row = (await percentiles("l.ended_at - l.expire_at", "bench_lag b join lease l using (username) where l.state = 'REVOKED'")).rows[0]!;
  return { value: login.p99, unit: "ms", detail: { p50: login.p50, seen: login.n, revoked_p50: row.p50, revoked_p99: row.p99, revoked: row.n } };
}

/** So many leases due within one second; until the last one's row says REVOKED. */
async function storm(world: LeaseWorld): Promise<Result> {
  const measure = async (begun?: () => void): Promise<{ readonly perSecond: number; readonly postgresUs: number; readonly brokerUs: number }> => {
    await lowAtLeast(world, STORM);
    const soon = 15_000;
    await expireApart(world, STORM, soon, 1000 / STORM);
    await new Promise((resolve) => setTimeout(resolve, soon));
    begun?.();
    const [postgresBefore, before] = [postgresCpu(world.postgres), (await world.broker.ask({})) as { cpu: number }];
    const startedAt = performance.now();
    await ended(world, ROLES.low);
    const ms = performance.now() - startedAt;
    const after = (await world.broker.ask({})) as { cpu: number };
    return { perSecond: (STORM * 1000) / ms, postgresUs: (postgresCpu(world.postgres) - postgresBefore) / STORM, brokerUs: (after.cpu - before.cpu) / STORM };
  };
  const floor = await dropInBatches(world, FEW);
  const idle = await measure();
  const secret = secretCall(world);
  const quiet = await call(world, secret, { seconds: 5, inFlight: READERS });
  const load = await startChild("load-child.ts", { args: [world.tls.ca, world.tls.certificate, world.tls.key] });
  const reading: { p50: number; p99: number }[] = [];
  let over = false;
  let reader: Promise<void> | undefined;
  const busy = await measure(() => {
    reader = (async () => {
      while (!over) reading.push((await load.ask({ ...secret, seconds: 2, inFlight: READERS })) as { p50: number; p99: number });
    })();
  });
  over = true;
  await reader;
  await load.stop();
  const p99s = reading.map((round) => round.p99);
  return {
    value: idle.perSecond,
    unit: "1/s",
    floor,
    ratio: idle.perSecond / floor,
    detail: {
      broker_us: idle.brokerUs,
      postgres_us: idle.postgresUs,
      under_reads: busy.perSecond,
      under_reads_ratio: busy.perSecond / floor,
      reads_quiet_p99: quiet.p99,
      reads_storm_p50: median(reading.map((round) => round.p50)),
      reads_storm_p99: median(p99s),
      reads_storm_p99_worst: Math.max(...p99s),
      reads_storm_reach: 3 * quiet.p99 + 5,
    },
  };
}

/** Calls of GetSecret in flight beside the storm. */
const READERS = 4;

/** The leases of the low role expire from `fromMs` from now on, `apartMs` after one another; the schedule is told by the row, as always. */
async function expireApart(world: LeaseWorld, count: number, fromMs: number, apartMs: number): Promise<void> {
  await world.sql.query(
    `with numbered as (select id, row_number() over () as n from lease where state = 'ACTIVE' and path = $1 limit $2)
     update lease l set expire_at = leasehold_now() + ($3::float8 + n * $4::float8) * interval '1 ms', next_action_at = leasehold_now() + ($3::float8 + n * $4::float8) * interval '1 ms'
       from numbered x where x.id = l.id`,
    [ROLES.low, count, fromMs, apartMs],
  );
}

/** Live leases of the low role, at least so many. */
async function lowAtLeast(world: LeaseWorld, count: number): Promise<void> {
  const live = await liveOf(world, ROLES.low);
  if (live < count) await world.issue(ROLES.low, count - live);
}

async function liveOf(world: LeaseWorld, role: string): Promise<number> {
  const { rows } = await world.sql.query<{ n: number }>("select count(*)::int as n from lease where path = $1 and live and not shelf", [role]);
  return rows[0]!.n;
}

/** Until no live lease of the role is left that should have ended. */
async function ended(world: LeaseWorld, role: string): Promise<void> {
  for (;;) {
    const { rows } = await world.sql.query<{ left: boolean }>(
      `select exists (select from operation where state = 'RUNNING')
         or exists (select from lease where path = $1 and live and not shelf and (state = 'REVOKING' or expire_at < leasehold_now())) as left`,
      [role],
    );
    if (!rows[0]!.left) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function addressOf(world: LeaseWorld): { readonly address: string } {
  return { address: (world.broker.ready as { address: string }).address };
}
