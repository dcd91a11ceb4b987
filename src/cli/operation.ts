import { randomUUID } from "node:crypto";
import type { Command } from "commander";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { type Operation, OperationSchema, Operation_State as State } from "../gen/leasehold/v1/operation_pb.ts";
import { OperationService } from "../gen/leasehold/v1/operation_service_pb.ts";
import { type Context, withClient } from "./context.ts";
import { CheckFailed } from "./exit.ts";
import { type Format, nameOf, printFields, printTable, printValue, when, wholeJsonOf } from "./output.ts";

const { method } = OperationService;

export function addOperationCommands(program: Command): void {
  const operation = program.command("operation").description("background work: prefix revocations, rewraps");
  operation
    .command("list")
    .description("newest first")
    .action((_options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const { operations } = await client.call(method.listOperations, { pageSize: 1000 });
        if (format === "table")
          printTable(
            ["operation", "kind", "state", "done", "total", "updated"],
            operations.map((each) => [each.path, each.kind, nameOf(State, each.state), String(each.done), String(each.total), when(each.updateTime)]),
          );
        else printValue({ operations: operations.map((each) => wholeJsonOf(OperationSchema, each)) }, format);
      }),
    );
  operation
    .command("get <operation>")
    .description("how one stands, such as operations/<id>")
    .action((path: string, _options: object, command: Command) =>
      withClient(command, async ({ client, format }) => show((await client.call(method.getOperation, { path: operationPath(path) })).operation!, format)),
    );
  operation
    .command("wait <operation>")
    .description("until it has ended")
    .action((path: string, _options: object, command: Command) =>
      withClient(command, async (context) =>
        finishOperation(context, (await context.client.call(method.getOperation, { path: operationPath(path) })).operation!, true),
      ),
    );
  operation
    .command("cancel <operation>")
    .description("stop it; what it has done stays done")
    .action((path: string, _options: object, command: Command) =>
      withClient(command, async ({ client, format }) =>
        show((await client.call(method.cancelOperation, { path: operationPath(path), requestId: randomUUID() })).operation!, format),
      ),
    );
}

/** Shows an operation, at its end if asked to wait. One that did not succeed is a failure. */
export async function finishOperation({ client, format, timeoutMs }: Context, started: Operation, wait: boolean): Promise<void> {
  let operation = started;
  while (wait && operation.state === State.RUNNING) {
    const timeout = durationFromMs(Math.max(1, Math.min(timeoutMs / 2, 25_000)));
    operation = (await client.call(method.waitOperation, { path: operation.path, timeout })).operation!;
  }
  show(operation, format);
  if (wait && operation.state !== State.SUCCEEDED) throw new CheckFailed();
}

function show(operation: Operation, format: Format): void {
  if (format !== "table") return printValue(wholeJsonOf(OperationSchema, operation), format);
  printFields({
    operation: operation.path,
    kind: operation.kind,
    state: nameOf(State, operation.state),
    done: `${operation.done} of ${operation.total}`,
    problem: operation.problem,
    started: when(operation.createTime),
  });
}

function operationPath(text: string): string {
  return text.startsWith("operations/") ? text : `operations/${text}`;
}
