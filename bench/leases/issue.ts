import { type Child, startChild } from "../child.ts";
import { postgresCpu } from "../cpu.ts";
import { type Bench, median, type Result } from "../result.ts";
import { alterAndInsert, createEach } from "./floors.ts";
import { issueCall, type LeaseWorld, POOL_SIZE, ROLES, secretCall } from "./world.ts";

const LIVE = 20_000;
const SECONDS = 5;
const ONE_CALLER_ROUNDS = 400;
/** Pools emptied before, so that the code of a process that was started for this is compiled as that of a running broker is. */
const WARM_UP_POOLS = 8;

const WARM_UP_CALLS = 5000;
/** Fewer than a quarter of the pool: the others are taken while it is being filled again, by the same two cores. */
const CALM_CALLS = 120;
const CALM_ROUNDS = 5;

/** As many as fill the batches: with 128 a tenth less. */
const LOW_IN_FLIGHT = 512;
/** Until a broker that was started for this takes as much CPU a call as one that has issued for a while: 0.42 ms at first, 0.29 then. */
const LOW_WARM_UP_SECONDS = 10;

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
  caller?: Child,
): Promise<Run> {
  const load = caller ?? (await startCaller(world));
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
    if (caller === undefined) await load.stop();
  }
}

/** A process that calls. */
function startCaller({ tls }: LeaseWorld): Promise<Child> {
  return startChild("load-child.ts", { args: [tls.ca, tls.certificate, tls.key] });
}

/** One that has called for a while, and a broker that has served it: what both share with every call is compiled. */
export async function warmCaller(world: LeaseWorld): Promise<Child> {
  const caller = await startCaller(world);
  await call(world, secretCall(world), { calls: WARM_UP_CALLS, inFlight: 1 }, caller);
  return caller;
}

async function pooled(world: LeaseWorld): Promise<Result> {
  const measure = async (): Promise<{ readonly calm: number; readonly filling: number; readonly floor: number }> => {
    const caller = await warmCaller(world);
    const take = async (calls: number): Promise<number> => {
      await filled(world);
      return (await call(world, issueCall(world, ROLES.pool), { calls, inFlight: 1 }, caller)).p50;
    };
    let filling = 0;
    for (let i = 0; i < WARM_UP_POOLS; i++) filling = await take(ONE_CALLER_ROUNDS);
    const rounds: (readonly [calm: number, floor: number])[] = [];
    for (let i = 0; i < CALM_ROUNDS; i++) rounds.push([await take(CALM_CALLS), await alterAndInsert(world, ONE_CALLER_ROUNDS)]);
    await caller.stop();
    return { calm: median(rounds.map(([calm]) => calm)), filling, floor: median(rounds.map(([, floor]) => floor)) };
  };
  const few = await measure();
  await atLeast(world, LIVE);
  const many = await measure();
  return {
    value: few.calm,
    unit: "ms",
    floor: few.floor,
    ratio: few.calm / few.floor,
    detail: {
      while_filling: few.filling,
      at_20000: many.calm,
      at_20000_floor: many.floor,
      at_20000_ratio: many.calm / many.floor,
      at_20000_while_filling: many.filling,
    },
  };
}

/** Waits until the pool is full, what was drawn ahead counted in, and nothing is being made for it. */
async function filled(world: LeaseWorld): Promise<void> {
  for (;;) {
    const { rows } = await world.sql.query<{ there: number; making: number }>(
      "select count(*) filter (where login_oid is not null)::int as there, count(*) filter (where login_oid is null)::int as making from lease where shelf",
    );
    if (rows[0]!.there >= POOL_SIZE && rows[0]!.making === 0) return;
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
  await call(world, issueCall(world, ROLES.low), { seconds: LOW_WARM_UP_SECONDS, inFlight: LOW_IN_FLIGHT });
  const few = await call(world, issueCall(world, ROLES.low), { seconds: SECONDS, inFlight: LOW_IN_FLIGHT });
  await atLeast(world, LIVE);
  const many = await call(world, issueCall(world, ROLES.low), { seconds: SECONDS, inFlight: LOW_IN_FLIGHT });
  return {
    value: few.perSecond,
    unit: "1/s",
    detail: { at_20000: many.perSecond, at_20000_broker_us: many.brokerUs, at_20000_postgres_us: many.postgresUs, ...few },
  };
}
