import { randomUUID } from "node:crypto";
import type { Command } from "commander";
import { IdentityService, WhoAmIResponseSchema } from "../gen/leasehold/v1/identity_service_pb.ts";
import { GetServerInfoResponseSchema, ListKeysResponseSchema, OperatorService, TestTargetResponseSchema } from "../gen/leasehold/v1/operator_service_pb.ts";
import { bareName, withClient } from "./context.ts";
import { CheckFailed } from "./exit.ts";
import { finishOperation } from "./operation.ts";
import { printFields, printLine, printTable, printValue, when, wholeJsonOf } from "./output.ts";

const { method } = OperatorService;

export function addOperatorCommands(program: Command): void {
  program
    .command("whoami")
    .description("who the broker takes you for")
    .action((_options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const me = await client.call(IdentityService.method.whoAmI, {});
        if (format !== "table") return printValue(wholeJsonOf(WhoAmIResponseSchema, me), format);
        printFields({ principal: me.principal, "certificate ends": when(me.certificateExpireTime), policies: me.policies.join(" ") });
      }),
    );

  program
    .command("info")
    .description("what this replica is and how it stands")
    .action((_options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const info = await client.call(method.getServerInfo, {});
        if (format !== "table") return printValue(wholeJsonOf(GetServerInfoResponseSchema, info), format);
        printFields({
          version: info.version,
          instance: info.instance,
          process: info.processId,
          epoch: info.epoch,
          revision: String(info.revision),
          started: when(info.startTime),
          redis: info.redis,
          warnings: info.warnings.join("; "),
        });
      }),
    );

  const keys = program.command("keys").description("the keyring");
  keys
    .command("list")
    .description("the seeds, and how many rows each still holds")
    .action((_options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const listed = await client.call(method.listKeys, {});
        if (format !== "table") return printValue(wholeJsonOf(ListKeysResponseSchema, listed), format);
        printTable(
          ["key", "active", "kms", "kms key", "created", "rows"],
          listed.keys.map((key) => [String(key.keyId), key.active ? "yes" : "", key.provider, key.kmsKeyId, when(key.createTime), String(key.uses)]),
        );
      }),
    );
  keys
    .command("rotate")
    .description("add a seed; what is sealed from now on uses it")
    .action((_options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const rotated = await client.call(method.rotateKeyring, { requestId: randomUUID() });
        if (format === "table") console.log(`key ${rotated.keyId} seals from now on`);
        else printValue({ keyId: rotated.keyId }, format);
      }),
    );
  keys
    .command("rewrap")
    .description("seal everything anew with the newest seed, in the background")
    .option("--wait", "until it is done", false)
    .action((options: { wait: boolean }, command: Command) =>
      withClient(command, async (context) =>
        finishOperation(context, (await context.client.call(method.rewrapKeyring, { requestId: randomUUID() })).operation!, options.wait),
      ),
    );
}

/** Adds `test` to the `target` command. */
export function addTargetTest(target: Command): void {
  target
    .command("test <name>")
    .description("try a throw-away login through its whole life; exits with 1 when something is missing")
    .option("--role <path>", "also with this role's groups and database")
    .action((name: string, options: { role?: string }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const tested = await client.call(method.testTarget, { path: `targets/${bareName(name, "targets")}`, rolePath: options.role ?? "" });
        if (format !== "table") printValue(wholeJsonOf(TestTargetResponseSchema, tested), format);
        else for (const check of tested.checks) printLine([`${check.ok ? "ok    " : "FAILED"} ${check.name}${check.detail === "" ? "" : `: ${check.detail}`}`]);
        if (!tested.ok) throw new CheckFailed();
      }),
    );
}
