import { readFileSync } from "node:fs";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { describe, expect, test } from "vitest";
import { LeaseholdError, type Reason } from "../../src/base/errors.ts";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../src/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.ts";
import { ErrorReasonSchema } from "../../src/gen/leasehold/v1/errors_pb.ts";
import { REASONS } from "../../src/rpc/reasons.ts";
import { grpcError, statusOf } from "../../src/rpc/status.ts";

const reasons = Object.keys(REASONS) as Reason[];
const kinds = (error: unknown) => statusOf(error, "id").details.map((d) => d.typeUrl.split(".").at(-1));
const info = (error: unknown) => fromBinary(ErrorInfoSchema, statusOf(error, "id-1").details[0]!.value);

describe("the list of reasons", () => {
  test("errors.proto, the code and docs/errors.md name the same ones, with the same codes", () => {
    const proto = ErrorReasonSchema.values.slice(1).map((value) => value.name.replace("ERROR_REASON_", ""));
    expect(reasons.toSorted()).toEqual(proto.toSorted());
    const docs = readFileSync(new URL("../../docs/errors.md", import.meta.url), "utf8");
    const rows = [...docs.matchAll(/^\| `([A-Z_]+)` \| ([A-Z_]+) \|/gm)].map((row) => [row[1], row[2]]);
    expect(rows.toSorted()).toEqual(reasons.map((reason) => [reason, status[REASONS[reason].code]]).toSorted());
  });

  test("errors.proto says the code that is sent", () => {
    const text = readFileSync(new URL("../../proto/leasehold/v1/errors.proto", import.meta.url), "utf8");
    const documented = [...text.matchAll(/\/\/ ([A-Z_]+)[^\n]*\n\s*ERROR_REASON_([A-Z_]+) = [1-9]/g)].map((m) => [m[2], m[1]]);
    expect(documented.length).toBe(reasons.length);
    for (const [reason, code] of documented) expect([reason, status[REASONS[reason as Reason].code]]).toEqual([reason, code]);
  });
});

describe("what a client sees", () => {
  test("the text is constant, whatever the error says", () => {
    for (const reason of reasons) {
      const seen = grpcError(new LeaseholdError(reason, "secret=hunter2", { metadata: { path: "secrets/a/b" }, cause: new Error("hunter2") }), "id");
      expect(seen.details).toBe(REASONS[reason].text);
      expect(seen.details.isWellFormed()).toBe(true);
      expect(Buffer.from(seen.metadata.get("grpc-status-details-bin")[0] as Buffer).toString("latin1")).not.toContain("hunter2");
    }
  });

  test("anything that is not ours is INTERNAL with the request id alone", () => {
    for (const thrown of [new Error("x"), { code: 0, details: "x" }, undefined, "x", null]) {
      expect(statusOf(thrown, "id-1")).toMatchObject({ code: status.INTERNAL, message: "internal error" });
      expect(info(thrown)).toMatchObject({ reason: "INTERNAL", domain: "leasehold", metadata: { request_id: "id-1" } });
    }
  });

  test("each detail at most once, and the right ones", () => {
    expect(kinds(new LeaseholdError("SEALED"))).toEqual(["ErrorInfo", "RetryInfo", "RequestInfo"]);
    expect(kinds(new LeaseholdError("VERSION_DELETED"))).toEqual(["ErrorInfo", "PreconditionFailure", "RequestInfo"]);
    expect(kinds(new LeaseholdError("RATE_LIMITED", "", { retryAfterMs: 3 }))).toEqual(["ErrorInfo", "RetryInfo", "QuotaFailure", "RequestInfo"]);
    const invalid = new LeaseholdError("REQUEST_INVALID", "", { violations: [{ field: "ttl", description: "must be positive" }] });
    expect(kinds(invalid)).toEqual(["ErrorInfo", "BadRequest", "RequestInfo"]);
    expect(fromBinary(BadRequestSchema, statusOf(invalid, "").details[1]!.value).fieldViolations).toMatchObject([
      { field: "ttl", description: "must be positive" },
    ]);
  });

  test("the error's own wait wins over the usual one", () => {
    const delay = (error: LeaseholdError) => fromBinary(RetryInfoSchema, statusOf(error, "").details[1]!.value).retryDelay;
    expect(delay(new LeaseholdError("STORE_UNAVAILABLE"))).toMatchObject({ seconds: 1n, nanos: 0 });
    expect(delay(new LeaseholdError("STORE_UNAVAILABLE", "", { retryAfterMs: 2500.5 }))).toMatchObject({ seconds: 2n, nanos: 501_000_000 });
  });

  test("the details stay below 7 KiB, however much there is to say", () => {
    const long = "\u{1f511}".repeat(2000);
    const violations = Array.from({ length: 500 }, (_, i) => ({ field: `${long}${i}`, description: long }));
    const metadata = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`k${i}`, long]));
    for (const error of [new LeaseholdError("REQUEST_INVALID", "", { violations }), new LeaseholdError("IN_USE", "", { metadata })]) {
      expect(toBinary(StatusSchema, statusOf(error, "id")).byteLength).toBeLessThan(7 * 1024);
      expect(info(error).reason).toBe(error.reason);
    }
  });
});
