import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import type { Command } from "commander";
import type { Client } from "../client/client.ts";
import { CallError } from "../client/errors.ts";
import { CredentialService } from "../gen/leasehold/v1/credential_service_pb.ts";
import { type Rotation, Rotation_State as State, RotationSchema, RotationService, Rotation_Step as Step } from "../gen/leasehold/v1/rotation_service_pb.ts";
import { type Context, withClient } from "./context.ts";
import { CheckFailed } from "./exit.ts";
import { nameOf, plainData, printFields, printTable, printValue, type Format, when, wholeJsonOf } from "./output.ts";
import { type PutFlags, rotationOf, rotatorOf } from "./rotation-flags.ts";
import { allPages } from "./secret.ts";

const { method } = RotationService;

/** People name the secret; the rotation's path works as well. */
const pathOf = (text: string): string => (text.startsWith("rotations/") ? text : `rotations/${text}`);

interface Begun {
  readonly path: string;
  readonly requestId: string;
}

export function addRotationCommands(program: Command): void {
  const rotation = program.command("rotation").description("secrets that get a new value by themselves");
  addPut(rotation);

  rotation
    .command("get <secret>")
    .description("how it stands: the step, since when, what went wrong, when it is next")
    .action((path: string, _options: object, command: Command) =>
      withClient(command, async ({ client, format }) => show((await client.call(method.getRotation, { path: pathOf(path) })).rotation!, format)),
    );

  rotation
    .command("list [prefix]")
    .description("rotations below a folder, such as secrets/payments/")
    .option("--stuck", "only those that do not get on", false)
    .action((prefix: string | undefined, { stuck }: { stuck: boolean }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const rotations = await allPages(async (pageToken) => {
          const page = await client.call(method.listRotations, { prefix: prefix === undefined ? "" : pathOf(prefix), stuck, pageSize: 1000, pageToken });
          return { items: page.rotations, next: page.nextPageToken };
        });
        if (format !== "table") return printValue({ rotations: rotations.map((each) => wholeJsonOf(RotationSchema, each)) }, format);
        printTable(
          ["rotation", "rotator", "state", "last", "next", "problem"],
          rotations.map((each) => [
            each.path,
            each.rotator.case ?? "",
            stateText(each),
            when(each.lastRotationTime),
            when(each.nextRotationTime),
            each.lastProblem,
          ]),
        );
      }),
    );

  rotation
    .command("now <secret>")
    .description("begin one at once, whatever the policy says")
    .option("-w, --wait", WAIT, false)
    .action((path: string, { wait }: { wait: boolean }, command: Command) =>
      withClient(command, async (context) => {
        const begun = await context.client.call(method.rotateNow, { path: pathOf(path), requestId: randomUUID() });
        show(wait ? await newCurrent(context, begun.rotation!) : begun.rotation!, context.format);
      }),
    );

  for (const [name, description, call] of [
    ["abort", "give the candidate up; nothing begins by itself until `resume`", (client: Client, request: Begun) => client.call(method.abortRotation, request)],
    ["resume", "go on after `abort`, or try a failing step at once", (client: Client, request: Begun) => client.call(method.resumeRotation, request)],
  ] as const) {
    rotation
      .command(`${name} <secret>`)
      .description(description)
      .action((path: string, _options: object, command: Command) =>
        withClient(command, async ({ client, format }) => show((await call(client, { path: pathOf(path), requestId: randomUUID() })).rotation!, format)),
      );
  }

  rotation
    .command("delete <secret>")
    .description("rotate it no more; the secret stays")
    .action((path: string, _options: object, command: Command) =>
      withClient(command, async ({ client }) => {
        await client.call(method.deleteRotation, { path: pathOf(path), requestId: randomUUID() });
        console.log(`${pathOf(path)} deleted`);
      }),
    );

  rotation
    .command("credential <secret>")
    .description("the current value, and when it will be rotated next")
    .action((path: string, _options: object, command: Command) => withClient(command, (context) => credential(context, path)));
}

