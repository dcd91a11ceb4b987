import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { type ClientReadableStream, type ServiceError, status } from "@grpc/grpc-js";
import { afterEach, describe, expect, test } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { HealthCheckRequestSchema, HealthCheckResponseSchema, HealthCheckResponse_ServingStatus as Serving } from "../../src/gen/grpc/health/v1/health_pb.ts";
import { ErrorInfoSchema } from "../../src/gen/google/rpc/error_details_pb.ts";
import { AuditService } from "../../src/gen/leasehold/v1/audit_service_pb.ts";
import { type WatchResponse, WatchService } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import type { Authorized } from "../../src/rpc/call.ts";
import type { Handlers } from "../../src/rpc/definition.ts";
import { DEFAULT_OPTIONS } from "../../src/rpc/options.ts";
import type { Out } from "../../src/rpc/out.ts";
import { type Harness, reasonOfStatus, some, startHarness, statusOfError, until } from "../support/rpc-harness.ts";

type WatchHandler = Handlers<typeof WatchService>["watch"];

const { watch } = WatchService.method;

let harness: Harness | undefined;

async function start(handler: WatchHandler): Promise<Harness> {
  harness = await startHarness((pipeline) => [...pipeline.bind(WatchService, { watch: handler }), ...pipeline.bind(AuditService, some(AuditService, {}))]);
  harness.access.allowed.push(["watch", "secrets/a/**"]);
  return harness;
}

afterEach(async () => {
  await harness?.close();
  harness = undefined;
});

/** What the client sees of a stream: its messages and the one way it ended. */
function follow(stream: ClientReadableStream<WatchResponse>): {
  messages: WatchResponse[];
  end: Promise<{ code: number; reason: string | undefined; token: string | undefined }>;
} {
  const messages: WatchResponse[] = [];
  stream.on("data", (message: WatchResponse) => messages.push(message));
  const end = new Promise<{ code: number; reason: string | undefined; token: string | undefined }>((resolve) => {
    stream.on("error", (error: ServiceError) => {
      const details = statusOfError(error);
      const info = details?.details.find((d) => d.typeUrl.endsWith("ErrorInfo"));
      resolve({
        code: error.code,
        reason: details && reasonOfStatus(details),
        token: info && fromBinary(ErrorInfoSchema, info.value).metadata["resume_token"],
      });
    });
    stream.on("end", () => resolve({ code: status.OK, reason: undefined, token: undefined }));
  });
  return { messages, end };
}

const untilAborted = (call: Authorized): Promise<void> => new Promise((resolve) => call.signal.addEventListener("abort", () => resolve()));

async function watchScope(call: Authorized, out: Out<typeof watch.output>): Promise<void> {
  call.authorizeItem("secrets/a/b");
  out.resumeToken = () => "token-7";
  await out.write({ revision: 7n });
}

