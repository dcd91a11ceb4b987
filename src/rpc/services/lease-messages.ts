import type { MessageInitShape } from "@bufbuild/protobuf";
import { Lease_EndCause as EndCause, type LeaseSchema, Lease_State as State } from "../../gen/leasehold/v1/lease_pb.ts";
import type { LeaseView } from "../../model/lease.ts";
import { timestamp } from "../convert.ts";

export function leaseMessage(lease: LeaseView): MessageInitShape<typeof LeaseSchema> {
  return {
    path: `leases/${lease.id}`,
    rolePath: lease.path,
    principal: lease.principal,
    state: State[lease.state],
    issueTime: timestamp(lease.issuedAt),
    expireTime: timestamp(lease.expireAt),
    renewTime: timestamp(lease.renewAt),
    maxExpireTime: timestamp(lease.maxExpireAt),
    endCause: lease.endCause === undefined ? EndCause.UNSPECIFIED : EndCause[lease.endCause],
    username: lease.username,
    ...(lease.endedAt === undefined ? {} : { endTime: timestamp(lease.endedAt) }),
    ...(lease.state === "REVOKING"
      ? {
          revocation: {
            attempts: lease.attempts,
            problem: lease.problem ?? "",
            stalled: lease.stalled,
            ...(lease.nextActionAt === undefined ? {} : { nextAttemptTime: timestamp(lease.nextActionAt) }),
          },
        }
      : {}),
  };
}
