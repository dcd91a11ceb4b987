import { randomUUID } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import type { Client } from "../client/client.ts";
import { CredentialService } from "../gen/leasehold/v1/credential_service_pb.ts";
import {
  GeneratedFieldSchema,
  type Rotation,
  Rotation_State as State,
  RotationPolicySchema,
  RotationSchema,
  RotationService,
  Rotation_Step as Step,
} from "../gen/leasehold/v1/rotation_service_pb.ts";
import { type Context, parseTime, withClient } from "./context.ts";
import { UsageError } from "./exit.ts";
import { nameOf, plainData, printFields, printTable, printValue, type Format, when, wholeJsonOf } from "./output.ts";
import { allPages } from "./secret.ts";

const { method } = RotationService;

/** People name the secret; the rotation's path works as well. */
const pathOf = (text: string): string => (text.startsWith("rotations/") ? text : `rotations/${text}`);

interface Begun {
  readonly path: string;
  readonly requestId: string;
}

interface PutFlags {
  readonly generate: string[];
  readonly interval?: string;
  readonly cron?: string;
  readonly timeZone?: string;
  readonly window?: string;
  readonly jitter?: string;
  readonly maxAge?: string;
  readonly now: boolean;
}

export function addRotationCommands(program: Command): void {
  const rotation = program
    .command("rotation")
    .description("secrets that get a new value by themselves; other rotators than --generate by `apply`, kind Rotation");

  rotation
    .command("put <secret>")
    .description("rotate passwords that the broker makes, such as secrets/payments/api")
    .requiredOption("--generate <field...>", "fields that get a new password each time; others stay as they are")
    .option("--interval <time>", "so long after the last one, such as 30d")
    .option("--cron <expression>", "five fields, such as '0 3 * * SUN'")
    .option("--time-zone <name>", "of --cron, such as Europe/Berlin; UTC if left out")
    .option("--window <time>", "how late a planned one may begin; else it waits for the next time")
    .option("--jitter <time>", "planned times are put off by up to this")
    .option("--max-age <time>", "when CURRENT is older than this, whoever wrote it")
    .option("--now", "begin one at once", false)
    .action((path: string, flags: PutFlags, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const answer = await client.call(method.putRotation, { rotation: rotationOf(path, flags), rotateNow: flags.now, requestId: randomUUID() });
        show(answer.rotation!, format);
      }),
    );

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

  for (const [name, description, call] of [
    ["now", "begin one at once, whatever the policy says", (client: Client, request: Begun) => client.call(method.rotateNow, request)],
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

function rotationOf(path: string, flags: PutFlags): MessageInitShape<typeof RotationSchema> {
  const time = (text: string | undefined, option: string) => (text === undefined ? undefined : durationFromMs(parseTime(text, option)));
  const [interval, window, jitter, maxAge] = [
    time(flags.interval, "--interval"),
    time(flags.window, "--window"),
    time(flags.jitter, "--jitter"),
    time(flags.maxAge, "--max-age"),
  ];
  if (interval !== undefined && flags.cron !== undefined) throw new UsageError("give --interval or --cron, not both");
  if (flags.cron === undefined && (flags.timeZone ?? flags.window) !== undefined) throw new UsageError("--time-zone and --window go with --cron");
  return create(RotationSchema, {
    path: pathOf(path),
    policy: create(RotationPolicySchema, {
      ...(interval === undefined ? {} : { schedule: { case: "interval", value: interval } }),
      ...(flags.cron === undefined
        ? {}
        : { schedule: { case: "cron", value: { expression: flags.cron, timeZone: flags.timeZone ?? "", ...(window === undefined ? {} : { window }) } } }),
      ...(jitter === undefined ? {} : { jitter }),
      ...(maxAge === undefined ? {} : { conditions: { maxAge } }),
    }),
    rotator: {
      case: "generated",
      value: { fields: flags.generate.map((name) => create(GeneratedFieldSchema, { name, kind: { case: "password", value: {} } })) },
    },
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
