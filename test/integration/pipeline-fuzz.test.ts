import { create, type DescMessage, toBinary } from "@bufbuild/protobuf";
import { Metadata, type StatusObject, type ServerUnaryCall, status } from "@grpc/grpc-js";
import { pino } from "pino";
import { expect, test } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { Metrics } from "../../src/base/metrics.ts";
import type { Handlers, ServiceShape } from "../../src/rpc/definition.ts";
import { SERVICES } from "../../src/rpc/methods.ts";
import { DEFAULT_OPTIONS } from "../../src/rpc/options.ts";
import { Pipeline } from "../../src/rpc/pipeline.ts";
import { ALICE, TestAccess, TestResources } from "../support/rpc-harness.ts";

/** Byte strings per rpc; FUZZ_RUNS=10000 for the whole measure. */
const RUNS = Number(process.env["FUZZ_RUNS"] ?? 500);

/** A small repeatable generator (mulberry32): a failure can be run again. */
function random(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const PATHS = ["secrets/a/b", "leases/x", "credentials/postgres/a/ro", "policies/p", "targets/t", "operations/o", "secrets/../x", "\u0000", ""];

/** Pure noise, or a message that begins like a real one and then has bytes changed, dropped and added. */
function noise(schema: DescMessage, next: () => number): Buffer {
  const below = (n: number): number => Math.floor(next() * n);
  if (next() < 0.3) return Buffer.from(Array.from({ length: below(64) }, () => below(256)));
  const request = create(schema) as unknown as Record<string, unknown>;
  if (schema.fields.some((f) => f.name === "path")) request["path"] = PATHS[below(PATHS.length)];
  if (schema.fields.some((f) => f.name === "request_id")) request["requestId"] = "0199f3c2-8d1e-7000-8000-000000000001";
  const bytes = [...toBinary(schema, request as never)];
  for (let i = below(6); i > 0; i--) {
    const at = below(bytes.length + 1);
    if (next() < 0.5) bytes.splice(at, below(3), below(256), below(256));
    else if (at < bytes.length) bytes[at] = below(256);
  }
  return Buffer.from(bytes);
}

test("fuzzed bytes: every unary rpc gives each exactly one documented status", async () => {
  const access = new TestAccess();
  for (const root of ["secrets", "policies", "targets"])
    access.allowed.push(["read", `${root}/**`], ["write", `${root}/**`], ["operate", `${root}/**`], ["policy-read", `${root}/**`]);
  const logs: string[] = [];
  const pipeline = new Pipeline(
    {
      connections: { connectionOf: () => ({ id: "c", peer: "", serial: "", notAfter: Number.MAX_SAFE_INTEGER, principal: ALICE, refusal: undefined }) },
      access,
      audit: { append: (_entry, done) => done(undefined, 0) },
      freshness: { applied: 0, lagMs: 0, catchUp: async () => undefined },
      resources: new TestResources(),
      observer: { log: pino({ level: "error" }, { write: (line: string) => void logs.push(line) }), metrics: new Metrics(), spans: undefined },
    },
    { ...DEFAULT_OPTIONS, denialWindowMs: 1, rate: { perSecond: 1e9, burst: 1e9 } },
  );
  const next = random(20260101);
  const documented = new Set([status.INVALID_ARGUMENT, status.PERMISSION_DENIED, status.NOT_FOUND]);
  for (const service of Object.values(SERVICES)) {
    const refuse = (): never => {
      throw new LeaseholdError("SECRET_NOT_FOUND");
    };
    const handlers = Object.fromEntries(service.methods.map((m) => [m.localName, refuse]));
    for (const method of pipeline.bind(service, handlers as Handlers<ServiceShape>)) {
      if (method.desc.methodKind !== "unary") continue;
      const run = pipeline.unary(method);
      for (let i = 0; i < RUNS; i++) {
        const bytes = noise(method.desc.input, next);
        const answers: (StatusObject | undefined)[] = [];
        await new Promise<void>((resolve) => {
          const raw = {
            request: bytes,
            metadata: new Metadata(),
            cancelled: false,
            getPeer: () => "c",
            getDeadline: () => Number.POSITIVE_INFINITY,
            once: () => undefined,
          };
          run(raw as unknown as ServerUnaryCall<Buffer, Buffer>, (error) => {
            answers.push(error as StatusObject);
            resolve();
          });
        });
        expect([method.action, bytes.toString("hex"), answers.length, documented.has(answers[0]!.code)]).toEqual([
          method.action,
          bytes.toString("hex"),
          1,
          true,
        ]);
      }
    }
  }
  expect(logs).toEqual([]);
  expect(pipeline.size).toBe(0);
  await pipeline.drain(0);
}, 120_000);
