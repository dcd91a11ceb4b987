import { create, toBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { WatchResponseSchema } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import type { Change } from "../../src/model/event.ts";
import { composeResponse, eventOf, sharedEvent } from "../../src/rpc/services/watch-message.ts";

const change: Change = {
  revision: 42,
  at: 1_700_000_000_123,
  type: 20,
  path: "credentials/db/ro",
  version: 3,
  versions: [1, 3],
  leaseId: "0b9d7f4c-4c1e-4a51-9a55-0f4f1e2d3c4b",
  principal: "spiffe://acme.test/app",
  expireAt: 1_800_000_000_000,
  removed: true,
};
const parts = { epoch: "1", revision: 42, resumeToken: "abc", events: [sharedEvent(change)], bookmark: false, snapshotEnd: false };

describe("a watch's message, made of events encoded once", () => {
  it("is the WatchResponse, byte for byte", () => {
    for (const [revision, bookmark, snapshotEnd] of [
      [42, false, false],
      [0, true, false],
      [2 ** 40, true, true],
      [0, false, true],
    ] as const) {
      const expected = create(WatchResponseSchema, {
        epoch: "1",
        revision: BigInt(revision),
        resumeToken: "abc",
        events: [eventOf(change, false)],
        bookmark,
        ...(snapshotEnd ? { snapshotEnd: { revision: BigInt(revision) } } : {}),
      });
      const made = composeResponse({ ...parts, revision, bookmark, snapshotEnd }, true).bytes;
      expect(made.equals(toBinary(WatchResponseSchema, expected))).toBe(true);
    }
  });

  it("is one message for receivers of the same, and another one for whoever's differs", () => {
    const first = composeResponse(parts, true);
    expect(composeResponse({ ...parts, events: [sharedEvent(change)] }, true)).toBe(first);
    expect(composeResponse({ ...parts, events: [] }, true)).not.toBe(first);
  });

  it("keeps nothing of a message with values", () => {
    const first = composeResponse(parts, false);
    expect(composeResponse(parts, false)).not.toBe(first);
    expect(composeResponse(parts, true)).not.toBe(first);
  });
});
