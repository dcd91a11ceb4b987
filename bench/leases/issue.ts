import { startChild } from "../child.ts";
import { postgresCpu } from "../cpu.ts";
import type { Bench, Result } from "../result.ts";
import { alterAndInsert, createEach } from "./floors.ts";
import { issueCall, type LeaseWorld, ROLES } from "./world.ts";

const LIVE = 20_000;
const SECONDS = 5;
const ONE_CALLER_ROUNDS = 400;
/** Pools emptied before, so that the code of a process that was started for this is compiled as that of a running broker is. */
const WARM_UP_POOLS = 3;

type Get = () => Promise<LeaseWorld>;

/** Each at 0 and at 20,000 live roles: the first value is the one with few, `at_20000` that with many. */
export function issueBenches(world: Get): Bench[] {
  return [
    { name: "issue_pool_p50", reach: "≤ 2.5 × one ALTER ROLE and one durable insert", run: async () => pooled(await world()) },
    { name: "issue_4096", reach: "≥ 0.75 × a fresh verifier and CREATE each", run: async () => standard(await world()) },
    { name: "issue_low_iterations", reach: "≥ 2,000/s on two cores", run: async () => low(await world()) },
  ];
}

/** Live leases of the low role, at least so many. */
export async function atLeast(world: LeaseWorld, count: number): Promise<void> {
  const { rows } = await world.sql.query<{ n: number }>("select count(*)::int as n from lease where state = 'ACTIVE'");
  if (rows[0]!.n < count) await world.issue(ROLES.low, count - rows[0]!.n);
}

export interface Run {
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
  /** Microseconds of CPU a call: the broker's, and every PostgreSQL process's. */
  readonly brokerUs: number;
  readonly postgresUs: number;
}

export async function call(
  world: LeaseWorld,
  what: { readonly address: string; readonly method: string; readonly requests: readonly string[] },
  how: { readonly seconds?: number; readonly calls?: number; readonly inFlight: number },
): Promise<Run> {
  const load = await startChild("load-child.ts", { args: [world.tls.ca, world.tls.certificate, world.tls.key] });
  try {
    const postgresBefore = postgresCpu(world.postgres);
    const before = (await world.broker.ask({})) as { cpu: number };
    const done = (await load.ask({ ...what, ...how })) as { calls: number; p50: number; p99: number; ms: number };
    const after = (await world.broker.ask({})) as { cpu: number };
    return {
      perSecond: (done.calls * 1000) / done.ms,
      p50: done.p50,
      p99: done.p99,
      brokerUs: (after.cpu - before.cpu) / done.calls,
      postgresUs: (postgresCpu(world.postgres) - postgresBefore) / done.calls,
    };
  } finally {
    await load.stop();
  }
}

async function pooled(world: LeaseWorld): Promise<Result> {
  const measure = async (): Promise<readonly [number, number, Run]> => {
    for (let i = 0; i < WARM_UP_POOLS; i++) {
      await filled(world);
      await call(world, issueCall(world, ROLES.pool), { calls: ONE_CALLER_ROUNDS, inFlight: 1 });
    }
    await filled(world);
    const floor = await alterAndInsert(world, ONE_CALLER_ROUNDS);
    const run = await call(world, issueCall(world, ROLES.pool), { calls: ONE_CALLER_ROUNDS, inFlight: 1 });
    return [run.p50, floor, run];
  };
  const [value, floor, few] = await measure();
  await atLeast(world, LIVE);
  const [many, manyFloor] = await measure();
  return { value, unit: "ms", floor, ratio: value / floor, detail: { at_20000: many, at_20000_floor: manyFloor, at_20000_ratio: many / manyFloor, ...few } };
}

/** Waits for a full pool. */
async function filled(world: LeaseWorld): Promise<void> {
  for (;;) {
    const { rows } = await world.sql.query<{ n: number }>("select count(*)::int as n from lease where state = 'READY'");
    if (rows[0]!.n >= 450) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function standard(world: LeaseWorld): Promise<Result> {
  await call(world, issueCall(world, ROLES.standard), { seconds: 2, inFlight: 64 });
  const floor = await createEach(world, SECONDS);
  const few = await call(world, issueCall(world, ROLES.standard), { seconds: SECONDS, inFlight: 64 });
  await atLeast(world, LIVE);
  const manyFloor = await createEach(world, SECONDS);
  const many = await call(world, issueCall(world, ROLES.standard), { seconds: SECONDS, inFlight: 64 });
  return {
    value: few.perSecond,
    unit: "1/s",
    floor: floor.perSecond,
    ratio: few.perSecond / floor.perSecond,
    detail: {
      at_20000: many.perSecond,
      at_20000_floor: manyFloor.perSecond,
      at_20000_ratio: many.perSecond / manyFloor.perSecond,
      floor_concurrency: floor.concurrency,
      ...few,
    },
  };
}

async function low(world: LeaseWorld): Promise<Result> {
  await call(world, issueCall(world, ROLES.low), { seconds: 2, inFlight: 128 });
  const few = await call(world, issueCall(world, ROLES.low), { seconds: SECONDS, inFlight: 128 });
  await atLeast(world, LIVE);
  const many = await call(world, issueCall(world, ROLES.low), { seconds: SECONDS, inFlight: 128 });
  return {
    value: few.perSecond,
    unit: "1/s",
    detail: { at_20000: many.perSecond, at_20000_broker_us: many.brokerUs, at_20000_postgres_us: many.postgresUs, ...few },
  };
}
