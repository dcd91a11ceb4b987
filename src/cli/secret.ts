import { randomUUID } from "node:crypto";
import { buffer } from "node:stream/consumers";
import type { Command } from "commander";
import { durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  DescribeSecretResponseSchema,
  type GetSecretResponse,
  ListSecretsResponseSchema,
  ListSecretVersionsResponseSchema,
  PutSecretResponseSchema,
  SecretService,
  type SecretVersion,
  SecretVersion_State as State,
} from "../gen/leasehold/v1/secret_service_pb.ts";
import { parseTime, parseWhole, withClient } from "./context.ts";
import { parseData } from "./data.ts";
import { UsageError } from "./exit.ts";
import { nameOf, plainData, printFields, printTable, printValue, when, wholeJsonOf } from "./output.ts";

const { method } = SecretService;

export function addSecretCommands(program: Command): void {
  const secret = program.command("secret").description("versioned secrets");

  secret
    .command("put <path> <data...>")
    .description("write a new version: key=value, key=@file, key=- (standard input)")
    .option("--expected-version <n>", "only if this is the latest version; 0: only if there is none")
    .option("--not-before <time>", "not readable before this time (RFC 3339)")
    .option("--expire-time <time>", "not readable from this time on (RFC 3339)")
    .action((path: string, data: string[], options: { expectedVersion?: string; notBefore?: string; expireTime?: string }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        // As a stream: reading descriptor 0 at once fails with EAGAIN where a pipe does not block.
        const piped = data.some((pair) => pair.endsWith("=-")) ? await buffer(process.stdin) : Buffer.alloc(0);
        const put = await client.call(method.putSecret, {
          path,
          data: parseData(data, () => piped),
          requestId: randomUUID(),
          ...(options.expectedVersion === undefined ? {} : { expectedVersion: BigInt(parseWhole(options.expectedVersion, "--expected-version")) }),
          ...(options.notBefore === undefined ? {} : { notBefore: timestampFromDate(parseDate(options.notBefore, "--not-before")) }),
          ...(options.expireTime === undefined ? {} : { expireTime: timestampFromDate(parseDate(options.expireTime, "--expire-time")) }),
        });
        if (format === "table") console.log(`${put.path} version ${put.version?.version ?? 0n}`);
        else printValue(wholeJsonOf(PutSecretResponseSchema, put), format);
      }),
    );

  secret
    .command("get <path>")
    .description("read a version: the current one unless said otherwise")
    .option("--version <n>", "by number")
    .option("--label <label>", "by staging label: CURRENT or PREVIOUS")
    .option("--field <key>", "only this field's value, raw")
    .action((path: string, options: { version?: string; label?: string; field?: string }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const got = await client.call(method.getSecret, { path, ...selector(options) });
        if (options.field !== undefined) writeField(got, options.field);
        else if (format === "table")
          printTable(
            ["key", "value"],
            Object.entries(plainData(got.data)).map(([key, value]) => [key, typeof value === "string" ? value : `base64:${value.base64}`]),
          );
        else printValue(plainSecret(got), format);
      }),
    );

  secret
    .command("list [prefix]")
    .description("names below a folder, such as secrets/payments/")
    .option("--deleted", "also those that are deleted and can be restored", false)
    .action((prefix: string | undefined, options: { deleted: boolean }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const secrets = await allPages(async (pageToken) => {
          const page = await client.call(method.listSecrets, { prefix: folder(prefix), showDeleted: options.deleted, pageSize: 1000, pageToken });
          return { items: page.secrets, next: page.nextPageToken };
        });
        if (format === "table")
          printTable(
            ["path", "version", "updated", "deleted"],
            secrets.map((each) => [each.path, String(each.currentVersion), when(each.updateTime), when(each.deleteTime)]),
          );
        else printValue(wholeJsonOf(ListSecretsResponseSchema, { $typeName: "leasehold.v1.ListSecretsResponse", secrets, nextPageToken: "" }), format);
      }),
    );

  secret
    .command("versions <path>")
    .description("a secret's versions, newest first, without data")
    .action((path: string, _options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const versions = await allPages(async (pageToken) => {
          const page = await client.call(method.listSecretVersions, { path, pageSize: 1000, pageToken });
          return { items: page.versions, next: page.nextPageToken };
        });
        if (format === "table") printTable(["version", "state", "labels", "created", "by"], versions.map(versionRow));
        else
          printValue(
            wholeJsonOf(ListSecretVersionsResponseSchema, { $typeName: "leasehold.v1.ListSecretVersionsResponse", versions, nextPageToken: "" }),
            format,
          );
      }),
    );

  secret
    .command("describe <path>")
    .description("a secret's metadata, without data")
    .action((path: string, _options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const described = await client.call(method.describeSecret, { path });
        const found = described.secret!;
        if (format !== "table") return printValue(wholeJsonOf(DescribeSecretResponseSchema, described), format);
        printFields({
          path: found.path,
          uid: found.uid,
          "current version": String(found.currentVersion),
          "latest version": String(found.latestVersion),
          "max versions": String(found.maxVersions),
          labels: pairs(found.labels),
          annotations: pairs(found.annotations),
          created: when(found.createTime),
          updated: when(found.updateTime),
          deleted: when(found.deleteTime),
          purged: when(found.purgeTime),
          etag: found.etag,
        });
      }),
    );

  secret
    .command("update <path>")
    .description("replace labels or annotations, or set how many versions are kept")
    .option("--label <key=value...>", "labels, all of them")
    .option("--annotation <key=value...>", "annotations, all of them")
    .option("--max-versions <n>", "1 to 1,000")
    .action((path: string, options: { label?: string[]; annotation?: string[]; maxVersions?: string }, command: Command) =>
      withClient(command, async ({ client }) => {
        const paths = [...(options.label ? ["labels"] : []), ...(options.annotation ? ["annotations"] : []), ...(options.maxVersions ? ["max_versions"] : [])];
        await client.call(method.updateSecretMetadata, {
          path,
          requestId: randomUUID(),
          updateMask: { paths },
          labels: texts(options.label ?? []),
          annotations: texts(options.annotation ?? []),
          maxVersions: options.maxVersions === undefined ? 0 : parseWhole(options.maxVersions, "--max-versions", 1),
        });
        console.log(`${path} updated`);
      }),
    );

  secret
    .command("rollback <path>")
    .description("write an older version's data as a new version")
    .requiredOption("--to <n>", "the version whose data is written again")
    .action((path: string, options: { to: string }, command: Command) =>
      withClient(command, async ({ client }) => {
        const rolled = await client.call(method.rollbackSecret, { path, toVersion: BigInt(parseWhole(options.to, "--to", 1)), requestId: randomUUID() });
        console.log(`${path} version ${rolled.version?.version ?? 0n}`);
      }),
    );

  secret
    .command("delete <path>")
    .description("hide versions, or delete the whole secret with a window to restore it in")
    .option("--versions <n...>", "only these versions")
    .option("--recovery-window <time>", "how long the secret can be restored; 0s erases it")
    .action((path: string, options: { versions?: string[]; recoveryWindow?: string }, command: Command) =>
      withClient(command, async ({ client }) => {
        if (options.versions !== undefined) {
          await client.call(method.deleteSecretVersions, { path, versions: numbers(options.versions), requestId: randomUUID() });
          return console.log(`${path} versions ${options.versions.join(", ")} deleted`);
        }
        const window = options.recoveryWindow === undefined ? {} : { recoveryWindow: durationFromMs(parseTime(options.recoveryWindow, "--recovery-window")) };
        const deleted = await client.call(method.deleteSecret, { path, requestId: randomUUID(), ...window });
        console.log(`${path} deleted; can be restored until ${when(deleted.purgeTime)}`);
      }),
    );

  versionsCommand(secret, "undelete", "take the deletion of versions back", method.undeleteSecretVersions, "undeleted");
  versionsCommand(secret, "destroy", "erase the data of versions for ever", method.destroySecretVersions, "destroyed");

  secret
    .command("restore <path>")
    .description("take the deletion of a secret back")
    .action((path: string, _options: object, command: Command) =>
      withClient(command, async ({ client }) => {
        await client.call(method.restoreSecret, { path, requestId: randomUUID() });
        console.log(`${path} restored`);
      }),
    );
}

