import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CallError } from "../../src/client/errors.ts";
import { AuditService } from "../../src/gen/leasehold/v1/audit_service_pb.ts";
import { PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { EventType, type WatchResponse, WatchService } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import type { Client } from "../../src/client/client.ts";
import { createLog } from "../../src/base/log.ts";
import { Pool } from "../../src/store/db.ts";
import { pruneChanges } from "../../src/store/changes.ts";
import { resumeToken } from "../../src/watch/resume-token.ts";
import { allowApp, testWorld, type TestBroker, type TestWorld, texts } from "../support/broker.ts";
import { until } from "../support/until.ts";

interface Watching {
  readonly messages: WatchResponse[];
  /** `path@version` of every event, in order. */
  seen(): string[];
  token(): string;
  /** How the stream ended: undefined when we ended it. */
  stop(): Promise<CallError | undefined>;
  readonly ended: Promise<CallError | undefined>;
}

function watching(
  client: Client,
  request: { paths: string[]; snapshot?: boolean; resumeToken?: string; includeValues?: boolean; types?: EventType[] },
): Watching {
  const abort = new AbortController();
  const messages: WatchResponse[] = [];
  const ended = (async () => {
    try {
      for await (const message of client.stream(WatchService.method.watch, request, abort.signal)) messages.push(message);
      return undefined;
    } catch (error) {
      if (error instanceof CallError) return error;
      throw error;
    }
  })();
  return {
    messages,
    seen: () => messages.flatMap((message) => message.events.map((event) => `${event.path}@${event.version}`)),
    token: () => messages.findLast((message) => message.resumeToken !== "")?.resumeToken ?? "",
    stop: () => {
      abort.abort();
      return ended;
    },
    ended,
  };
}

describe("watch, over the wire", () => {
  let world: TestWorld;
  let brokers: [TestBroker, TestBroker];
  beforeAll(async () => {
    world = await testWorld();
    brokers = [await world.start(), await world.start()];
    await allowApp(brokers[0]);
  });
  afterAll(() => world.close());

  const watchStart = resumeToken({ epoch: 1, revision: 0 });
  const admin = (i = 0) => brokers[i]!.as("admin");
  const put = (path: string, value: string, i = 0) => admin(i).call(SecretService.method.putSecret, { path, data: texts({ k: value }) });

  it("gives a snapshot, then its end, then changes", async () => {
    await put("secrets/snap/a", "1");
    await put("secrets/snap/b", "1");
    const watch = watching(admin(), { paths: ["secrets/snap/**"], snapshot: true });
    await until("the snapshot's end", () => watch.messages.some((message) => message.snapshotEnd !== undefined));
    expect(watch.seen()).toEqual(["secrets/snap/a@1", "secrets/snap/b@1"]);
    await put("secrets/snap/a", "2");
    await until("the change", () => watch.seen().includes("secrets/snap/a@2"));
    expect(await watch.stop()).toBeUndefined();
  });

  it("lessons 32 and 34: loses nothing over random disconnects, on either replica, in commit order", async () => {
    const writes = 120;
    let writing = true;
    const writer = (async () => {
      for (let i = 1; i <= writes; i++) await put(`secrets/oracle/${i % 7}`, String(i), i % 2);
      writing = false;
    })();
    const seen = new Map<bigint, string>();
    const order: bigint[] = [];
    let token = watchStart;
    for (let round = 0; writing || seen.size < writes; round++) {
      const watch = watching(admin(round % 2), { paths: ["secrets/oracle/**"], ...(token === "" ? { snapshot: false } : { resumeToken: token }) });
      const enough = 1 + Math.floor(Math.random() * 20);
      await until(
        "some events, or all",
        () => watch.messages.flatMap((message) => message.events).length >= enough || (!writing && seen.size + watch.seen().length >= writes) || undefined,
        20_000,
      ).catch(() => {});
      await watch.stop();
      for (const message of watch.messages) {
        for (const event of message.events) {
          if (seen.has(event.revision)) continue;
          seen.set(event.revision, `${event.path}@${event.version}`);
          order.push(event.revision);
        }
        if (message.resumeToken !== "") token = message.resumeToken;
      }
    }
    await writer;
    const committed = await world.store.query<{ revision: string; path: string; version: string }>(
      "select revision, path, version from change_log where path like 'secrets/oracle/%' order by revision",
    );
    expect([...seen.values()]).toEqual(committed.map((row) => `${row.path}@${row.version}`));
    expect(order).toEqual([...order].sort((a, b) => (a < b ? -1 : 1)));
  });

  it("a change on one replica reaches the watchers of the other", async () => {
    const watch = watching(admin(1), { paths: ["secrets/across/**"] });
    await until("the first message", () => watch.messages.length > 0);
    await put("secrets/across/x", "1", 0);
    await until("the event", () => watch.seen().includes("secrets/across/x@1"));
    await watch.stop();
  });

  it("finding 3: a token of another epoch, beyond the head or of no form is stale", async () => {
    for (const token of [resumeToken({ epoch: 99, revision: 1 }), resumeToken({ epoch: 1, revision: 1_000_000 }), "nonsense"]) {
      expect((await watching(admin(), { paths: ["secrets/**"], resumeToken: token }).ended)?.reason).toBe("RESUME_TOKEN_STALE");
    }
  });

  it("filters by type, and tells of removal", async () => {
    await put("secrets/types/a", "1");
    const watch = watching(admin(), { paths: ["secrets/types/**"], types: [EventType.SECRET_DELETED] });
    await until("the first message", () => watch.messages.length > 0);
    await put("secrets/types/a", "2");
    await admin().call(SecretService.method.deleteSecret, { path: "secrets/types/a" });
    await until("the deletion", () => watch.seen().length > 0);
    expect(watch.messages.flatMap((message) => message.events)[0]).toMatchObject({ type: EventType.SECRET_DELETED, removed: true });
    await watch.stop();
  });

  it("with values: each is an audited read of its own, and only where reading is allowed", async () => {
    await allowApp(brokers[0], "watch");
    const blind = watching(brokers[0].as("app"), { paths: ["secrets/payments/**"], includeValues: true });
    const full = watching(admin(), { paths: ["secrets/payments/**"], includeValues: true });
    await until("both are there", () => blind.messages.length > 0 && full.messages.length > 0);
    await put("secrets/payments/value", "watched");
    await until("both have it", () => blind.seen().length > 0 && full.seen().length > 0);
    const dataOf = (watch: Watching) => watch.messages.flatMap((message) => message.events).map((event) => event.data["k"]?.kind.value);
    expect([dataOf(blind), dataOf(full)]).toEqual([[undefined], ["watched"]]);
    await Promise.all([blind.stop(), full.stop()]);
    const records: string[] = [];
    for await (const batch of admin().stream(AuditService.method.tailAudit, { last: 100, noFollow: true, path: "secrets/payments/value" }))
      for (const record of batch.records) records.push(`${record.action} ${record.capability} ${record.outcome}`);
    expect(records).toContain("WatchService/Watch read ok");
    expect(records).toContain("WatchService/Watch read PERMISSION_DENIED");
  });

  it("lesson 37: what a revoked policy covered is not delivered any more", async () => {
    await allowApp(brokers[0]);
    const watch = watching(brokers[1].as("app"), { paths: ["secrets/payments/**"] });
    await until("it is there", () => watch.messages.length > 0);
    await put("secrets/payments/before", "1");
    await until("what is allowed", () => watch.seen().includes("secrets/payments/before@1"));
    await admin().call(PolicyService.method.deletePolicy, { path: "policies/app" });
    await put("secrets/payments/after", "1");
    const end = await watch.ended;
    expect(end?.reason).toBe("PERMISSION_DENIED");
    expect(watch.seen()).not.toContain("secrets/payments/after@1");
    await allowApp(brokers[0]);
  });

  it("lesson 37: a policy that goes ends a watch at once, on either replica, though nothing happens on it", async () => {
    await allowApp(brokers[0]);
    const { revision } = await put("secrets/payments/quiet/before", "1");
    await admin(1).call(SecretService.method.getSecret, { path: "secrets/payments/quiet/before", minRevision: revision });
    const watches = brokers.map((broker) => watching(broker.as("app"), { paths: ["secrets/payments/quiet/**"] }));
    const stays = watching(admin(1), { paths: ["secrets/payments/quiet/**"] });
    await until("they are there", () => [...watches, stays].every((watch) => watch.messages.length > 0));
    await admin().call(PolicyService.method.deletePolicy, { path: "policies/app" });
    for (const watch of watches) {
      const end = await watch.ended;
      expect(end?.reason).toBe("PERMISSION_DENIED");
      expect(end?.metadata["resume_token"]).toBe(watch.token());
    }
    await put("secrets/payments/quiet/a", "1");
    await until("the event", () => stays.seen().length === 1);
    await stays.stop();
    await allowApp(brokers[0]);
  });

  it("says nothing of changes its caller can't see", async () => {
    await allowApp(brokers[0]);
    const watch = watching(brokers[0].as("app"), { paths: ["secrets/**"] });
    await until("it is there", () => watch.messages.length > 0);
    await put("secrets/hidden/a", "1");
    await put("secrets/payments/shown", "1");
    await until("the event", () => watch.seen().length > 0);
    expect(watch.messages.map((message) => message.events.map((event) => event.path))).toEqual([[], ["secrets/payments/shown"]]);
    await watch.stop();
  });

  it("goes on from any message's token, without a gap or a repetition", async () => {
    for (let i = 1; i <= 4; i++) await put("secrets/exact/a", String(i));
    const first = watching(admin(), { paths: ["secrets/exact/**"], resumeToken: watchStart });
    await until("all of them", () => first.seen().length === 4);
    for (let i = 5; i <= 8; i++) await put("secrets/exact/a", String(i));
    await until("all of them", () => first.seen().length === 8);
    await first.stop();
    for (const [i, message] of first.messages.entries()) {
      const rest = watching(admin(1), { paths: ["secrets/exact/**"], resumeToken: message.resumeToken });
      const expected = first.messages.slice(i + 1).flatMap((each) => each.events.map((event) => `${event.path}@${event.version}`));
      await until("the rest", () => rest.seen().length >= expected.length && rest.messages.length > 0);
      expect(rest.seen()).toEqual(expected);
      await rest.stop();
    }
  });

  it("lesson 36: below the floor it is told the floor, at once", async () => {
    const pool = new Pool(
      { url: world.store.url, poolSize: 1, statementTimeoutMs: 5000, connectTimeoutMs: 3000, requireSyncStandby: false },
      createLog("silent"),
    );
    await pruneChanges(pool, { keepMs: 0, keepForSubscriptionsMs: 0, maxForSubscriptions: 0 }, 10_000);
    await pool.close();
    // A replica may give from memory what the log no longer has, until it has heard of the floor.
    const end = await until("the floor", async () => {
      const watch = watching(admin(), { paths: ["secrets/**"], resumeToken: watchStart });
      await Promise.race([watch.ended, until("a message", () => watch.messages.length > 0)]);
      return watch.stop();
    });
    expect(end.reason).toBe("REVISION_COMPACTED");
    expect(Number(end.metadata["floor"])).toBeGreaterThan(0);
  });

  it("a broker that stops ends its streams with a token that another goes on from", async () => {
    const third = await world.start();
    const watch = watching(third.as("admin"), { paths: ["secrets/drain/**"] });
    await until("it is there", () => watch.messages.length > 0);
    await put("secrets/drain/a", "1");
    await until("the first event", () => watch.seen().length === 1);
    const stopped = third.stop();
    const end = await watch.ended;
    await stopped;
    expect(end?.reason === "DRAINING" || end?.reason === "").toBe(true);
    await put("secrets/drain/b", "1");
    const resumed = watching(admin(), { paths: ["secrets/drain/**"], resumeToken: end?.metadata["resume_token"] ?? watch.token() });
    await until("the second event", () => resumed.seen().includes("secrets/drain/b@1"));
    expect(resumed.seen()).toEqual(["secrets/drain/b@1"]);
    await resumed.stop();
  });
});