/** Without a rotator's flag only what is named changes: an interval, say. */
function addPut(rotation: Command): void {
  rotation
    .command("put <secret>")
    .description(
      "write how and when a secret is rotated; of one that exists, what is left out stays as it is. Passwords' rules and other details: `apply`, kind Rotation",
    )
    .option(
      "-g, --generate <field...>",
      "made by the broker: FIELD (a password), FIELD=random, FIELD=ed25519, ec-p256, rsa-3072 and the like; other fields stay as they are",
    )
    .option("--postgres <target>", "the password of one PostgreSQL login (--user), or of two that take turns (--user A B --owner ROLE)")
    .option("--redis <target>", "the password of a Redis ACL user (--user)")
    .option("--webhook <url>", "an HTTPS endpoint of yours does the steps")
    .option("--grpc <host:port>", "a RotatorService of yours does the steps")
    .option("-u, --user <login...>", "of --postgres or --redis")
    .option("--owner <role>", "NOLOGIN role that both of two logins are members of")
    .option("--database <name>", "where a login of --postgres is tried; else the target's own")
    .option("--drop-previous", "of --redis: end the previous password with the rotation")
    .option("--signing-secret <secret>", "of --webhook: its field `key` signs the requests")
    .option("--spiffe-id <id>", "of --grpc: whom the service must be")
    .option("--client-secret <secret>", "of --grpc: `certificate` and `key` that the broker shows")
    .option("--service-ca <file>", "CA of --webhook or --grpc, PEM")
    .option("--parameter <name=value...>", "handed to --webhook or --grpc")
    .option("--field <name>", "of --webhook or --grpc that makes no value: what the broker makes; else password")
    .option("-i, --interval <time>", "so long after the last one, such as 30d")
    .option("-c, --cron <expression>", "five fields, such as '0 3 * * SUN'")
    .option("--time-zone <name>", "of --cron, such as Europe/Berlin; UTC if left out")
    .option("--window <time>", "how late a planned one may begin; else it waits for the next time")
    .option("--jitter <time>", "planned times are put off by up to this")
    .option("--max-age <time>", "when CURRENT is older than this, whoever wrote it")
    .option("--max-reads <number>", "when CURRENT was read so often")
    .option("--before-expiry <time>", "so long before CURRENT's expire_time")
    .option("--on-finding", "when a finding about its target is raised")
    .option("--max-failures <number>", "of one candidate, before another is made; else 5")
    .option("--now", "begin one at once", false)
    .option("-w, --wait", WAIT, false)
    .option("--dry-run", "check, change nothing", false)
    .action((path: string, flags: PutFlags & { readonly now: boolean; readonly wait: boolean; readonly dryRun: boolean }, command: Command) =>
      withClient(command, async (context) => {
        const { client, format } = context;
        const before = rotatorOf(flags) === undefined ? await existing(client, pathOf(path)) : undefined;
        const rotation = rotationOf(pathOf(path), flags, before);
        const request = { rotation, etag: before?.etag ?? "", rotateNow: flags.now, dryRun: flags.dryRun, requestId: randomUUID() };
        const answer = await client.call(method.putRotation, request);
        if (flags.dryRun) return console.log(`${pathOf(path)} is well formed (dry run)`);
        show(flags.wait ? await newCurrent(context, answer.rotation!) : answer.rotation!, format);
      }),
    );
}

const WAIT = "until CURRENT has moved, at most --timeout";
const POLL_MS = 250;

async function existing(client: Client, path: string): Promise<Rotation | undefined> {
  try {
    return (await client.call(method.getRotation, { path })).rotation;
  } catch (error) {
    if (error instanceof CallError && error.reason === "ROTATION_NOT_FOUND") return undefined;
    throw error;
  }
}

/** Throws CheckFailed, when it was said how it stands. */
async function newCurrent({ client, format, timeoutMs }: Context, begun: Rotation): Promise<Rotation> {
  const giveUpAt = Date.now() + timeoutMs;
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- one look after the other
    const rotation = (await client.call(method.getRotation, { path: begun.path })).rotation!;
    const moved = rotation.lastRotationTime !== undefined && !isDeepStrictEqual(rotation.lastRotationTime, begun.lastRotationTime);
    if (moved || (begun.state !== State.RUNNING && rotation.state === State.WAITING && rotation.lastRotationTime !== undefined)) return rotation;
    if (rotation.state === State.ABORTED || Date.now() > giveUpAt) {
      show(rotation, format);
      throw new CheckFailed();
    }
    // oxlint-disable-next-line no-await-in-loop
    await sleep(POLL_MS);
  }
}

async function credential({ client, format }: Context, path: string): Promise<void> {
  const got = await client.call(CredentialService.method.getStaticCredential, { path });
  const data = plainData(got.data);
  const times = { lastRotationTime: when(got.lastRotationTime), nextRotationTime: when(got.nextRotationTime), expireTime: when(got.expireTime) };
  if (format !== "table")
    return printValue({ path: got.path, version: Number(got.version), ...times, rotating: got.rotating, overlap: got.overlap, data }, format);
  printFields({
    secret: `${got.path} version ${got.version}`,
    "next rotation": times.nextRotationTime || "none by itself",
    ...Object.fromEntries(Object.entries(data).map(([key, value]) => [key, typeof value === "string" ? value : value.base64])),
  });
}

function stateText({ state, step, stuckSince }: Rotation): string {
  const words = [nameOf(State, state)];
  if (state === State.RUNNING) words.push(nameOf(Step, step));
  if (stuckSince !== undefined) words.push(`stuck since ${when(stuckSince)}`);
  return words.join(" ");
}

function show(rotation: Rotation, format: Format): void {
  if (format !== "table") return printValue(wholeJsonOf(RotationSchema, rotation), format);
  printFields({
    rotation: rotation.path,
    rotator: rotation.rotator.case ?? "",
    state: stateText(rotation),
    cause: rotation.cause,
    candidate: rotation.pendingVersion === 0n ? "" : `version ${rotation.pendingVersion}`,
    attempts: rotation.attempts === 0 ? "" : `${rotation.attempts} of this step, ${rotation.candidateFailures} failures of the candidate`,
    problem: rotation.lastProblem,
    "next attempt": when(rotation.nextAttemptTime),
    "last rotation": when(rotation.lastRotationTime),
    "next rotation": when(rotation.nextRotationTime),
  });
}
