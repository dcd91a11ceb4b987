import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { clone, create, type DescMessage, fromJson, type JsonObject, type MessageShape, toJson } from "@bufbuild/protobuf";
import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { parseAllDocuments } from "yaml";
import {
  type MysqlRole,
  type MysqlTarget,
  OperatorService,
  type PostgresRole,
  PostgresRole_OwnedObjects,
  type PostgresTarget,
  type RedisTarget,
  type Role,
  RoleSchema,
  type Target,
  TargetSchema,
  TlsMode,
} from "../gen/leasehold/v1/operator_service_pb.ts";
import { type Policy, PolicySchema, PolicyService } from "../gen/leasehold/v1/policy_service_pb.ts";
import {
  KeyPair_Algorithm,
  RandomBytes_Encoding,
  type Rotation,
  RotationPolicySchema,
  RotationSchema,
  RotationService,
} from "../gen/leasehold/v1/rotation_service_pb.ts";
import { PutSecretRequestSchema, SecretService } from "../gen/leasehold/v1/secret_service_pb.ts";
import type { Client } from "../client/client.ts";
import { CallError } from "../client/errors.ts";
import type { PlainValue } from "./data.ts";
import { UsageError } from "./exit.ts";
import { plainData } from "./output.ts";

/** A document of what an operator sets: the API's own message, with its `kind` beside it. */
export interface Manifest {
  readonly kind: Kind;
  readonly body: JsonObject;
  /** Where it was read, for error texts. */
  readonly source: string;
}

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

export const KINDS = ["Policy", "Target", "Role", "Secret", "Rotation"] as const;
export type Kind = (typeof KINDS)[number];

/** Everything in a file, or in the .yaml and .yml files of a folder. Targets before roles, secrets before their rotations. Throws UsageError. */
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
    const [error] = document.errors;
    if (error !== undefined) throw new UsageError(`${at} is not YAML: ${error.code}, line ${error.linePos?.[0].line ?? "unknown"}`);
    const value = plain(document, at);
    if (value === null || value === undefined) return [];
    const { kind, ...body } = value as { kind?: unknown } & JsonObject;
    if (!KINDS.includes(kind as Kind)) throw new UsageError(`${at}: kind must be one of ${KINDS.join(", ")}`);
    return [{ kind: kind as Kind, body, source: at }];
  });
}

/** The parser's own texts quote the document, which may hold a password: they are not repeated. */
function plain(document: { toJS(options: { maxAliasCount: number }): unknown }, at: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 10 });
  } catch {
    throw new UsageError(`${at}: an alias (*name) has no anchor, or there are too many; put a value that begins with * in quotes`);
  }
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
      const applied =
        stored !== undefined && target.password !== undefined ? "updated" : compare(TargetSchema, withDefaults(TargetSchema, target), stored?.target);
      if (applied !== "unchanged")
        await client.call(OperatorService.method.putTarget, { target, dryRun, etag: stored?.target?.etag ?? "", requestId: randomUUID() });
      return { name: `targets/${target.name}`, applied };
    }
    case "Role": {
      const role = messageOf(RoleSchema, manifest);
      const stored = await found(client.call(OperatorService.method.getRole, { path: role.path }));
      const applied = compare(RoleSchema, withDefaults(RoleSchema, role), stored?.role);
      if (applied !== "unchanged") await client.call(OperatorService.method.putRole, { role, dryRun, etag: stored?.role?.etag ?? "", requestId: randomUUID() });
      return { name: role.path, applied };
    }
    case "Rotation": {
      const rotation = messageOf(RotationSchema, manifest);
      const stored = await found(client.call(RotationService.method.getRotation, { path: rotation.path }));
      const applied = compare(RotationSchema, rotationDefaults(rotation), stored?.rotation);
      if (applied !== "unchanged")
        await client.call(RotationService.method.putRotation, { rotation, dryRun, etag: stored?.rotation?.etag ?? "", requestId: randomUUID() });
      return { name: rotation.path, applied };
    }
    case "Secret":
      return applySecret(client, manifest, dryRun);
  }
}

/** `{kind: Secret, path, data: {key: text, other: {base64: ...}}}`, as `secret get -o yaml` prints data. */
async function applySecret(client: Client, { body, source }: Manifest, dryRun: boolean): Promise<{ readonly name: string; readonly applied: Applied }> {
  const { path, data } = body;
  const isMap = typeof data === "object" && data !== null && !Array.isArray(data);
  if (typeof path !== "string" || !isMap) throw new UsageError(`${source}: a Secret has a path and data, a mapping`);
  const values = Object.fromEntries(Object.entries(data).map(([key, value]) => [key, valueOf(value, key, source)]));
  const wanted = plainData(create(PutSecretRequestSchema, { data: values }).data);
  const stored = await found(client.call(SecretService.method.getSecret, { path }));
  if (stored !== undefined && isDeepStrictEqual(plainData(stored.data), wanted)) return { name: path, applied: "unchanged" };
  if (!dryRun) await client.call(SecretService.method.putSecret, { path, data: values, requestId: randomUUID(), expectedVersion: stored?.version ?? 0n });
  return { name: path, applied: stored === undefined ? "created" : "updated" };
}

