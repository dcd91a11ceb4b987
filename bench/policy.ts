import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { PolicySnapshot } from "../src/policy/snapshot.ts";
import { createPolicyStore, type PolicyStore } from "../src/policy/store.ts";
import { type Bench as Rules, makeBench, SHAPES } from "./policy-shapes.ts";
import type { Bench, Result } from "./result.ts";

const RULES = 100_000;
const CALLERS = 10_000;
/** Requests in turn, equally many at 100 rules and at 100,000: the floor differs in the number of rules alone. */
const REQUESTS = 100;
const DECISIONS = 200_000;
const ROUNDS = 9;

export const policyBenches: readonly Bench[] = [
  { name: "policy_decision_100k", reach: "≤ 1 µs, ≤ 1.2 × the same at 100 rules", run: decisions },
  { name: "policy_change_stall", reach: "≤ 20 ms", run: stalls },
];

/**
 * The worst shape: microseconds for one decision at 100,000 rules (the fastest of nine rounds, taken in turn with the floor's), next to
 * the same at 100. `spread` draws from all rules and callers instead, in one round: what missing the processor's caches costs.
 */
async function decisions(): Promise<Result> {
  const detail: Record<string, { us: number; floor: number; ratio: number; spread: number }> = {};
  for (const shape of SHAPES) {
    const large = await load(makeBench(shape, RULES, CALLERS));
    const small = await load(makeBench(shape, 100, 100));
    const all = time(large, RULES);
    const us: number[] = [];
    const floor: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      us.push(time(large, REQUESTS));
      floor.push(time(small, REQUESTS));
    }
    detail[shape] = { us: Math.min(...us), floor: Math.min(...floor), ratio: Math.min(...us) / Math.min(...floor), spread: all };
  }
  const worst = Object.values(detail).reduce((a, b) => (b.us > a.us ? b : a));
  const ratio = Math.max(...Object.values(detail).map((each) => each.ratio));
  return { value: worst.us, unit: "us", floor: worst.floor, ratio, detail };
}

/** One changed policy, and the first decision of each of 10,000 callers after it, while a timer of zero watches the event loop. */
async function stalls(): Promise<Result> {
  const detail: Record<string, Longest & { applied: number }> = {};
  for (const shape of SHAPES) {
    const loaded = await load(makeBench(shape, RULES, CALLERS));
    for (const caller of loaded.bench.principals) loaded.snapshot.decide(caller, "read", loaded.bench.paths[0]!);
    settle();
    const longest: Longest = { cpu: 0, wall: 0 };
    let applied = 0;
    for (let round = 0; round < 5; round++) {
      const put = [changed(loaded.bench, round)];
      const watch = watchLoop();
      const start = performance.now();
      await loaded.store.apply({ revision: round + 2, put });
      applied = Math.max(applied, performance.now() - start);
      await decideAll(loaded.store, loaded.bench);
      const { cpu, wall } = watch();
      longest.cpu = Math.max(longest.cpu, cpu);
      longest.wall = Math.max(longest.wall, wall);
    }
    detail[shape] = { ...longest, applied };
  }
  return { value: Math.max(...Object.values(detail).map((each) => each.cpu)), unit: "ms", detail };
}

function changed(bench: Rules, round: number) {
  const document = bench.documents[round]!;
  return { ...document, rules: document.rules.map((rule) => ({ ...rule, deny: ["destroy"] as const })) };
}

/** Calls come one by one, each in its turn of the loop. */
async function decideAll(store: PolicyStore, bench: Rules): Promise<void> {
  for (let i = 0; i < CALLERS; i++) {
    store.current.decide(bench.principals[i]!, "read", bench.paths[i]!);
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

/** Clears the young generation of what loading left there: its collection is not the change's. Nothing is collected by hand afterwards. */
function settle(): void {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  if (typeof collect === "function") collect();
}

interface Longest {
  /** Milliseconds of this thread's own CPU time: what the block would be on a machine of its own. */
  cpu: number;
  /** Milliseconds on the clock, with whatever else ran on the machine meanwhile. */
  wall: number;
}

/** Answers the longest time between two turns of the event loop when called. */
function watchLoop(): () => Longest {
  const longest: Longest = { cpu: 0, wall: 0 };
  let wall = performance.now();
  let cpu = threadMs();
  let running = true;
  const look = (): void => {
    const [nowWall, nowCpu] = [performance.now(), threadMs()];
    longest.wall = Math.max(longest.wall, nowWall - wall);
    longest.cpu = Math.max(longest.cpu, nowCpu - cpu);
    [wall, cpu] = [nowWall, nowCpu];
    if (running) setImmediate(look);
  };
  setImmediate(look);
  return () => {
    running = false;
    look();
    return longest;
  };
}

function threadMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

interface Loaded {
  readonly bench: Rules;
  readonly store: PolicyStore;
  readonly snapshot: PolicySnapshot;
}

async function load(bench: Rules): Promise<Loaded> {
  const store = createPolicyStore();
  await store.apply({ revision: 1, put: bench.documents });
  for (const caller of bench.principals) store.current.decide(caller, "read", bench.paths[0]!);
  // Behind the merges that the first decisions asked for.
  const snapshot = await store.apply({ revision: 1 });
  return { bench, store, snapshot };
}

/** Microseconds of this thread for one decision, over `requests` requests that are spread evenly over the rules. */
function time({ bench, snapshot }: Loaded, requests: number): number {
  const step = bench.paths.length / requests;
  const asked = Array.from({ length: requests }, (_, i) => {
    const at = Math.floor(i * step);
    return { principal: bench.principals[at % bench.principals.length]!, path: bench.paths[at]! };
  });
  let allowed = 0;
  const pass = (count: number): void => {
    for (let i = 0; i < count; i++) {
      const { principal, path } = asked[i % requests]!;
      if (snapshot.decide(principal, "read", path) === "allow") allowed++;
    }
  };
  pass(DECISIONS / 10);
  const start = threadMs();
  pass(DECISIONS);
  const us = ((threadMs() - start) * 1000) / DECISIONS;
  if (allowed === 0) throw new Error("the bench allows nothing");
  return us;
}
