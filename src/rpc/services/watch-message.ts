import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { EventSchema, type EventType, type WatchResponseSchema } from "../../gen/leasehold/v1/watch_service_pb.ts";
import { type Change, isRotationChange } from "../../model/event.ts";
import { timestamp } from "../convert.ts";
import { toBuffer } from "../definition.ts";
import { Encoded } from "../encoded.ts";
import { writeEvent } from "./event-writer.ts";

export type EventMessage = MessageInitShape<typeof EventSchema>;

/** Fields of a WatchResponse, the events as `encodeEvent`, `writeEvent` or `sharedEvent` made them. */
export interface Parts {
  readonly epoch: string;
  readonly revision: number;
  readonly resumeToken: string;
  readonly events: readonly Uint8Array[];
  readonly bookmark: boolean;
  readonly snapshotEnd: boolean;
}

const LENGTH = WireType.LengthDelimited;

/** Bytes of an Event without values, as long as its change is held: every watcher of a change is given the same object. Names and numbers, no secret. */
const shared = new WeakMap<Change, Uint8Array>();

/** What was composed last: watchers of the same paths are served one after the other and get the same bytes. Never one with values. */
let last: { readonly parts: Parts; readonly message: Encoded<typeof WatchResponseSchema> } | undefined;

/** The Event of a change, without values, encoded once for all its receivers. */
export function sharedEvent(change: Change): Uint8Array {
  let bytes = shared.get(change);
  if (bytes === undefined) {
    bytes = writeEvent(change, false);
    shared.set(change, bytes);
  }
  return bytes;
}

/** One receiver's own Event. */
export function encodeEvent(event: EventMessage): Uint8Array {
  return toBinary(EventSchema, create(EventSchema, event));
}

/** @param share false where an event carries values: nothing keeps them then. */
export function composeResponse(parts: Parts, share: boolean): Encoded<typeof WatchResponseSchema> {
  if (share && last !== undefined && isSame(last.parts, parts)) return last.message;
  const out = new BinaryWriter();
  if (parts.epoch !== "") out.tag(1, LENGTH).string(parts.epoch);
  if (parts.revision !== 0) out.tag(2, WireType.Varint).int64(parts.revision);
  if (parts.resumeToken !== "") out.tag(3, LENGTH).string(parts.resumeToken);
  for (const event of parts.events) out.tag(4, LENGTH).bytes(event);
  if (parts.snapshotEnd) {
    out.tag(5, LENGTH).fork();
    if (parts.revision !== 0) out.tag(1, WireType.Varint).int64(parts.revision);
    out.join();
  }
  if (parts.bookmark) out.tag(6, WireType.Varint).bool(true);
  const message = new Encoded<typeof WatchResponseSchema>(toBuffer(out.finish()));
  if (share) last = { parts, message };
  return message;
}

export function eventOf(change: Change, snapshot: boolean): EventMessage {
  return {
    revision: BigInt(change.revision),
    type: change.type as EventType,
    path: change.path,
    time: timestamp(change.at),
    snapshot,
    version: BigInt(change.version),
    versions: change.versions.map(BigInt),
    leasePath: change.leaseId === undefined ? "" : `leases/${change.leaseId}`,
    principal: change.principal,
    removed: change.removed,
    ...(change.expireAt === undefined ? {} : { [isRotationChange(change.type) ? "nextRotationTime" : "expireTime"]: timestamp(change.expireAt) }),
  };
}

function isSame(a: Parts, b: Parts): boolean {
  return (
    a.revision === b.revision &&
    a.resumeToken === b.resumeToken &&
    a.bookmark === b.bookmark &&
    a.snapshotEnd === b.snapshotEnd &&
    a.epoch === b.epoch &&
    a.events.length === b.events.length &&
    a.events.every((event, i) => event === b.events[i])
  );
}
