import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { type DescMessage, fromJson, type JsonObject, type MessageShape, toJson } from "@bufbuild/protobuf";
import { parseAllDocuments } from "yaml";
import { OperatorService, type Role, RoleSchema, type Target, TargetSchema } from "../gen/leasehold/v1/operator_service_pb.ts";
import { type Policy, PolicySchema, PolicyService } from "../gen/leasehold/v1/policy_service_pb.ts";
import { SecretService } from "../gen/leasehold/v1/secret_service_pb.ts";
import type { Client } from "../client/client.ts";
import { CallError } from "../client/errors.ts";
import { UsageError } from "./exit.ts";
import { plainData } from "./output.ts";

/** A document of what an operator sets: the API's own message, with its `kind` beside it. */
export interface Manifest {
  readonly kind: Kind;
  readonly body: JsonObject;
  /** Where it was read, for error texts. */
  readonly source: string;
}

export const KINDS = ["Policy", "Target", "Role", "Secret"] as const;
export type Kind = (typeof KINDS)[number];

/** Everything in a file, or in the .yaml and .yml files of a folder. Targets before roles. Throws UsageError. */
export function readManifests(path: string): Manifest[] {
  const files = statSync(path, { throwIfNoEntry: false })?.isDirectory()
    ? readdirSync(path)
        .filter((name) => /\.ya?ml$/.test(name))
        .sort()
        .map((name) => join(path, name))
    : [path];
  const manifests = files.flatMap((file) => parseManifests(read(file), file));
  return manifests.sort((a, b) => KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind));
}

export function parseManifests(text: string, source: string): Manifest[] {
  return parseAllDocuments(text).flatMap((document, i) => {
    const at = `${source} document ${i + 1}`;
    if (document.errors.length > 0) throw new UsageError(`${at} is not YAML: ${document.errors[0]!.message.split("\n")[0]}`);
    const value = document.toJS({ maxAliasCount: 10 }) as unknown;
    if (value === null || value === undefined) return [];
    const { kind, ...body } = value as { kind?: unknown } & JsonObject;
    if (!KINDS.includes(kind as Kind)) throw new UsageError(`${at}: kind must be one of ${KINDS.join(", ")}`);
    return [{ kind: kind as Kind, body, source: at }];
  });
}

export type Applied = "created" | "updated" | "unchanged";

/** Makes the broker's state that of the document; writes nothing when it is already. Answers what was done (or with dryRun would be). */
export async function applyManifest(client: Client, manifest: Manifest, dryRun: boolean): Promise<{ readonly name: string; readonly applied: Applied }> {
  switch (manifest.kind) {
    case "Policy": {
      const policy = messageOf(PolicySchema, manifest);
      const stored = await found(client.call(PolicyService.method.getPolicy, { path: `policies/${policy.name}` }));
      const applied = compare(PolicySchema, policy, stored?.policy);
      if (applied !== "unchanged")
        await client.call(PolicyService.method.putPolicy, { policy, dryRun, etag: stored?.policy?.etag ?? "", requestId: randomUUID() });
      return { name: `policies/${policy.name}`, applied };
    }
    case "Target": {
      const target = messageOf(TargetSchema, manifest);
      const stored = await found(client.call(OperatorService.method.getTarget, { path: `targets/${target.name}` }));
      // A password can't be compared: the broker does not show it. A document that holds one writes it.
      const applied = stored !== undefined && target.password !== undefined ? "updated" : compare(TargetSchema, target, stored?.target);
      if (applied !== "unchanged")
        await client.call(OperatorService.method.putTarget, { target, dryRun, etag: stored?.target?.etag ?? "", requestId: randomUUID() });
      return { name: `targets/${target.name}`, applied };
    }
    case "Role": {
      const role = messageOf(RoleSchema, manifest);
      const stored = await found(client.call(OperatorService.method.getRole, { path: role.path }));
      const applied = compare(RoleSchema, role, stored?.role);
      if (applied !== "unchanged") await client.call(OperatorService.method.putRole, { role, dryRun, etag: stored?.role?.etag ?? "", requestId: randomUUID() });
      return { name: role.path, applied };
    }
    case "Secret":
      return applySecret(client, manifest, dryRun);
  }
}

/** `{kind: Secret, path, data: {key: text}}`. */
async function applySecret(client: Client, { body, source }: Manifest, dryRun: boolean): Promise<{ readonly name: string; readonly applied: Applied }> {
  const { path, data } = body;
  const isTexts = typeof data === "object" && data !== null && !Array.isArray(data) && Object.values(data).every((value) => typeof value === "string");
  if (typeof path !== "string" || !isTexts) throw new UsageError(`${source}: a Secret has a path and data, a mapping of texts`);
  const wanted = data as Record<string, string>;
  const stored = await found(client.call(SecretService.method.getSecret, { path }));
  if (stored !== undefined && isDeepStrictEqual(plainData(stored.data), wanted)) return { name: path, applied: "unchanged" };
  const values = Object.fromEntries(Object.entries(wanted).map(([key, value]) => [key, { kind: { case: "text" as const, value } }]));
  if (!dryRun) await client.call(SecretService.method.putSecret, { path, data: values, requestId: randomUUID(), expectedVersion: stored?.version ?? 0n });
  return { name: path, applied: stored === undefined ? "created" : "updated" };
}

/** What `get` prints and `apply` takes back: the message without what the broker fills in. */
export function manifestOf(kind: "Policy", message: Policy): JsonObject;
export function manifestOf(kind: "Target", message: Target): JsonObject;
export function manifestOf(kind: "Role", message: Role): JsonObject;
export function manifestOf(kind: Kind, message: Policy | Target | Role): JsonObject {
  const schema = kind === "Policy" ? PolicySchema : kind === "Target" ? TargetSchema : RoleSchema;
  return { kind, ...inputOf(schema, message) };
}

const OUTPUT_ONLY = ["uid", "etag", "updateTime", "updatedBy"];

function inputOf<D extends DescMessage>(schema: D, message: MessageShape<D>): JsonObject {
  const json = toJson(schema, message) as JsonObject;
  return Object.fromEntries(Object.entries(json).filter(([name]) => !OUTPUT_ONLY.includes(name)));
}

/** A document may leave out what has a default: only what it says is compared. */
function compare<D extends DescMessage>(schema: D, wanted: MessageShape<D>, stored: MessageShape<D> | undefined): Applied {
  if (stored === undefined) return "created";
  return says(inputOf(schema, wanted), inputOf(schema, stored)) ? "unchanged" : "updated";
}

function says(wanted: unknown, stored: unknown): boolean {
  if (typeof wanted !== "object" || wanted === null || Array.isArray(wanted)) return isDeepStrictEqual(wanted, stored);
  return Object.entries(wanted).every(([name, value]) => says(value, (stored as Record<string, unknown> | undefined)?.[name]));
}

function messageOf<D extends DescMessage>(schema: D, manifest: Manifest): MessageShape<D> {
  try {
    return fromJson(schema, manifest.body);
  } catch (error) {
    throw new UsageError(`${manifest.source}: ${(error as Error).message.split("\n")[0]}`);
  }
}

async function found<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof CallError && error.reason.endsWith("_NOT_FOUND")) return undefined;
    throw error;
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new UsageError(`${file} can't be read (${(error as NodeJS.ErrnoException).code ?? "unknown"})`);
  }
}
