import { fromBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EventSchema } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import type { Change } from "../../src/model/event.ts";
import { writeEvent } from "../../src/rpc/services/event-writer.ts";
import { encodeEvent, eventOf } from "../../src/rpc/services/watch-message.ts";

const whole = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const moment = fc.integer({ min: 0, max: 253_402_300_799_999 });
const text = fc.oneof(fc.stringMatching(/^[a-z0-9./-]{0,600}$/), fc.string({ unit: "grapheme", maxLength: 200 }));
const change: fc.Arbitrary<Change> = fc.record({
  revision: whole,
  at: moment,
  type: fc.integer({ min: 0, max: 200 }),
  path: text,
  version: whole,
  versions: fc.array(whole, { maxLength: 300 }),
  leaseId: fc.option(fc.uuid(), { nil: undefined }),
  principal: text,
  expireAt: fc.option(moment, { nil: undefined }),
  removed: fc.boolean(),
});

describe("an event written by hand", () => {
  it("is what the generated code writes, byte for byte", () => {
    fc.assert(
      fc.property(change, fc.boolean(), (each, snapshot) => {
        expect(Buffer.from(writeEvent(each, snapshot)).equals(encodeEvent(eventOf(each, snapshot)))).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  it("stays as it was while others are written", () => {
    fc.assert(
      fc.property(fc.array(change, { minLength: 300, maxLength: 300 }), (changes) => {
        const written = changes.map((each) => writeEvent(each, false));
        for (const [i, bytes] of written.entries()) expect(fromBinary(EventSchema, bytes).revision).toBe(BigInt(changes[i]!.revision));
      }),
      { numRuns: 5 },
    );
  });
});