describe("streams", () => {
  test("the record is durable before the first message, and the stream ends with OK once", async () => {
    const h = await start(async (_r, call, out) => {
      await watchScope(call, out);
      await out.write({ revision: 8n });
    });
    h.audit.held = [];
    const { messages, end } = follow(h.open(watch, { paths: ["secrets/a/b"] }));
    await until(() => h.audit.held!.length === 1);
    expect(messages).toEqual([]);
    h.audit.release();
    expect((await end).code).toBe(status.OK);
    expect(messages.map((m) => m.revision)).toEqual([7n, 8n]);
    expect(h.audit.entries).toMatchObject([{ action: "WatchService/Watch", capability: "watch", path: "secrets/a/b", outcome: "ok" }]);
    expect(h.pipeline.admission.streams).toBe(0);
  });

  test("values are on record, item by item, before their message", async () => {
    const h = await start(async (_r, call, out) => {
      await watchScope(call, out);
      h.audit.held = [];
      call.recordItem({ path: "secrets/a/b", outcome: "ok", version: 2, capability: "read" });
      await out.write({ revision: 8n });
    });
    h.access.allowed.push(["read", "secrets/a/**"]);
    const { messages, end } = follow(h.open(watch, { paths: ["secrets/a/b"] }));
    await until(() => h.audit.held?.length === 1 && messages.length === 1);
    h.audit.release();
    await end;
    expect(messages.length).toBe(2);
    expect(h.audit.entries[1]).toMatchObject({ capability: "read", path: "secrets/a/b", version: 2 });
  });

  test("finding 16: what a newer policy denies is not sent", async () => {
    const h = await start(async (_r, call, out) => {
      await watchScope(call, out);
      h.audit.fresh = 5;
      call.recordItem({ path: "secrets/a/b", outcome: "ok", capability: "read" });
      await out.write({ revision: 8n });
    });
    const { messages, end } = follow(h.open(watch, { paths: ["secrets/a/b"] }));
    expect((await end).reason).toBe("PERMISSION_DENIED");
    expect(messages.length).toBe(1);
    expect(h.freshness.caughtUp).toEqual([5]);
  });

  test("denied, invalid and unaudited streams end before a message", async () => {
    const h = await start(watchAll);
    async function watchAll(request: { paths: string[] }, call: Authorized, out: Out<typeof watch.output>): Promise<void> {
      for (const path of request.paths) call.authorizeItem(path);
      await out.write({ revision: 1n });
    }
    const reasons = async (paths: string[]) => (await follow(h.open(watch, { paths })).end).reason;
    expect(await reasons(["secrets/b/c"])).toBe("PERMISSION_DENIED");
    expect(await reasons(["secrets//c"])).toBe("PATH_INVALID");
    expect(await reasons([])).toBe("REQUEST_INVALID");
    h.audit.failure = new Error("disk full");
    expect(await reasons(["secrets/a/b"])).toBe("AUDIT_UNAVAILABLE");
    expect(h.audit.entries.map((e) => e.outcome)).toEqual(["PERMISSION_DENIED", "PATH_INVALID", "REQUEST_INVALID"]);
  });

  test("a rejected handler is INTERNAL without its text; one that asks for no permission sends nothing", async () => {
    const h = await start(async (request, _call, out) => {
      if (request.paths[0] === "secrets/a/boom") throw new Error("password=hunter2");
      await out.write({ revision: 1n });
    });
    for (const path of ["secrets/a/boom", "secrets/a/b"]) {
      const { messages, end } = follow(h.open(watch, { paths: [path] }));
      expect([(await end).reason, messages]).toEqual(["INTERNAL", []]);
    }
  });

  test("lesson 38: a client that does not read slows the handler, and memory stays bounded", async () => {
    let written = 0;
    const h = await start(async (_r, call, out) => {
      await watchScope(call, out);
      for (; written < 5000; written++) await out.write({ resumeToken: "x".repeat(4096) });
    });
    const stream = h.open(watch, { paths: ["secrets/a/b"] });
    await new Promise((resolve) => stream.once("readable", resolve));
    let before = -1;
    while (before !== written) {
      before = written;
      for (let i = 0; i < 200; i++) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(written).toBeLessThan(1000);
    stream.cancel();
    await until(() => h.pipeline.size === 0);
  });

  describe("a client that stops reading", () => {
    const stalled = async () => {
      let ended = false;
      const h = await start(async (_r, call, out) => {
        await watchScope(call, out);
        out.judge = () => call.authorizeItem("secrets/a/b");
        out.onEnd = () => {
          ended = true;
        };
        for (;;) await out.write({ resumeToken: "x".repeat(4096) });
      });
      const stream = h.open(watch, { paths: ["secrets/a/b"] });
      await new Promise((resolve) => stream.once("readable", resolve));
      let now = Date.now();
      const sweepOn = (ms: number): void => h.pipeline.sweep((now += ms));
      // Until nothing moves: what the sockets hold may still take some.
      for (let i = 0; i < 200; i++) {
        sweepOn(1);
        await new Promise((resolve) => setImmediate(resolve));
      }
      return { h, stream, sweepOn, hasEnded: () => ended };
    };

    test("ends with WATCH_TOO_SLOW and its resume token, which it finds when it reads again", async () => {
      const { h, stream, sweepOn, hasEnded } = await stalled();
      sweepOn(DEFAULT_OPTIONS.maxStallMs - 1000);
      expect([h.pipeline.size, hasEnded()]).toEqual([1, false]);
      sweepOn(2000);
      expect([h.pipeline.size, h.pipeline.admission.streams, hasEnded()]).toEqual([0, 0, true]);
      expect(await follow(stream).end).toEqual({ code: status.RESOURCE_EXHAUSTED, reason: "WATCH_TOO_SLOW", token: "token-7" });
    });

    test("and is reset when it does not, so that nothing of it is held", async () => {
      const { h, stream, sweepOn } = await stalled();
      sweepOn(DEFAULT_OPTIONS.maxStallMs + 1000);
      sweepOn(DEFAULT_OPTIONS.resetMs + 1000);
      expect(h.pipeline.size).toBe(0);
      const { end } = follow(stream);
      expect(await end).toMatchObject({ code: status.RESOURCE_EXHAUSTED, reason: undefined });
    });

    test("ends at once when its policy goes, though a write is pending", async () => {
      const { h, stream, hasEnded } = await stalled();
      h.access.allowed.length = 0;
      h.access.policies = {};
      h.pipeline.judge.changed();
      await until(hasEnded);
      expect(h.pipeline.size).toBe(0);
      stream.cancel();
    });
  });

  test("lesson 37: a change of policy ends the stream that it no longer allows, at once, and leaves the others", async () => {
    const outs: Out<typeof watch.output>[] = [];
    const h = await start(async (request, call, out) => {
      await watchScope(call, out);
      out.judge = () => call.authorizeItem(request.paths[0]!);
      outs.push(out);
      await untilAborted(call);
    });
    h.access.allowed.push(["watch", "secrets/c/d"]);
    const [stays, goes] = [follow(h.open(watch, { paths: ["secrets/a/x"] })), follow(h.open(watch, { paths: ["secrets/c/d"] }))];
    await until(() => outs.length === 2);
    h.access.allowed.pop();
    h.access.policies = {};
    // Whoever writes before the turn of its stream comes finds out himself.
    const late = outs.map((out) =>
      out.write({ revision: 8n }).then(
        () => true,
        () => false,
      ),
    );
    h.pipeline.judge.changed();
    expect(await goes.end).toEqual({ code: status.PERMISSION_DENIED, reason: "PERMISSION_DENIED", token: "token-7" });
    expect((await Promise.all(late)).toSorted()).toEqual([false, true]);
    expect(goes.messages.map((message) => message.revision)).toEqual([7n]);
    await until(() => stays.messages.length === 2);
    expect(h.pipeline.size).toBe(1);
    expect(h.audit.entries.filter((entry) => entry.outcome === "PERMISSION_DENIED")).toMatchObject([{ path: "secrets/c/d" }]);
  });

  test("a stream ends at its age, with its resume token", async () => {
    const h = await start(async (_r, call, out) => {
      await watchScope(call, out);
      await untilAborted(call);
    });
    const { messages, end } = follow(h.open(watch, { paths: ["secrets/a/b"] }));
    await until(() => messages.length === 1);
    h.pipeline.sweep(Date.now() + DEFAULT_OPTIONS.maxStreamMs * 0.89);
    expect(h.pipeline.size).toBe(1);
    h.pipeline.sweep(Date.now() + DEFAULT_OPTIONS.maxStreamMs * 1.11);
    expect(await end).toEqual({ code: status.UNAVAILABLE, reason: "DRAINING", token: "token-7" });
  });

  test("a stream on a connection that is being left ends soon, with its resume token", async () => {
    const h = await start(async (_r, call, out) => {
      await watchScope(call, out);
      await untilAborted(call);
    });
    const { messages, end } = follow(h.open(watch, { paths: ["secrets/a/b"] }));
    await until(() => messages.length === 1);
    h.leave();
    h.pipeline.sweep(Date.now());
    expect(h.pipeline.size).toBe(1);
    h.pipeline.sweep(Date.now() + DEFAULT_OPTIONS.leaveMs);
    expect(await end).toEqual({ code: status.UNAVAILABLE, reason: "DRAINING", token: "token-7" });
  });

  test("nothing is sent on a connection that lost its rights, not even before the sweep", async () => {
    const go = Promise.withResolvers<void>();
    const h = await start(async (_r, call, out) => {
      await watchScope(call, out);
      await go.promise;
      await out.write({ revision: 8n });
    });
    const { messages, end } = follow(h.open(watch, { paths: ["secrets/a/b"] }));
    await until(() => messages.length === 1);
    Object.assign(h.connection!, { notAfter: Date.now() - 1 });
    go.resolve();
    expect(await end).toEqual({ code: status.UNAUTHENTICATED, reason: "CERTIFICATE_EXPIRED", token: "token-7" });
    expect(messages.length).toBe(1);
  });

  test("a caller that goes away ends the handler's signal; its late write rejects and nothing is logged as a failure", async () => {
    let late: unknown;
    const h = await start(async (_r, call, out) => {
      await watchScope(call, out);
      await untilAborted(call);
      late = await out.write({ revision: 9n }).catch((error: unknown) => error);
    });
    const stream = h.open(watch, { paths: ["secrets/a/b"] });
    await new Promise((resolve) => stream.once("data", resolve));
    stream.cancel();
    await until(() => late !== undefined);
    expect(late).toBeInstanceOf(Error);
    expect(h.logs.join("")).not.toContain("call failed");
  });

  test("finding 13: a certificate that ends while the stream is open ends the stream, with the resume token", async () => {
    const h = await start(async (_r, call, out) => {
      await watchScope(call, out);
      await untilAborted(call);
    });
    const { messages, end } = follow(h.open(watch, { paths: ["secrets/a/b"] }));
    await until(() => messages.length === 1);
    h.connection = { ...h.connection!, refusal: "CERTIFICATE_REVOKED" };
    h.pipeline.sweep(Date.now());
    expect(await end).toEqual({ code: status.UNAUTHENTICATED, reason: "CERTIFICATE_REVOKED", token: "token-7" });
  });

  test("the drain ends streams with DRAINING and their resume token, and waits for calls", async () => {
    const h = await start(async (_r, call, out) => {
      await watchScope(call, out);
      await untilAborted(call);
    });
    const { messages, end } = follow(h.open(watch, { paths: ["secrets/a/b"] }));
    await until(() => messages.length === 1);
    await h.server.drain(1000);
    expect(await end).toEqual({ code: status.UNAVAILABLE, reason: "DRAINING", token: "token-7" });
    expect(h.server.inFlight).toBe(0);
  });

  test("an error of the handler keeps its own metadata", async () => {
    const h = await start(async (_r, call, out) => {
      await watchScope(call, out);
      throw new LeaseholdError("WATCH_TOO_SLOW", undefined, { metadata: { resume_token: "own" } });
    });
    expect(await follow(h.open(watch, { paths: ["secrets/a/b"] })).end).toEqual({ code: status.RESOURCE_EXHAUSTED, reason: "WATCH_TOO_SLOW", token: "own" });
  });
});

describe("health and reflection", () => {
  test("Check follows what is set, an unknown service is NOT_FOUND, and nothing of it is audited", async () => {
    const h = await start(async () => undefined);
    const check = async (service: string) => {
      const bytes = Buffer.from(toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, { service })));
      return fromBinary(HealthCheckResponseSchema, await h.raw("/grpc.health.v1.Health/Check", bytes)).status;
    };
    expect(await check("")).toBe(Serving.NOT_SERVING);
    h.server.health.set(true);
    expect([await check(""), await check("leasehold.v1.WatchService")]).toEqual([Serving.SERVING, Serving.SERVING]);
    h.server.health.set(false, "leasehold.v1.WatchService");
    expect([await check(""), await check("leasehold.v1.WatchService")]).toEqual([Serving.SERVING, Serving.NOT_SERVING]);
    await expect(check("no.such.Service")).rejects.toMatchObject({ code: status.NOT_FOUND });
    expect(h.audit.entries).toEqual([]);
  });

  test("reflection v1 and v1alpha list our services and give every file with its imports", async () => {
    const h = await start(async () => undefined);
    for (const version of ["v1", "v1alpha"]) {
      const [list] = await h.reflect(version, [{ messageRequest: { case: "listServices", value: "*" } }]);
      expect(list!.messageResponse.case === "listServicesResponse" && list!.messageResponse.value.service.map((s) => s.name)).toEqual([
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "leasehold.v1.AuditService",
        "leasehold.v1.WatchService",
      ]);
    }
    const symbols = [
      "leasehold.v1.WatchService",
      "leasehold.v1.WatchService.Watch",
      "leasehold.v1.WatchRequest.paths",
      "leasehold.v1.Event",
      "google.protobuf.Timestamp",
      "no.such.Symbol",
    ];
    const answers = await h.reflect(
      "v1",
      symbols.map((value) => ({ messageRequest: { case: "fileContainingSymbol" as const, value } })),
    );
    const files = answers.map((a) =>
      a.messageResponse.case === "fileDescriptorResponse"
        ? a.messageResponse.value.fileDescriptorProto.map((b) => fromBinary(FileDescriptorProtoSchema, b).name)
        : a.messageResponse.case,
    );
    for (const i of [0, 1, 2, 3])
      expect(files[i]).toEqual([
        "leasehold/v1/watch_service.proto",
        "buf/validate/validate.proto",
        "google/protobuf/descriptor.proto",
        "google/protobuf/timestamp.proto",
        "leasehold/v1/value.proto",
      ]);
    expect(files[4]).toEqual(["google/protobuf/timestamp.proto"]);
    expect(files[5]).toBe("errorResponse");
  });

  test("a malformed reflection request ends the stream with INVALID_ARGUMENT", async () => {
    const h = await start(async () => undefined);
    await expect(h.reflect("v1", [Buffer.from([0xff])])).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
  });
});
