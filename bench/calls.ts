import { type Child, startChild } from "./child.ts";
import { startCollector } from "./collector.ts";
import { postgresCpu } from "./cpu.ts";
import { type Bench, median, type Result } from "./result.ts";
import { type Calls, makeWorld, type World } from "./world.ts";

const IN_FLIGHT = 64;
const WARM_SECONDS = 3;
const ROUND_SECONDS = 2;
const ROUNDS = 7;

export interface CallOptions {
  /** Folder for CPU profiles of the servers. */
  readonly profile: string | undefined;
}

interface Measured {
  /** Microseconds of the server's CPU for one call. */
  readonly us: number;
  readonly postgres: number;
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
}

/** The benches of calls. They share one world, made by the first that runs; `close` ends it. */
export function callBenches(options: CallOptions): { readonly benches: readonly Bench[]; close(): Promise<void> } {
  let made: Promise<World> | undefined;
  const world = (): Promise<World> => (made ??= makeWorld());
  const benches: Bench[] = [
    { name: "get_secret", reach: "≤ 1.6 × floor, ≤ 40 µs of PostgreSQL", run: async () => getSecret(await world(), "durable", 0.1, options) },
    { name: "get_secret_all_spans", reach: "≤ 1.8 × floor", run: async () => getSecret(await world(), "durable", 1, options) },
    { name: "get_secret_async_audit", reach: "≤ 1.5 × floor", run: async () => getSecret(await world(), "async", 0.1, options) },
    { name: "batch_get_100", reach: "≤ 0.25 × a GetSecret of ours", run: async () => batchGet(await world(), options) },
  ];
  return {
    benches,
    async close() {
      await (await made)?.stop();
    },
  };
}

async function getSecret(world: World, audit: "durable" | "async", sampled: number, { profile }: CallOptions): Promise<Result> {
  const collector = await startCollector();
  const env = {
    OTEL_TRACES_EXPORTER: "otlp",
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",
    OTEL_METRICS_EXPORTER: "none",
    OTEL_LOGS_EXPORTER: "none",
    OTEL_TRACES_SAMPLER: "parentbased_traceidratio",
    OTEL_TRACES_SAMPLER_ARG: String(sampled),
  };
  const config = world.config(audit);
  const servers = [
    await startChild("broker-child.ts", { args: [config], env, profile }),
    await startChild("echo-child.ts", { args: ["messages", config, world.answers], profile }),
    await startChild("echo-child.ts", { args: ["bytes", config, world.answers] }),
  ] as const;
  try {
    const [broker, messages, bytes] = await alternate(
      world,
      servers.map((server) => ({ server, calls: world.getSecret })),
    );
    const us = medianOf(broker!, "us");
    const floor = medianOf(messages!, "us");
    return {
      value: us,
      unit: "us",
      floor,
      ratio: median(broker!.map((round, i) => round.us / messages![i]!.us)),
      detail: { postgres_us: medianOf(broker!, "postgres"), floor_bytes: medianOf(bytes!, "us"), ...speed(broker!) },
    };
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
    collector.stop();
  }
}

/** A secret of a batch of 100 next to a GetSecret, both by the same broker. */
async function batchGet(world: World, { profile }: CallOptions): Promise<Result> {
  const server = await startChild("broker-child.ts", { args: [world.config("durable")], profile });
  try {
    const [batch, single] = await alternate(world, [
      { server, calls: world.batchGet },
      { server, calls: world.getSecret },
    ]);
    const each = 100;
    const value = medianOf(batch!, "us") / each;
    const ratio = median(batch!.map((round, i) => round.us / each / single![i]!.us));
    return { value, unit: "us", floor: medianOf(single!, "us"), ratio, detail: { postgres_us: medianOf(batch!, "postgres") / each, ...speed(batch!) } };
  } finally {
    await server.stop();
  }
}

/** Rounds in turn, each server alone under load. The first one of each warms up and is not counted. */
async function alternate(world: World, subjects: readonly { readonly server: Child; readonly calls: Calls }[]): Promise<Measured[][]> {
  const load = await startChild("load-child.ts", { args: [world.tls.ca, world.tls.certificate, world.tls.key] });
  const measured: Measured[][] = subjects.map(() => []);
  try {
    for (let round = 0; round <= ROUNDS; round++) {
      for (const [i, subject] of subjects.entries()) {
        const result = await measure(world, load, subject.server, subject.calls, round === 0 ? WARM_SECONDS : ROUND_SECONDS);
        if (round > 0) measured[i]!.push(result);
      }
    }
  } finally {
    await load.stop();
  }
  return measured;
}

async function measure(world: World, load: Child, server: Child, calls: Calls, seconds: number): Promise<Measured> {
  const { address } = server.ready as { address: string };
  const postgresBefore = postgresCpu(world.postgres);
  const before = (await server.ask({})) as { cpu: number };
  const startedAt = performance.now();
  const done = (await load.ask({ address, ...calls, seconds, inFlight: IN_FLIGHT })) as { calls: number; p50: number; p99: number };
  const elapsed = performance.now() - startedAt;
  const after = (await server.ask({})) as { cpu: number };
  const postgres = (postgresCpu(world.postgres) - postgresBefore) / done.calls;
  return { us: (after.cpu - before.cpu) / done.calls, postgres, perSecond: (done.calls * 1000) / elapsed, p50: done.p50, p99: done.p99 };
}

function medianOf(rounds: readonly Measured[], field: keyof Measured): number {
  return median(rounds.map((round) => round[field]));
}

function speed(rounds: readonly Measured[]): Readonly<Record<string, number>> {
  return { per_second: Math.round(medianOf(rounds, "perSecond")), p50_ms: medianOf(rounds, "p50"), p99_ms: medianOf(rounds, "p99") };
}
