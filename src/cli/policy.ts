import { randomUUID } from "node:crypto";
import type { Command } from "commander";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { ExplainAccessResponseSchema, PolicySchema, PolicyService } from "../gen/leasehold/v1/policy_service_pb.ts";
import { bareName, parseTime, withClient } from "./context.ts";
import { CheckFailed } from "./exit.ts";
import { jsonOf, printLine, printTable, printValue, when, wholeJsonOf } from "./output.ts";
import { allPages } from "./secret.ts";

const { method } = PolicyService;

export function addPolicyCommands(program: Command): void {
  const policy = program.command("policy").description("who may do what");

  policy
    .command("list")
    .description("in name order")
    .action((_options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const policies = await allPages(async (pageToken) => {
          const page = await client.call(method.listPolicies, { pageSize: 1000, pageToken });
          return { items: page.policies, next: page.nextPageToken };
        });
        if (format === "table")
          printTable(
            ["name", "rules", "principals", "updated"],
            policies.map((each) => [each.name, String(each.rules.length), each.principals.join(" "), when(each.updateTime)]),
          );
        else printValue({ policies: policies.map((each) => jsonOf(PolicySchema, each)) }, format);
      }),
    );

  policy
    .command("get <name>")
    .description("one policy, as YAML unless -o json")
    .action((name: string, _options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const got = await client.call(method.getPolicy, { path: `policies/${bareName(name, "policies")}` });
        printValue(jsonOf(PolicySchema, got.policy!), format === "json" ? "json" : "yaml");
      }),
    );

  policy
    .command("delete <name>")
    .description("delete a policy (as `delete policy`)")
    .action((name: string, _options: object, command: Command) =>
      withClient(command, async ({ client }) => {
        await client.call(method.deletePolicy, { path: `policies/${bareName(name, "policies")}`, requestId: randomUUID() });
        console.log(`policy ${name} deleted`);
      }),
    );

  policy
    .command("explain <capability> <path>")
    .description("why you, or a principal, may or may not; exits with 1 when not")
    .option("--principal <spiffe-id>", "somebody else")
    .option("--ttl <time>", "for issue: the TTL that would be asked for")
    .action((capability: string, path: string, options: { principal?: string; ttl?: string }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const ttl = options.ttl === undefined ? {} : { ttl: durationFromMs(parseTime(options.ttl, "--ttl")) };
        const explained = await client.call(method.explainAccess, { principal: options.principal ?? "", path, capability, ...ttl });
        if (format !== "table") printValue(wholeJsonOf(ExplainAccessResponseSchema, explained), format);
        else {
          printLine([explained.explanation]);
          for (const rule of explained.nearestRules) printLine([`  ${rule.policy} rule ${rule.ruleIndex} (${rule.pathPattern}): ${rule.lacked}`]);
        }
        if (!explained.allowed) throw new CheckFailed();
      }),
    );
}
