import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type {
  GetSecretRequest,
  GetSecretResponseSchema,
  Secret,
  SecretSchema,
  SecretService,
  SecretVersionSchema,
} from "../../gen/leasehold/v1/secret_service_pb.ts";
import {
  DeleteSecretRequestSchema,
  DeleteSecretVersionsRequestSchema,
  DestroySecretVersionsRequestSchema,
  PutSecretRequestSchema,
  RestoreSecretRequestSchema,
  RollbackSecretRequestSchema,
  UndeleteSecretVersionsRequestSchema,
  UpdateSecretMetadataRequestSchema,
  SecretVersion_State as State,
} from "../../gen/leasehold/v1/secret_service_pb.ts";
import { SecretPayloadSchema } from "../../gen/leasehold/internal/v1/stored_pb.ts";
import type { Value } from "../../gen/leasehold/v1/value_pb.ts";
import { invalid, LeaseholdError } from "../../base/errors.ts";
import { parsePrefix, type PathScope } from "../../model/path.ts";
import { DEFAULT_RECOVERY_MS, MAX_DATA_BYTES, MAX_RECOVERY_MS, type SecretMeta, type Selector, stagingLabels, type VersionMeta } from "../../model/secret.ts";
import { describeSecret, listVisibleSecrets, pageOfVersions } from "../../secrets/list.ts";
import { CURRENT, type ReadSecret, type SecretReader } from "../../secrets/read.ts";
import type { Changed, SecretWriter } from "../../secrets/write.ts";
import type { Db } from "../../store/db.ts";
import { findVersion } from "../../store/secrets.ts";
import type { Authorized } from "../call.ts";
import { durationMs, milliseconds, timestamp } from "../convert.ts";
import type { Handlers } from "../definition.ts";
import type { Encoded } from "../encoded.ts";
import type { Freshness } from "../collaborators.ts";
import type { PageTokens } from "../page-token.ts";
import type { RequestKeys } from "../request-key.ts";
import { batchGetSecrets } from "./batch-get.ts";
import { encodeSecret } from "./secret-answer.ts";

export interface SecretServiceDeps {
  readonly db: Db;
  readonly reader: SecretReader;
  readonly writer: SecretWriter;
  readonly pages: PageTokens;
  readonly requests: RequestKeys;
  readonly freshness: Freshness;
}

const FIRST_PAGE = 100;

