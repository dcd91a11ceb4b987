import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { Told } from "../../src/client/told.ts";
import { type Event, EventSchema, EventType } from "../../src/gen/leasehold/v1/watch_service_pb.ts";

/** A rotation's end and the snapshot's entry of the same moment. */
const event = (type: EventType, snapshot: boolean): Event =>
  create(EventSchema, { type, path: "secrets/a", version: 2n, time: { seconds: 10n, nanos: 0 }, snapshot });
const entry = event(EventType.SECRET_VERSION_CREATED, true);
const success = event(EventType.ROTATION_SUCCEEDED, false);

it.each([
  ["all of it", [], false],
  ["new versions as well", [EventType.SECRET_VERSION_CREATED, EventType.ROTATION_SUCCEEDED], false],
  ["rotations alone, and so not of the snapshot's secrets", [EventType.ROTATION_SUCCEEDED], true],
])("a rotation that the page of a snapshot showed already is told to who asked for %s: %o", (_who, types, isTold) => {
  const told = new Told(new Set(types));
  told.beginSnapshot();
  told.entry(entry);
  told.endSnapshot(1n, new Set());
  expect(told.change(success)).toBe(isTold);
});
