import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Client, credentials } from "@grpc/grpc-js";
import { Redis } from "ioredis";
import { type Bench, median, type Result } from "../result.ts";
import { WATCH, watchRequest } from "./fanout.ts";
import { type Broker, change, type WatchWorld } from "./world.ts";

const CHANGES = 400;
const PAUSE_MS = 15;
/** How a bookmark ends: its last field. */
const BOOKMARK = Buffer.from([0x30, 0x01]);

/**
 * From the commit until the watcher has the event. The moment of the commit is when the broker says so to the other replicas: the nudge's arrival here, less what a publication takes to come
 * from Redis, as the floor measures it. The floor: published in Redis, heard by a bare grpc-js server, written to its stream, received.
 */
export function deliveryBenches(world: () => Promise<WatchWorld>): readonly Bench[] {
  return [
    {
      name: "watch_delivery",
      reach: "p50 ≤ 3 ×, p99 ≤ 15 ms",
      async run(): Promise<Result> {
        const w = await world();
        const broker = await w.broker();
        const floor = await floorOf(w);
        const { p50, p99 } = await deliver(w, broker, broker, floor.publish);
        await broker.stop();
        return { value: p50, unit: "ms", floor: floor.p50, ratio: p50 / floor.p50, detail: { p99, floor_p99: floor.p99, publish_ms: floor.publish } };
      },
    },
    {
      name: "watch_delivery_two_replicas",
      reach: "p99 ≤ 40 ms",
      async run(): Promise<Result> {
        const w = await world();
        const [one, two] = [await w.broker(), await w.broker()];
        const floor = await floorOf(w);
        const { p50, p99 } = await deliver(w, one, two, floor.publish);
        await one.stop();
        await two.stop();
        return { value: p99, unit: "ms", detail: { p50 } };
      },
    },
  ];
}

async function deliver(world: WatchWorld, writer: Broker, watched: Broker, publish: number): Promise<{ readonly p50: number; readonly p99: number }> {
  const redis = new Redis(world.redisUrl);
  let nudgedAt = 0;
  await redis.psubscribe("*:changes");
  redis.on("pmessage", () => (nudgedAt = performance.now()));
  const stream = watch(world, watched.address, watchRequest("secrets/demo/delivery"));
  await stream.next();
  const times: number[] = [];
  for (let i = 0; i < CHANGES; i++) {
    nudgedAt = 0;
    const received = stream.next();
    await change(writer, "delivery");
    const at = await received;
    while (nudgedAt === 0) await sleep(1);
    if (i >= CHANGES / 4) times.push(at - nudgedAt + publish);
    await sleep(PAUSE_MS);
  }
  stream.close();
  redis.disconnect();
  return percentiles(times);
}

async function floorOf(world: WatchWorld): Promise<{ readonly p50: number; readonly p99: number; readonly publish: number }> {
  const server = await world.floor();
  const [publisher, subscriber] = [new Redis(world.redisUrl), new Redis(world.redisUrl)];
  let heardAt = 0;
  await subscriber.subscribe("floor");
  subscriber.on("message", () => (heardAt = performance.now()));
  const stream = watch(world, (server.ready as { address: string }).address, watchRequest("secrets/demo/delivery"));
  await stream.next();
  const [times, heard]: [number[], number[]] = [[], []];
  for (let i = 0; i < CHANGES; i++) {
    const received = stream.next();
    const sentAt = performance.now();
    void publisher.publish("floor", "1");
    const at = await received;
    if (i >= CHANGES / 4) {
      times.push(at - sentAt);
      heard.push(heardAt - sentAt);
    }
    await sleep(PAUSE_MS);
  }
  stream.close();
  publisher.disconnect();
  subscriber.disconnect();
  await server.stop();
  return { ...percentiles(times), publish: median(heard) };
}

/** One watch in this process; `next` says when its next message came that is no bookmark. */
function watch({ tls }: WatchWorld, address: string, request: string): { next(): Promise<number>; close(): void } {
  const secure = credentials.createSsl(readFileSync(tls.ca), readFileSync(tls.key), readFileSync(tls.certificate));
  const client = new Client(address, secure, { "grpc.ssl_target_name_override": "localhost", "grpc.use_local_subchannel_pool": 1 });
  const same = (bytes: Buffer): Buffer => bytes;
  const stream = client.makeServerStreamRequest(WATCH, same, same, Buffer.from(request, "base64"));
  stream.on("error", () => {});
  return {
    next: () =>
      new Promise((resolve) => {
        const take = (message: Buffer): void => {
          if (message.subarray(-BOOKMARK.length).equals(BOOKMARK)) return;
          stream.off("data", take);
          resolve(performance.now());
        };
        stream.on("data", take);
      }),
    close() {
      stream.cancel();
      client.close();
    },
  };
}

function percentiles(times: readonly number[]): { readonly p50: number; readonly p99: number } {
  const sorted = times.toSorted((a, b) => a - b);
  return { p50: median(sorted), p99: sorted[Math.floor(sorted.length * 0.99)]! };
}