function versionsCommand(
  secret: Command,
  name: string,
  description: string,
  rpc: typeof method.undeleteSecretVersions | typeof method.destroySecretVersions,
  done: string,
): void {
  secret
    .command(`${name} <path>`)
    .description(description)
    .requiredOption("--versions <n...>", "these versions")
    .action((path: string, options: { versions: string[] }, command: Command) =>
      withClient(command, async ({ client }) => {
        const request = { path, versions: numbers(options.versions), requestId: randomUUID() };
        if (rpc === method.undeleteSecretVersions) await client.call(method.undeleteSecretVersions, request);
        else await client.call(method.destroySecretVersions, request);
        console.log(`${path} versions ${options.versions.join(", ")} ${done}`);
      }),
    );
}

function plainSecret(got: GetSecretResponse): object {
  return {
    path: got.path,
    uid: got.uid,
    version: Number(got.version),
    data: plainData(got.data),
    stagingLabels: got.stagingLabels,
    createTime: when(got.createTime),
    ...(got.expireTime === undefined ? {} : { expireTime: when(got.expireTime) }),
  };
}

/** Raw, without a newline of ours, so that it can be piped. */
function writeField(got: GetSecretResponse, field: string): void {
  const kind = got.data[field]?.kind;
  if (kind?.case === undefined) throw new UsageError(`the secret has no field ${field}; it has ${Object.keys(got.data).join(", ")}`);
  process.stdout.write(kind.value);
}

