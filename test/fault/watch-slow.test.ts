import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CallError } from "../../src/client/errors.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { type WatchResponse, WatchService } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import { freePort } from "../../src/dev/free-port.ts";
import { type TestBroker, testWorld, type TestWorld, texts } from "../support/broker.ts";
import { until } from "../support/until.ts";

const PATHS = ["secrets/slow/**"];
const VALUE = "x".repeat(60_000);
const WRITES = 60;

describe("a reader that stops reading", () => {
  let world: TestWorld;
  let broker: TestBroker;
  let metrics: string;
  beforeAll(async () => {
    world = await testWorld();
    metrics = `127.0.0.1:${await freePort()}`;
    broker = await world.start({ settings: { limits: { max_stream_stall: "1s" }, metrics: { listen: metrics } } });
  });
  afterAll(() => world.close());

  it("lesson 35: is ended with a token that loses nothing, and the others notice nothing", async () => {
    const client = broker.as("admin");
    const open = (resumeToken = "") => client.stream(WatchService.method.watch, { paths: PATHS, includeValues: true, resumeToken }, undefined, 60_000);
    const versions = (message: WatchResponse) => message.events.map((event) => Number(event.version));
    const all = Array.from({ length: WRITES }, (_, i) => i + 1);

    const slow = open();
    await slow.next();
    const fast = open();
    await fast.next();
    const seenFast: number[] = [];
    const reading = (async () => {
      for await (const message of fast) {
        seenFast.push(...versions(message));
        if (seenFast.length >= WRITES) return;
      }
    })();
    for (let i = 0; i < WRITES; i++) await client.call(SecretService.method.putSecret, { path: "secrets/slow/a", data: texts({ k: VALUE }) });
    await reading;
    expect(seenFast).toEqual(all);

    // The slow one has read nothing since; nobody waits for it, and no stream is open any more.
    await until("both streams to be gone", async () => (await openStreams()) === 0);
    const seen: number[] = [];
    const end = await (async () => {
      for await (const message of slow) seen.push(...versions(message));
      return undefined;
    })().catch((error: unknown) => error);
    if (!(end instanceof CallError)) throw new Error("the slow stream ended without an error");
    expect(end.reason).toBe("WATCH_TOO_SLOW");
    for await (const message of open(end.metadata["resume_token"])) {
      seen.push(...versions(message));
      if (seen.length >= WRITES) break;
    }
    expect(seen).toEqual(all);
  });

  /** Of the broker, by what it counts. */
  async function openStreams(): Promise<number> {
    const text = await (await fetch(`http://${metrics}/metrics`)).text();
    return Number(/^leasehold_watches (\d+)/m.exec(text)?.[1] ?? -1);
  }
});
