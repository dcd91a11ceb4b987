import { fromBinary } from "@bufbuild/protobuf";
import { SecretPayloadSchema } from "../../gen/leasehold/internal/v1/stored_pb.ts";
import { type CredentialService, IssueCredentialRequestSchema } from "../../gen/leasehold/v1/credential_service_pb.ts";
import { LeaseholdError } from "../../base/errors.ts";
import type { LeaseIssuer } from "../../leases/issue.ts";
import type { Rotators } from "../../rotation/rotators.ts";
import { CURRENT, type SecretReader } from "../../secrets/read.ts";
import type { Db } from "../../store/db.ts";
import { findRotation } from "../../store/rotations.ts";
import type { Freshness } from "../collaborators.ts";
import { durationMs, timestamp } from "../convert.ts";
import type { Handlers } from "../definition.ts";
import type { RequestKeys } from "../request-key.ts";
import { leaseMessage } from "./lease-messages.ts";

/** What GetStaticCredential needs. */
export interface StaticDeps {
  readonly db: Db;
  readonly reader: SecretReader;
  readonly rotators: Rotators;
  readonly freshness: Freshness;
}

export function credentialService(issuer: LeaseIssuer, requests: RequestKeys, statics: StaticDeps): Handlers<typeof CredentialService> {
  return {
    async issueCredential(request, call) {
      const key = requests.of(IssueCredentialRequestSchema, request);
      const issued = await issuer.issue({ path: call.path, ttlMs: durationMs(request.ttl, "ttl"), actor: call.actor(), request: key });
      call.recorded = issued.recorded;
      call.lease = issued.lease.id;
      call.onUndelivered(() => void issuer.undelivered(issued.lease));
      const data = { ...issued.lease.connection, password: issued.password.revealText() };
      issued.password.wipe();
      return {
        lease: leaseMessage(issued.lease),
        data: Object.fromEntries(Object.entries(data).map(([name, value]) => [name, { kind: { case: "text" as const, value } }])),
        revision: BigInt(issued.revision),
      };
    },

    async getStaticCredential(request, call) {
      const { db, reader, rotators, freshness } = statics;
      if (Number(request.minRevision) > freshness.applied) await freshness.catchUp(Number(request.minRevision));
      const rotation = await findRotation(db, call.path);
      if (rotation === undefined) throw new LeaseholdError("ROTATION_NOT_FOUND");
      const { version, payload } = await reader.get(call.path, CURRENT);
      call.version = version.version;
      const { data } = fromBinary(SecretPayloadSchema, Uint8Array.from(payload));
      payload.fill(0);
      const times = {
        createTime: timestamp(version.createdAt),
        expireTime: timestamp(version.expireAt),
        lastRotationTime: timestamp(rotation.lastAt),
        nextRotationTime: timestamp(rotation.nextAt),
      };
      return {
        path: call.path,
        version: BigInt(version.version),
        data,
        rotating: rotation.state === "RUNNING" && rotation.step !== "FINISH",
        overlap: rotators.definition(rotation.rotator).abilities.overlap,
        ...Object.fromEntries(Object.entries(times).filter(([, value]) => value !== undefined)),
      };
    },
  };
}