function selector(options: { version?: string; label?: string }): { selector?: { case: "version"; value: bigint } | { case: "stagingLabel"; value: string } } {
  if (options.version !== undefined && options.label !== undefined) throw new UsageError("--version and --label exclude one another");
  if (options.version !== undefined) return { selector: { case: "version", value: BigInt(parseWhole(options.version, "--version", 1)) } };
  return options.label === undefined ? {} : { selector: { case: "stagingLabel", value: options.label } };
}

function versionRow(version: SecretVersion): string[] {
  return [String(version.version), nameOf(State, version.state), version.stagingLabels.join(","), when(version.createTime), version.createdBy];
}

function numbers(texts: readonly string[]): bigint[] {
  return texts.flatMap((text) => text.split(",")).map((text) => BigInt(parseWhole(text, "--versions", 1)));
}

function parseDate(text: string, option: string): Date {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) throw new UsageError(`${option} must be a time such as 2026-12-31T23:59:59Z`);
  return date;
}

/** A folder, with or without its slash. */
export function folder(prefix: string | undefined): string {
  return prefix === undefined || prefix === "" || prefix.endsWith("/") ? (prefix ?? "") : `${prefix}/`;
}

function texts(given: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    given.map((pair) => {
      const at = pair.indexOf("=");
      if (at < 1) throw new UsageError("labels and annotations must be key=value");
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}

function pairs(map: Readonly<Record<string, string>>): string {
  return Object.entries(map)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");
}

/** Every page, one after the other. */
export async function allPages<T>(page: (token: string) => Promise<{ readonly items: readonly T[]; readonly next: string }>): Promise<T[]> {
  const all: T[] = [];
  for (let token = ""; ;) {
    const { items, next } = await page(token);
    all.push(...items);
    if (next === "") return all;
    token = next;
  }
}
