import { status } from "@grpc/grpc-js";
import { expect, it } from "vitest";
import { verdictOf } from "../../src/client/verdict.ts";

it.each([
  ["", "Bandwidth exhausted or memory limit exceeded", "again"],
  ["WATCH_TOO_SLOW", "too slow", "again"],
  ["RATE_LIMITED", "too many calls", "again"],
  ["QUOTA_EXCEEDED", "too many leases", "final"],
  ["", "Received message larger than max (20 vs. 10)", "final"],
])("RESOURCE_EXHAUSTED %s (%s): %s", (reason, message, verdict) => {
  expect(verdictOf({ code: status.RESOURCE_EXHAUSTED, reason, message })).toBe(verdict);
});
