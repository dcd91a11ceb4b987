import { randomUUID } from "node:crypto";
import type { Command } from "commander";
import type { JsonObject } from "@bufbuild/protobuf";
import { OperatorService } from "../gen/leasehold/v1/operator_service_pb.ts";
import { PolicyService } from "../gen/leasehold/v1/policy_service_pb.ts";
import { RotationService } from "../gen/leasehold/v1/rotation_service_pb.ts";
import type { Client } from "../client/client.ts";
import { bareName, withClient } from "./context.ts";
import { UsageError } from "./exit.ts";
import { applyManifest, manifestOf, readManifests } from "./manifest.ts";
import { printLine, printStreamed, printTable, printValue } from "./output.ts";
import { allPages } from "./secret.ts";

export function addApplyCommands(program: Command): void {
  program
    .command("apply")
    .description("make the broker's policies, targets, roles, secrets and rotations those of YAML documents")
    .requiredOption("-f, --file <path>", "a file, or a folder of .yaml files")
    .option("--dry-run", "check and show, change nothing", false)
    .action((options: { file: string; dryRun: boolean }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const results: { name: string; applied: string }[] = [];
        try {
          for (const manifest of readManifests(options.file)) {
            const result = await applyManifest(client, manifest, options.dryRun);
            results.push(result);
            if (format === "table") printLine([`${result.name} ${result.applied}${options.dryRun ? " (dry run)" : ""}`]);
          }
        } finally {
          // Also where a later document failed: what was done before it stays done.
          if (format !== "table") printValue({ results }, format);
        }
      }),
    );

  program
    .command("get <kind> [name]")
    .description("policies, targets, roles or rotations; with a name, a document that `apply` takes back")
    .action((kind: string, name: string | undefined, _options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        if (name !== undefined) return printValue(await one(client, kindOf(kind), name), format === "json" ? "json" : "yaml");
        const documents = await every(client, kindOf(kind));
        if (format === "table")
          printTable(
            ["name"],
            documents.map((document) => [textOf(document["path"] ?? document["name"])]),
          );
        else if (format === "json") printValue({ [PLURAL[kindOf(kind)]]: documents }, format);
        else for (const document of documents) printStreamed(document, format);
      }),
    );

  program
    .command("delete <kind> <name>")
    .description("a policy, target, role or rotation")
    .option("--forget-leases", "of a target that is gone: give up its live leases", false)
    .action((kind: string, name: string, { forgetLeases }: { forgetLeases: boolean }, command: Command) =>
      withClient(command, async ({ client }) => {
        const requestId = randomUUID();
        const which = kindOf(kind);
        if (which === "policy") await client.call(PolicyService.method.deletePolicy, { path: `policies/${bareName(name, "policies")}`, requestId });
        else if (which === "target")
          await client.call(OperatorService.method.deleteTarget, { path: `targets/${bareName(name, "targets")}`, requestId, forgetLeases });
        else if (which === "rotation") await client.call(RotationService.method.deleteRotation, { path: name, requestId });
        else await client.call(OperatorService.method.deleteRole, { path: name, requestId });
        console.log(`${which} ${name} deleted`);
      }),
    );
}

type Which = "policy" | "target" | "role" | "rotation";

const PLURAL: Readonly<Record<Which, string>> = { policy: "policies", target: "targets", role: "roles", rotation: "rotations" };

function kindOf(text: string): Which {
  const kinds: Readonly<Record<string, Which>> = {
    policy: "policy",
    policies: "policy",
    target: "target",
    targets: "target",
    role: "role",
    roles: "role",
    rotation: "rotation",
    rotations: "rotation",
  };
  const kind = kinds[text.toLowerCase()];
  if (kind === undefined) throw new UsageError("the kind must be policy, target, role or rotation");
  return kind;
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

async function one(client: Client, kind: Which, name: string): Promise<JsonObject> {
  if (kind === "policy")
    return manifestOf("Policy", (await client.call(PolicyService.method.getPolicy, { path: `policies/${bareName(name, "policies")}` })).policy!);
  if (kind === "target")
    return manifestOf("Target", (await client.call(OperatorService.method.getTarget, { path: `targets/${bareName(name, "targets")}` })).target!);
  if (kind === "rotation") return manifestOf("Rotation", (await client.call(RotationService.method.getRotation, { path: name })).rotation!);
  return manifestOf("Role", (await client.call(OperatorService.method.getRole, { path: name })).role!);
}

async function every(client: Client, kind: Which): Promise<JsonObject[]> {
  return allPages(async (pageToken) => {
    const request = { pageSize: 1000, pageToken };
    if (kind === "policy") {
      const page = await client.call(PolicyService.method.listPolicies, request);
      return { items: page.policies.map((policy) => manifestOf("Policy", policy)), next: page.nextPageToken };
    }
    if (kind === "target") {
      const page = await client.call(OperatorService.method.listTargets, request);
      return { items: page.targets.map((target) => manifestOf("Target", target)), next: page.nextPageToken };
    }
    if (kind === "rotation") {
      const page = await client.call(RotationService.method.listRotations, request);
      return { items: page.rotations.map((rotation) => manifestOf("Rotation", rotation)), next: page.nextPageToken };
    }
    const page = await client.call(OperatorService.method.listRoles, request);
    return { items: page.roles.map((role) => manifestOf("Role", role)), next: page.nextPageToken };
  });
}
