import type { MessageInitShape } from "@bufbuild/protobuf";
import type { AuditRecordSchema, AuditService } from "../../gen/leasehold/v1/audit_service_pb.ts";
import type { Clock } from "../../base/clock.ts";
import { parseScope } from "../../model/path.ts";
import { tailAudit, type TailedRecord } from "../../audit/tail.ts";
import { verifyAudit } from "../../audit/verify.ts";
import type { Kms } from "../../kms/kms.ts";
import type { Db } from "../../store/db.ts";
import { timestamp } from "../convert.ts";
import type { Handlers } from "../definition.ts";

export function auditService(db: Db, kms: Kms, clock: Clock): Handlers<typeof AuditService> {
  return {
    async tailAudit(request, call, out) {
      if (request.path !== "") parseScope(request.path);
      const filter = { principal: request.principal, path: request.path };
      for await (const records of tailAudit(db, clock, filter, request.last, !request.noFollow, call.signal))
        await out.write({ records: records.map(message) });
    },

    async verifyAudit(request) {
      const found = await verifyAudit(db, await kms.publicKey(), request.chain);
      return {
        ok: found.problems.length === 0,
        chains: BigInt(found.chains),
        records: BigInt(found.records),
        unsignedTail: BigInt(found.unsignedTail),
        problems: found.problems.map((problem) => ({ ...problem, sequence: BigInt(problem.sequence) })),
      };
    },
  };
}

function message(record: TailedRecord): MessageInitShape<typeof AuditRecordSchema> {
  return {
    chain: record.chain,
    sequence: BigInt(record.seq),
    time: timestamp(record.at),
    requestId: record.request_id ?? "",
    traceId: record.trace_id ?? "",
    principal: record.principal,
    action: record.action,
    capability: record.capability ?? "",
    path: record.path,
    outcome: record.outcome,
    version: BigInt(record.version ?? 0),
    revision: BigInt(record.revision ?? 0),
    lease: record.lease ?? "",
    peer: record.peer ?? "",
    count: BigInt(record.count ?? 0),
    cause: record.cause ?? "",
  };
}
