import { status } from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { AuditService } from "../../src/gen/leasehold/v1/audit_service_pb.ts";
import { WatchService } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import type { PipelineOptions } from "../../src/rpc/options.ts";
import { testWorld, type TestBroker, type TestWorld } from "../support/broker.ts";
import { type Harness, some, startHarness, statusOfError, until } from "../support/rpc-harness.ts";

const { watch } = WatchService.method;

describe("many streams at once", () => {
  let harness: Harness | undefined;
  afterEach(async () => {
    await harness?.close();
    harness = undefined;
  });

  async function start(options: Partial<PipelineOptions>): Promise<Harness> {
    harness = await startHarness(
      (pipeline) => [
        ...pipeline.bind(WatchService, {
          async watch(_request, call, out) {
            call.authorizeItem("secrets/a/b");
            await out.write({ revision: 1n });
            await new Promise<void>((resolve) => call.signal.addEventListener("abort", () => resolve()));
          },
        }),
        ...pipeline.bind(AuditService, some(AuditService, {})),
      ],
      options,
    );
    harness.access.allowed.push(["watch", "secrets/a/**"]);
    harness.audit.held = [];
    return harness;
  }

  function open(h: Harness) {
    const stream = h.open(watch, { paths: ["secrets/a/b"] });
    const opened = { messages: 0, error: undefined as Error | undefined, stream };
    stream.on("data", () => opened.messages++);
    stream.on("error", (error) => (opened.error = error));
    return opened;
  }

  test("open in order, so many at a time: the audit is given no more", async () => {
    const h = await start({ maxOpening: 3 });
    const all = Array.from({ length: 8 }, () => open(h));
    await until(() => h.pipeline.openings.waiting === 5);
    expect(h.audit.held!.length).toBe(3);
    // One by one from here: each that is durable lets the next come.
    for (let i = 0; i < 8; i++) {
      h.audit.held!.shift()!();
      await until(() => all.filter((one) => one.messages === 1).length === i + 1);
      expect(h.audit.held!.length).toBe(Math.min(3, 7 - i));
    }
    expect(all.map((one) => one.error)).toEqual(all.map(() => undefined));
    expect(h.audit.entries.length).toBe(8);
  });

  test("who waits too long is told when to come again, with RESOURCE_EXHAUSTED, and has left no place behind", async () => {
    const h = await start({ maxOpening: 1, maxOpeningMs: 1000 });
    const [first, second] = [open(h), open(h)];
    await until(() => h.pipeline.openings.waiting === 1);
    h.pipeline.sweep(Date.now() + 2000);
    await until(() => first.error !== undefined || second.error !== undefined);
    const [refused, other] = first.error === undefined ? [second, first] : [first, second];
    const details = statusOfError(refused.error as never);
    expect(details?.code).toBe(status.RESOURCE_EXHAUSTED);
    expect(details?.details.map((detail) => detail.typeUrl)).toContain("type.googleapis.com/google.rpc.RetryInfo");
    h.audit.held!.shift()!();
    await until(() => other.messages === 1);
    const third = open(h);
    await until(() => h.audit.held!.length === 1);
    h.audit.held!.shift()!();
    await until(() => third.messages === 1);
    expect(h.audit.entries.map((entry) => entry.outcome)).toEqual(["ok", "ok"]);
  });

  test("a caller that goes while it waits, or whose record fails, gives its place to the next", async () => {
    const h = await start({ maxOpening: 1 });
    const first = open(h);
    await until(() => h.audit.held!.length === 1);
    const gone = open(h);
    await until(() => h.pipeline.openings.waiting === 1);
    const last = open(h);
    await until(() => h.pipeline.openings.waiting === 2);
    gone.stream.cancel();
    await until(() => h.pipeline.openings.waiting === 1);
    h.audit.failure = new Error("disk full");
    h.audit.held!.shift()!();
    h.audit.failure = undefined;
    // The record of the failure, and the next stream's.
    await until(() => first.error !== undefined && h.audit.held!.length === 2);
    h.audit.release();
    await until(() => last.messages === 1);
    expect(h.pipeline.openings.waiting).toBe(0);
  });
});

describe("a burst of watches, over the wire", () => {
  let world: TestWorld;
  let broker: TestBroker;
  beforeAll(async () => {
    world = await testWorld();
    broker = await world.start();
  });
  afterAll(() => world.close());

  test("all of them open, each after its record", async () => {
    const count = 900;
    const admin = broker.as("admin");
    const abort = new AbortController();
    const opened = new Set<number>();
    const failures: unknown[] = [];
    for (let i = 0; i < count; i++) {
      void (async () => {
        try {
          for await (const _ of admin.stream(watch, { paths: [`secrets/burst/a${i}`] }, abort.signal)) opened.add(i);
        } catch (error) {
          failures.push(error);
        }
      })();
    }
    await until(() => opened.size === count || failures.length > 0);
    expect(failures).toEqual([]);
    const [found] = await world.store.query<{ records: number }>(
      "select count(*)::int as records from audit_record where record->>'action' = 'WatchService/Watch' and record->>'outcome' = 'ok' and record->>'path' like 'secrets/burst/%'",
    );
    expect(found?.records).toBe(count);
    abort.abort();
  });
});