export function secretService({ db, reader, writer, pages, requests, freshness }: SecretServiceDeps): Handlers<typeof SecretService> {
  const versionOf = async (path: string, version: number): Promise<MessageInitShape<typeof SecretVersionSchema>> => {
    const secret = await describeSecret(db, path);
    const found = await findVersion(db, secret.uid, version);
    if (found === undefined) throw new LeaseholdError("VERSION_NOT_FOUND");
    return versionMessage(secret, found.meta);
  };
  const written = async (
    call: Authorized,
    changed: Changed,
  ): Promise<{ path: string; version: MessageInitShape<typeof SecretVersionSchema>; revision: bigint }> => {
    record(call, changed);
    const version = Number(changed.result["version"]);
    call.version = version;
    return { path: call.path, version: await versionOf(call.path, version), revision: BigInt(changed.revision) };
  };
  const versionsAfter = async (
    call: Authorized,
    kind: "delete" | "undelete" | "destroy",
    request: { versions: bigint[] },
    key: Parameters<SecretWriter["changeVersions"]>[4],
  ) => {
    const numbers = request.versions.map(Number);
    const changed = await writer.changeVersions(kind, call.path, numbers, call.actor(), key);
    record(call, changed);
    return { versions: await Promise.all(numbers.map((number) => versionOf(call.path, number))), revision: BigInt(changed.revision) };
  };

  return {
    async putSecret(request, call) {
      const payload = payloadOf(request.data);
      const notBefore = milliseconds(request.notBefore, "not_before");
      const expireAt = milliseconds(request.expireTime, "expire_time");
      if (notBefore !== undefined && expireAt !== undefined && expireAt <= notBefore) throw invalid("expire_time", "must be after not_before");
      const expectedVersion = request.expectedVersion === undefined ? undefined : Number(request.expectedVersion);
      return written(
        call,
        await writer.put(call.path, payload, { expectedVersion, notBefore, expireAt }, call.actor(), requests.of(PutSecretRequestSchema, request)),
      );
    },

    getSecret(request, call) {
      if (request.minRevision > 0n && Number(request.minRevision) > freshness.applied) return afterCatchUp(request, call);
      const read = reader.get(call.path, selectorOf(request));
      if (read instanceof Promise) return read.then((value) => answer(call, value));
      return answer(call, read);
    },

    batchGetSecrets: (request, call) => batchGetSecrets(reader, freshness, request, call),

    async listSecrets(request, call) {
      const scope = scopeOf(request.prefix);
      const pageSize = request.pageSize || FIRST_PAGE;
      const filter = { prefix: request.prefix, showDeleted: request.showDeleted };
      const after = pages.open("ListSecrets", filter, call.principal, request.pageToken) ?? "";
      const page = await listVisibleSecrets(db, {
        scope,
        allowed: call.allowedPrefixes(),
        may: (path) => call.allows(path),
        showDeleted: request.showDeleted,
        after,
        pageSize,
      });
      return {
        secrets: page.items.map(secretMessage),
        nextPageToken: page.next === undefined ? "" : pages.seal("ListSecrets", filter, call.principal, page.next),
      };
    },

    async describeSecret(_request, call) {
      return { secret: secretMessage(await describeSecret(db, call.path)) };
    },

    async listSecretVersions(request, call) {
      const secret = await describeSecret(db, call.path);
      const filter = { path: call.path };
      const before = Number(pages.open("ListSecretVersions", filter, call.principal, request.pageToken) ?? Number.MAX_SAFE_INTEGER);
      const page = await pageOfVersions(db, secret, before, request.pageSize || FIRST_PAGE);
      return {
        versions: page.items.map((version) => versionMessage(secret, version)),
        nextPageToken: page.next === undefined ? "" : pages.seal("ListSecretVersions", filter, call.principal, page.next),
      };
    },

    async updateSecretMetadata(request, call) {
      const changed = await writer.updateMetadata(call.path, metadataChange(request), call.actor(), requests.of(UpdateSecretMetadataRequestSchema, request));
      record(call, changed);
      return { secret: secretMessage(await describeSecret(db, call.path)), revision: BigInt(changed.revision) };
    },

    async rollbackSecret(request, call) {
      const expected = request.expectedVersion === undefined ? undefined : Number(request.expectedVersion);
      return written(
        call,
        await writer.rollback(call.path, Number(request.toVersion), expected, call.actor(), requests.of(RollbackSecretRequestSchema, request)),
      );
    },

    deleteSecretVersions: (request, call) => versionsAfter(call, "delete", request, requests.of(DeleteSecretVersionsRequestSchema, request)),
    undeleteSecretVersions: (request, call) => versionsAfter(call, "undelete", request, requests.of(UndeleteSecretVersionsRequestSchema, request)),
    destroySecretVersions: (request, call) => versionsAfter(call, "destroy", request, requests.of(DestroySecretVersionsRequestSchema, request)),

    async deleteSecret(request, call) {
      const recovery = durationMs(request.recoveryWindow, "recovery_window") ?? DEFAULT_RECOVERY_MS;
      if (recovery > MAX_RECOVERY_MS) throw invalid("recovery_window", "must be at most 90 days");
      const changed = await writer.delete(call.path, recovery, request.etag, call.actor(), requests.of(DeleteSecretRequestSchema, request));
      record(call, changed);
      return { purgeTime: timestamp(Date.parse(String(changed.result["purge_at"]))), revision: BigInt(changed.revision) };
    },

    async restoreSecret(request, call) {
      const changed = await writer.restore(call.path, call.actor(), requests.of(RestoreSecretRequestSchema, request));
      record(call, changed);
      return { secret: secretMessage(await describeSecret(db, call.path)), revision: BigInt(changed.revision) };
    },
  };

  async function afterCatchUp(request: GetSecretRequest, call: Authorized): Promise<Encoded<typeof GetSecretResponseSchema>> {
    await freshness.catchUp(Number(request.minRevision));
    return answer(call, await reader.get(call.path, selectorOf(request)));
  }
}

function answer(call: Authorized, read: ReadSecret): Encoded<typeof GetSecretResponseSchema> {
  call.version = read.version.version;
  return encodeSecret(read);
}

