import {
  Finding_Kind as Kind,
  type OperatorService,
  ReleaseQuarantineRequestSchema,
  ScanTargetRequestSchema,
} from "../../gen/leasehold/v1/operator_service_pb.ts";
import { LeaseholdError } from "../../base/errors.ts";
import type { Catalog } from "../../catalog/catalog.ts";
import type { TargetGate } from "../../leases/gate.ts";
import type { Operations } from "../../operations/operations.ts";
import type { Db } from "../../store/db.ts";
import { listFindings, listQuarantines } from "../../store/reconcile.ts";
import type { TargetRecord } from "../../model/target.ts";
import type { Authorized } from "../call.ts";
import { timestamp } from "../convert.ts";
import type { Handlers } from "../definition.ts";
import type { RequestKeys } from "../request-key.ts";
import { operationMessage } from "./operations.ts";

export interface ReconcileDeps {
  readonly db: Db;
  readonly catalog: Catalog;
  readonly gate: TargetGate;
  readonly operations: Operations;
  readonly requests: RequestKeys;
}

const FIRST = 100;

/** Scans of targets, what they find, and quarantines: the part of OperatorService that compares the ledger with the world. */
export function reconcileHandlers(
  deps: ReconcileDeps,
): Pick<Handlers<typeof OperatorService>, "scanTarget" | "listFindings" | "listQuarantines" | "releaseQuarantine"> {
  const { db, catalog, gate, operations, requests } = deps;
  const targetOf = (path: string): TargetRecord => {
    const target = catalog.target(path.slice("targets/".length));
    if (target === undefined) throw new LeaseholdError("TARGET_NOT_FOUND");
    return target;
  };
  const pathOf = (uid: string): string => `targets/${catalog.targetByUid(uid)?.name ?? uid}`;
  const scan = (call: Authorized, target: TargetRecord, more: object, request: Parameters<Operations["start"]>[4]) =>
    operations.start("scan-target", call.path, { targetUid: target.uid, dropOrphans: false, names: [], ...more }, call.actor(), request);

  return {
    async scanTarget(request, call) {
      const more = { dropOrphans: request.dropOrphans, names: [...request.names] };
      const started = await scan(call, targetOf(call.path), more, requests.of(ScanTargetRequestSchema, request));
      call.recorded = started.recorded;
      return { operation: operationMessage(started.operation) };
    },

    async listFindings(request, call) {
      const found = (await listFindings(db, request.all, request.limit || FIRST)).map((finding) => ({
        ...finding,
        target: finding.kind === "ROTATION_STUCK" ? `rotations/${finding.name}` : pathOf(finding.targetUid),
      }));
      const findings = found
        .filter((finding) => call.allows(finding.target))
        .map(({ id, kind, target, name, firstSeen, lastSeen, resolution }) => ({
          id,
          kind: Kind[kind],
          target,
          name,
          firstSeenTime: timestamp(firstSeen.getTime()),
          lastSeenTime: timestamp(lastSeen.getTime()),
          resolution,
        }));
      return { findings };
    },

    async listQuarantines(_request, call) {
      const quarantines = (await listQuarantines(db))
        .map(({ targetUid, reason, since, endsAt }) => ({
          target: pathOf(targetUid),
          reason,
          startTime: timestamp(since.getTime()),
          endTime: timestamp(endsAt.getTime()),
        }))
        .filter(({ target }) => call.allows(target));
      return { quarantines };
    },

    async releaseQuarantine(request, call) {
      const target = targetOf(call.path);
      await gate.release(target.uid, call.actor());
      call.recorded = true;
      if (!request.revokeUnknown) return {};
      const started = await scan(call, target, { dropOrphans: true, orphanAgeMs: 0 }, requests.of(ReleaseQuarantineRequestSchema, request));
      return { operation: operationMessage(started.operation) };
    },
  };
}
