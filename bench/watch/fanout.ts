import { WatchRequestSchema, WatchService } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import { type Bench, median, type Result } from "../result.ts";
import { encode } from "../wire.ts";
import { change, type WatchWorld } from "./world.ts";

const WATCHERS = 1000;
const CONNECTIONS = 10;
const MESSAGES = 100;
const ROUNDS = 7;
const SECOND = 1_000_000;

/** `:path` of Watch. */
export const WATCH = `/${WatchService.typeName}/${WatchService.method.watch.name}`;

export function watchRequest(path: string, resumeToken = ""): string {
  return encode(WatchRequestSchema, { paths: [path], resumeToken }).toString("base64");
}

/**
 * One change or message at a time, the next when all have it: what is measured is the server's CPU, not how much the watchers can swallow. What a change costs that nobody
 * watches (the call, its commit, its record) is measured in the same round and taken off; `with_the_change` is the ratio without that.
 */
export function fanoutBench(world: () => Promise<WatchWorld>): Bench {
  return {
    name: "watch_fanout",
    reach: "≥ 0.7 × a bare stream's messages per CPU second",
    async run(): Promise<Result> {
      const { broker: start, floor: startFloor, watchers } = await world();
      const [broker, floor, ours, theirs] = [await start(), await startFloor(), await watchers(), await watchers()];
      const openAt = (address: string) => ({
        address,
        method: WATCH,
        requests: [watchRequest("secrets/demo/key")],
        connections: CONNECTIONS,
        streams: WATCHERS,
      });
      await ours.ask({ open: openAt(broker.address) });
      await theirs.ask({ open: openAt((floor.ready as { address: string }).address) });
      await change(broker, "key");
      const { last } = (await ours.ask({ messages: WATCHERS })) as { last: string };
      const [values, floors, ratios, whole]: [number[], number[], number[], number[]] = [[], [], [], []];
      for (let round = 0; round <= ROUNDS; round++) {
        const unwatched = await cpuOf(broker.child, () => change(broker, "unwatched"));
        const all = await cpuOf(broker.child, async () => {
          await change(broker, "key");
          await ours.ask({ messages: WATCHERS });
        });
        const bare = perSecond(
          await cpuOf(floor, async () => {
            await floor.ask({ write: last });
            await theirs.ask({ messages: WATCHERS });
          }),
        );
        const value = perSecond(all - unwatched);
        if (round === 0) continue;
        values.push(value);
        floors.push(bare);
        ratios.push(value / bare);
        whole.push(perSecond(all) / bare);
      }
      for (const part of [ours, theirs, floor]) await part.stop();
      await broker.stop();
      return {
        value: median(values),
        unit: "/s",
        floor: median(floors),
        ratio: median(ratios),
        detail: { with_the_change: median(whole), message_bytes: Buffer.from(last, "base64").length },
      };
    },
  };
}

/** CPU microseconds of the server for so many of `one`. */
async function cpuOf(server: { ask(question: object): Promise<unknown> }, one: () => Promise<unknown>): Promise<number> {
  const cpu = async () => ((await server.ask({})) as { cpu: number }).cpu;
  const before = await cpu();
  for (let i = 0; i < MESSAGES; i++) await one();
  return (await cpu()) - before;
}

function perSecond(us: number): number {
  return (MESSAGES * WATCHERS * SECOND) / us;
}
