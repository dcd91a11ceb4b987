import { create } from "@bufbuild/protobuf";
import { type Lease, Lease_EndCause as EndCause, Lease_State as State } from "../gen/leasehold/v1/lease_pb.ts";
import { LeaseService } from "../gen/leasehold/v1/lease_service_pb.ts";
import { type Event, EventSchema, EventType } from "../gen/leasehold/v1/watch_service_pb.ts";
import type { Client } from "./client.ts";
import { CallError } from "./errors.ts";

/** One lease as it is now, as the event that stands for all that led to it. Throws CallError, but not for a lease that is forgotten already: that one has ended. */
export async function leaseNow(client: Client, path: string, revision: bigint): Promise<Event> {
  try {
    const { lease } = await client.call(LeaseService.method.getLease, { path });
    return eventOf(lease!, revision);
  } catch (error) {
    if (!(error instanceof CallError) || error.reason !== "LEASE_NOT_FOUND") throw error;
    return create(EventSchema, { revision, type: EventType.LEASE_REVOKED, leasePath: path, removed: true, snapshot: true });
  }
}

function eventOf(lease: Lease, revision: bigint): Event {
  const ended = lease.state === State.REVOKED || lease.state === State.ROLLED_BACK;
  const type = !ended ? EventType.LEASE_ISSUED : lease.endCause === EndCause.EXPIRED ? EventType.LEASE_EXPIRED : EventType.LEASE_REVOKED;
  const time = ended ? lease.endTime : lease.issueTime;
  return create(EventSchema, {
    revision,
    type,
    path: lease.rolePath,
    leasePath: lease.path,
    principal: lease.principal,
    removed: ended,
    snapshot: true,
    ...(time === undefined ? {} : { time }),
    ...(lease.expireTime === undefined ? {} : { expireTime: lease.expireTime }),
  });
}
