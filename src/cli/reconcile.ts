import { randomUUID } from "node:crypto";
import type { Command } from "commander";
import { Finding_Kind as Kind, ListFindingsResponseSchema, ListQuarantinesResponseSchema, OperatorService } from "../gen/leasehold/v1/operator_service_pb.ts";
import { bareName, withClient } from "./context.ts";
import { finishOperation } from "./operation.ts";
import { nameOf, printLine, printTable, printValue, when, wholeJsonOf } from "./output.ts";

const { method } = OperatorService;
const pathOf = (name: string): string => `targets/${bareName(name, "targets")}`;

/** `target scan` and `target rotate-login`, for the commands about targets. */
export function addTargetScan(target: Command): void {
  target
    .command("rotate-login <target>")
    .description("give the broker's other login there a new password, and use it from now on")
    .action((name: string, _options: object, command: Command) =>
      withClient(command, async ({ client }) => {
        const { login } = await client.call(method.rotateTargetLogin, { path: pathOf(name), requestId: randomUUID() });
        printLine([pathOf(name), `is reached as ${login}`]);
      }),
    );
  target
    .command("scan <target>")
    .description("compare the logins there with the ledger, both ways")
    .option("--drop-orphans", "drop logins that no lease accounts for, once they were first seen a grace period ago", false)
    .option("--name <login...>", "drop these at once, if no lease accounts for them")
    .option("--wait", "until it has ended", false)
    .action((name: string, options: { dropOrphans: boolean; name?: string[]; wait: boolean }, command: Command) =>
      withClient(command, async (context) => {
        const request = { path: pathOf(name), dropOrphans: options.dropOrphans, names: options.name ?? [], requestId: randomUUID() };
        await finishOperation(context, (await context.client.call(method.scanTarget, request)).operation!, options.wait);
      }),
    );
}

export function addReconcileCommands(program: Command): void {
  program
    .command("findings")
    .description("what scans of targets found, newest first")
    .option("--all", "resolved ones too", false)
    .action((options: { all: boolean }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const listed = await client.call(method.listFindings, { all: options.all, limit: 1000 });
        if (format !== "table") return printValue(wholeJsonOf(ListFindingsResponseSchema, listed), format);
        printTable(
          ["finding", "target", "name", "first seen", "last seen", "resolution"],
          listed.findings.map((each) => [nameOf(Kind, each.kind), each.target, each.name, when(each.firstSeenTime), when(each.lastSeenTime), each.resolution]),
        );
      }),
    );

  const quarantine = program.command("quarantine").description("targets on which another history of this ledger was at work");
  quarantine
    .command("list")
    .description("oldest first")
    .action((_options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const listed = await client.call(method.listQuarantines, {});
        if (format !== "table") return printValue(wholeJsonOf(ListQuarantinesResponseSchema, listed), format);
        printTable(
          ["target", "reason", "since", "ends by itself"],
          listed.quarantines.map((each) => [each.target, each.reason, when(each.startTime), when(each.endTime)]),
        );
      }),
    );
  quarantine
    .command("release <target>")
    .description("this ledger is the one that counts: work goes on, logins it does not know stay")
    .action((name: string, _options: object, command: Command) =>
      withClient(command, async ({ client }) => {
        await client.call(method.releaseQuarantine, { path: pathOf(name), requestId: randomUUID() });
        printLine([pathOf(name), "is released"]);
      }),
    );
  quarantine
    .command("revoke <target>")
    .description("release it, and drop every login of this broker's there that the ledger does not know")
    .option("--wait", "until that has been done", false)
    .action((name: string, options: { wait: boolean }, command: Command) =>
      withClient(command, async (context) => {
        const released = await context.client.call(method.releaseQuarantine, { path: pathOf(name), revokeUnknown: true, requestId: randomUUID() });
        await finishOperation(context, released.operation!, options.wait);
      }),
    );
}