export function selectorOf(request: GetSecretRequest): Selector {
  const { selector } = request;
  if (selector.case === "version") return { kind: "version", version: Number(selector.value) };
  if (selector.case === undefined || selector.value === "CURRENT") return CURRENT;
  if (selector.value === "PREVIOUS" || selector.value === "PENDING") return { kind: "label", label: selector.value };
  throw invalid("staging_label", "must be CURRENT, PREVIOUS or PENDING");
}

/** Sealed as it will be sent: the field of SecretPayload has the number of GetSecretResponse's. */
function payloadOf(data: Record<string, Value>): Uint8Array {
  let bytes = 0;
  for (const [key, value] of Object.entries(data)) {
    if (value.kind.case === undefined) throw invalid(`data[${JSON.stringify(key)}]`, "must have a text or bytes");
    bytes += Buffer.byteLength(key) + (value.kind.case === "text" ? Buffer.byteLength(value.kind.value) : value.kind.value.length);
  }
  if (bytes > MAX_DATA_BYTES) throw invalid("data", "must be at most 64 KiB in all");
  return toBinary(SecretPayloadSchema, create(SecretPayloadSchema, { data }));
}

function metadataChange(request: {
  updateMask?: { paths: string[] } | undefined;
  labels: Record<string, string>;
  annotations: Record<string, string>;
  maxVersions: number;
  etag: string;
}) {
  const paths = request.updateMask?.paths ?? [];
  if (paths.length === 0) throw invalid("update_mask", "must name at least one of labels, annotations, max_versions");
  if (paths.some((path) => !["labels", "annotations", "max_versions"].includes(path)))
    throw invalid("update_mask", "may name only labels, annotations, max_versions");
  if (paths.includes("max_versions") && request.maxVersions < 1) throw invalid("max_versions", "must be 1 to 1,000");
  if (annotationBytes(request.annotations) > 16 * 1024) throw invalid("annotations", "must be at most 16 KiB in all");
  return {
    etag: request.etag,
    ...(paths.includes("labels") ? { labels: request.labels } : {}),
    ...(paths.includes("annotations") ? { annotations: request.annotations } : {}),
    ...(paths.includes("max_versions") ? { max_versions: request.maxVersions } : {}),
  };
}

function annotationBytes(annotations: Record<string, string>): number {
  return Object.entries(annotations).reduce((sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(value), 0);
}

function scopeOf(prefix: string): PathScope {
  if (prefix === "") return { prefix: "secrets/", exact: false };
  const folder = parsePrefix(prefix);
  if (!folder.startsWith("secrets/")) throw new LeaseholdError("PATH_INVALID");
  return { prefix: folder, exact: false };
}

function record(call: Authorized, changed: Changed): void {
  call.recorded = changed.recorded;
}

function secretMessage(secret: SecretMeta): MessageInitShape<typeof SecretSchema> {
  const message: { -readonly [K in keyof Omit<Secret, "$typeName" | "$unknown">]?: Secret[K] } = {
    path: secret.path,
    uid: secret.uid,
    currentVersion: BigInt(secret.currentVersion),
    latestVersion: BigInt(secret.latestVersion),
    labels: secret.labels,
    annotations: secret.annotations,
    maxVersions: secret.maxVersions,
    createTime: timestamp(secret.createdAt),
    updateTime: timestamp(secret.updatedAt),
    etag: String(secret.generation),
  };
  if (secret.deletedAt !== undefined) message.deleteTime = timestamp(secret.deletedAt);
  if (secret.purgeAt !== undefined) message.purgeTime = timestamp(secret.purgeAt);
  return message;
}

function versionMessage(secret: SecretMeta, version: VersionMeta): MessageInitShape<typeof SecretVersionSchema> {
  const times = {
    createTime: timestamp(version.createdAt),
    notBefore: timestamp(version.notBefore),
    expireTime: timestamp(version.expireAt),
    deleteTime: timestamp(version.deletedAt),
    destroyTime: timestamp(version.destroyedAt),
  };
  return {
    version: BigInt(version.version),
    state: version.destroyedAt !== undefined ? State.DESTROYED : version.deletedAt !== undefined ? State.DELETED : State.ENABLED,
    stagingLabels: stagingLabels(secret, version.version),
    createdBy: version.createdBy,
    ...Object.fromEntries(Object.entries(times).filter(([, value]) => value !== undefined)),
  };
}
