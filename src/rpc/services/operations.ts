import type { MessageInitShape } from "@bufbuild/protobuf";
import { CancelOperationRequestSchema, type OperationService } from "../../gen/leasehold/v1/operation_service_pb.ts";
import { Operation_State as State, type OperationSchema } from "../../gen/leasehold/v1/operation_pb.ts";
import { sleep, type Clock } from "../../base/clock.ts";
import type { Operations } from "../../operations/operations.ts";
import type { Db } from "../../store/db.ts";
import { listOperations, type OperationRecord } from "../../store/operations.ts";
import { durationMs, timestamp } from "../convert.ts";
import type { Handlers } from "../definition.ts";
import type { RequestKeys } from "../request-key.ts";

const WAIT_MS = 30_000;
const MAX_WAIT_MS = 300_000;
const LOOK_MS = 200;

export function operationService(db: Db, operations: Operations, requests: RequestKeys, clock: Clock): Handlers<typeof OperationService> {
  const idOf = (path: string): string => path.slice("operations/".length);
  return {
    async getOperation(_request, call) {
      return { operation: operationMessage(await operations.get(idOf(call.path))) };
    },

    async listOperations(request, call) {
      const rows = await listOperations(db, request.pageSize || 100);
      return { operations: rows.filter((row) => call.allows(`operations/${row.id}`) || row.principal === call.principal.id).map(operationMessage) };
    },

    async cancelOperation(request, call) {
      const { operation, recorded } = await operations.cancel(idOf(call.path), call.actor(), requests.of(CancelOperationRequestSchema, request));
      call.recorded = recorded;
      return { operation: operationMessage(operation) };
    },

    async waitOperation(request, call) {
      const until = Math.min(call.startedAt + Math.min(durationMs(request.timeout, "timeout") ?? WAIT_MS, MAX_WAIT_MS), call.deadlineAt - 500);
      for (;;) {
        const operation = await operations.get(idOf(call.path));
        if (operation.state !== "RUNNING" || Date.now() >= until || call.cancelled) return { operation: operationMessage(operation) };
        await sleep(clock, LOOK_MS, call.signal);
      }
    },
  };
}

export function operationMessage(record: OperationRecord): MessageInitShape<typeof OperationSchema> {
  return {
    path: `operations/${record.id}`,
    kind: record.kind,
    state: State[record.state],
    done: BigInt(record.done),
    total: BigInt(record.total),
    problem: record.problem,
    principal: record.principal,
    createTime: timestamp(record.createdAt),
    updateTime: timestamp(record.updatedAt),
  };
}