function valueOf(value: unknown, key: string, source: string): PlainValue {
  if (typeof value === "string") return { kind: { case: "text", value } };
  const base64 = typeof value === "object" && value !== null ? (value as { base64?: unknown }).base64 : undefined;
  if (typeof base64 !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(base64))
    throw new UsageError(`${source}: ${key} must be a text (put a number in quotes) or {base64: ...}`);
  return { kind: { case: "bytes", value: Buffer.from(base64, "base64") } };
}

/** What `get` prints and `apply` takes back: the message without what the broker fills in. */
export function manifestOf(kind: "Policy", message: Policy): JsonObject;
export function manifestOf(kind: "Target", message: Target): JsonObject;
export function manifestOf(kind: "Role", message: Role): JsonObject;
export function manifestOf(kind: "Rotation", message: Rotation): JsonObject;
export function manifestOf(kind: Kind, message: Policy | Target | Role | Rotation): JsonObject {
  const schema = kind === "Policy" ? PolicySchema : kind === "Target" ? TargetSchema : kind === "Rotation" ? RotationSchema : RoleSchema;
  return { kind, ...inputOf(schema, message) };
}

const OUTPUT_ONLY = ["uid", "etag", "updateTime", "updatedBy"];
/** How a rotation stands: no part of what an operator sets. */
const ROTATION_STATUS =
  `state step stepTime pendingVersion generation attempts candidateFailures lastProblem stuckSince nextAttemptTime nextRotationTime lastRotationTime cause`.split(
    " ",
  );

function inputOf<D extends DescMessage>(schema: D, message: MessageShape<D>): JsonObject {
  const json = toJson(schema, message) as JsonObject;
  return Object.fromEntries(
    Object.entries(json).filter(([name]) => !OUTPUT_ONLY.includes(name) && !(schema.typeName === RotationSchema.typeName && ROTATION_STATUS.includes(name))),
  );
}

/** Exact: a field that the document no longer has (`allow_broad`, a limit) is a change, or it would stay for ever. */
function compare<D extends DescMessage>(schema: D, wanted: MessageShape<D>, stored: MessageShape<D> | undefined): Applied {
  if (stored === undefined) return "created";
  return isDeepStrictEqual(inputOf(schema, wanted), inputOf(schema, stored)) ? "unchanged" : "updated";
}

/** As the broker stores it: what is left out has the default that the API states. A default that we did not know would cost a write of the same, never hide a change. */
function withDefaults<D extends typeof RoleSchema | typeof TargetSchema>(schema: D, message: MessageShape<D>): MessageShape<D> {
  const filled = clone(schema, message);
  const { engine } = filled;
  if (filled.$typeName === "leasehold.v1.Role") {
    filled.maxTtl ??= durationFromMs(DAY_MS);
    filled.defaultTtl ??= durationFromMs(Math.min(HOUR_MS, durationMs(filled.maxTtl)));
    if (engine.case === "postgres") {
      const role = engine.value as PostgresRole;
      role.scramIterations ||= 4096;
      role.ownedObjects ||= PostgresRole_OwnedObjects.REFUSE;
    }
    if (engine.case === "mysql") (engine.value as MysqlRole).hostPattern ||= "%";
  } else if (engine.case !== undefined) (engine.value as PostgresTarget | RedisTarget | MysqlTarget).tlsMode ||= TlsMode.VERIFY_FULL;
  return filled;
}

/** As the broker stores it. */
function rotationDefaults(message: Rotation): Rotation {
  const filled = clone(RotationSchema, message);
  filled.policy ??= create(RotationPolicySchema);
  filled.maxCandidateFailures ||= 5;
  const { schedule } = filled.policy;
  if (schedule.case === "cron") schedule.value.timeZone ||= "UTC";
  if (filled.rotator.case !== "generated") return filled;
  for (const field of filled.rotator.value.fields) {
    const { name, kind } = field;
    if (kind.case === "random") kind.value.encoding ||= RandomBytes_Encoding.BASE64URL;
    if (kind.case !== "keyPair") continue;
    kind.value.algorithm ||= KeyPair_Algorithm.ED25519;
    field.publicName ||= `${name}_public`;
  }
  return filled;
}

function messageOf<D extends DescMessage>(schema: D, manifest: Manifest): MessageShape<D> {
  try {
    return fromJson(schema, manifest.body);
  } catch (error) {
    throw new UsageError(`${manifest.source}: ${withoutValue((error as Error).message)}`);
  }
}

/** protobuf-es quotes what it can't read, and that may be a password. The name of a field that doesn't exist helps and is kept, except below a Value. */
function withoutValue(text: string): string {
  const [where = "", what = ""] = text.split(" from JSON: ", 2);
  const unknown = where.includes("leasehold.v1.Value") ? null : /^key "([A-Za-z0-9_]{1,64})" is unknown$/.exec(what);
  const hint = where.includes("google.protobuf.Duration")
    ? '; write seconds, such as "600s"'
    : where.includes("leasehold.v1.Value")
      ? "; write {text: ...}"
      : "";
  return `${where.startsWith("cannot decode") ? where : "it can't be read"}${unknown === null ? "" : `: it has no field ${unknown[1]}`}${hint}`;
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
