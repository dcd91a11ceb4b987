import { readFileSync } from "node:fs";
import { clone, create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  type GeneratedField,
  GeneratedFieldSchema,
  KeyPair_Algorithm as Algorithm,
  type Rotation,
  RotationConditionsSchema,
  type RotationPolicy,
  RotationPolicySchema,
  type RotationSchema,
} from "../gen/leasehold/v1/rotation_service_pb.ts";
import { parseTime, parseWhole } from "./context.ts";
import { UsageError } from "./exit.ts";

/** Of `rotation put`. */
export interface PutFlags {
  readonly generate?: readonly string[];
  readonly postgres?: string;
  readonly redis?: string;
  readonly webhook?: string;
  readonly grpc?: string;
  readonly user?: readonly string[];
  readonly owner?: string;
  readonly database?: string;
  readonly dropPrevious?: boolean;
  readonly signingSecret?: string;
  readonly spiffeId?: string;
  readonly clientSecret?: string;
  readonly serviceCa?: string;
  readonly parameter?: readonly string[];
  readonly field?: string;
  readonly interval?: string;
  readonly cron?: string;
  readonly timeZone?: string;
  readonly window?: string;
  readonly jitter?: string;
  readonly maxAge?: string;
  readonly maxReads?: string;
  readonly beforeExpiry?: string;
  readonly onFinding?: boolean;
  readonly maxFailures?: string;
}

type Rotator = NonNullable<MessageInitShape<typeof RotationSchema>["rotator"]>;

/** Which flags go with each rotator besides its own. */
const KINDS = {
  generate: [],
  postgres: ["user", "owner", "database"],
  redis: ["user", "dropPrevious"],
  webhook: ["signingSecret", "serviceCa", "parameter", "field"],
  grpc: ["spiffeId", "clientSecret", "serviceCa", "parameter", "field"],
} as const satisfies Readonly<Record<string, readonly (keyof PutFlags)[]>>;
type Kind = keyof typeof KINDS;

/** The rotator that the flags name; undefined: none, it stays as it is. Throws UsageError. */
export function rotatorOf(flags: PutFlags): Rotator | undefined {
  const named = (Object.keys(KINDS) as Kind[]).filter((kind) => flags[kind] !== undefined);
  if (named.length > 1) throw new UsageError(`give one of ${named.map(option).join(", ")}`);
  const [kind] = named;
  const mine: readonly string[] = kind === undefined ? [] : KINDS[kind];
  const strays = Object.values(KINDS)
    .flat()
    .filter((flag) => flags[flag] !== undefined && !mine.includes(flag));
  if (strays[0] !== undefined)
    throw new UsageError(
      kind === undefined ? `${option(strays[0])} goes with a rotator, such as --postgres` : `${option(strays[0])} does not go with ${option(kind)}`,
    );
  if (kind === undefined) return undefined;
  switch (kind) {
    case "generate":
      return { case: "generated", value: { fields: flags.generate!.map(generatedField) } };
    case "postgres":
      return postgres(flags);
    case "redis": {
      const [username, ...more] = flags.user ?? [];
      if (username === undefined || more.length > 0) throw new UsageError("--redis takes one --user");
      return { case: "redisAcl", value: { target: flags.redis!, username, dropPrevious: flags.dropPrevious ?? false } };
    }
    case "webhook":
      return { case: "webhook", value: { url: flags.webhook!, signingSecret: needed(flags, "signingSecret"), caPem: pem(flags.serviceCa), ...outside(flags) } };
    case "grpc":
      return {
        case: "grpc",
        value: {
          address: flags.grpc!,
          spiffeId: needed(flags, "spiffeId"),
          clientSecret: needed(flags, "clientSecret"),
          caPem: pem(needed(flags, "serviceCa")),
          ...outside(flags),
        },
      };
  }
}

/** One login, or two that take turns. */
function postgres({ postgres: target = "", user = [], owner, database = "" }: PutFlags): Rotator {
  const [username] = user;
  if (user.length === 2) {
    if (owner === undefined) throw new UsageError("two of --user take turns and need --owner, the NOLOGIN role that both are members of");
    return { case: "postgresAlternatingUsers", value: { target, usernames: [...user], owner, database } };
  }
  if (username === undefined || user.length > 1) throw new UsageError("--postgres takes one --user, or two that take turns");
  if (owner !== undefined) throw new UsageError("--owner goes with two of --user");
  return { case: "postgresSingleUser", value: { target, username, database } };
}

const KEYS: Readonly<Record<string, Algorithm>> = {
  ed25519: Algorithm.ED25519,
  x25519: Algorithm.X25519,
  "ec-p256": Algorithm.EC_P256,
  "ec-p384": Algorithm.EC_P384,
  "rsa-2048": Algorithm.RSA_2048,
  "rsa-3072": Algorithm.RSA_3072,
  "rsa-4096": Algorithm.RSA_4096,
};

/** `name`, `name=password`, `name=random`, or `name=` and a kind of key. */
function generatedField(text: string): GeneratedField {
  const [name = "", kind = "password", ...more] = text.split("=");
  const algorithm = KEYS[kind];
  if (name !== "" && more.length === 0) {
    if (kind === "password") return create(GeneratedFieldSchema, { name, kind: { case: "password", value: {} } });
    if (kind === "random") return create(GeneratedFieldSchema, { name, kind: { case: "random", value: { size: 32 } } });
    if (algorithm !== undefined) return create(GeneratedFieldSchema, { name, kind: { case: "keyPair", value: { algorithm } } });
  }
  throw new UsageError(`--generate is written FIELD or FIELD=KIND, with password, random, ${Object.keys(KEYS).join(", ")}`);
}

function outside({ parameter = [], field = "" }: PutFlags): { readonly parameters: Record<string, string>; readonly field: string } {
  const pairs = parameter.map((text) => {
    const at = text.indexOf("=");
    if (at < 1) throw new UsageError("--parameter is written NAME=VALUE");
    return [text.slice(0, at), text.slice(at + 1)] as const;
  });
  return { parameters: Object.fromEntries(pairs), field };
}

function needed(flags: PutFlags, flag: "signingSecret" | "spiffeId" | "clientSecret" | "serviceCa"): string {
  const value = flags[flag];
  if (value === undefined) throw new UsageError(`${option(flag)} is needed`);
  return value;
}

function pem(file: string | undefined): string {
  if (file === undefined) return "";
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new UsageError(`${file} can't be read (${(error as NodeJS.ErrnoException).code ?? "unknown"})`);
  }
}

/** What the flags say of when; the rest stays as it was. Throws UsageError. */
export function policyOf(flags: PutFlags, before: RotationPolicy | undefined): RotationPolicy {
  const time = (flag: "interval" | "window" | "jitter" | "maxAge" | "beforeExpiry") => {
    const text = flags[flag];
    return text === undefined ? undefined : durationFromMs(parseTime(text, option(flag)));
  };
  if (flags.interval !== undefined && flags.cron !== undefined) throw new UsageError("give --interval or --cron, not both");
  const policy = before === undefined ? create(RotationPolicySchema) : clone(RotationPolicySchema, before);
  const [interval, window, jitter, maxAge, beforeExpiry] = [time("interval"), time("window"), time("jitter"), time("maxAge"), time("beforeExpiry")];
  if (interval !== undefined) policy.schedule = { case: "interval", value: interval };
  const cron = policy.schedule.case === "cron" ? policy.schedule.value : undefined;
  if (flags.cron === undefined && cron === undefined && (flags.timeZone ?? flags.window) !== undefined)
    throw new UsageError("--time-zone and --window go with --cron");
  if (flags.cron !== undefined || (flags.timeZone ?? flags.window) !== undefined) {
    const kept = window ?? cron?.window;
    const value = {
      expression: flags.cron ?? cron!.expression,
      timeZone: flags.timeZone ?? cron?.timeZone ?? "",
      ...(kept === undefined ? {} : { window: kept }),
    };
    policy.schedule = create(RotationPolicySchema, { schedule: { case: "cron", value } }).schedule;
  }
  if (jitter !== undefined) policy.jitter = jitter;
  if (maxAge !== undefined || beforeExpiry !== undefined || flags.maxReads !== undefined || flags.onFinding !== undefined) {
    const conditions = (policy.conditions ??= create(RotationConditionsSchema));
    if (maxAge !== undefined) conditions.maxAge = maxAge;
    if (beforeExpiry !== undefined) conditions.beforeExpiry = beforeExpiry;
    if (flags.maxReads !== undefined) conditions.maxReads = BigInt(parseWhole(flags.maxReads, "--max-reads"));
    if (flags.onFinding !== undefined) conditions.onFinding = flags.onFinding;
  }
  return policy;
}

/** @param before the rotation as it is; undefined: there is none. Throws UsageError. */
export function rotationOf(path: string, flags: PutFlags, before: Rotation | undefined): MessageInitShape<typeof RotationSchema> {
  const rotator = rotatorOf(flags) ?? before?.rotator;
  if (rotator === undefined) throw new UsageError("say what makes the value: --generate, --postgres, --redis, --webhook or --grpc");
  return {
    path,
    rotator,
    policy: policyOf(flags, before?.policy),
    maxCandidateFailures: flags.maxFailures === undefined ? (before?.maxCandidateFailures ?? 0) : parseWhole(flags.maxFailures, "--max-failures", 1),
  };
}

/** `signingSecret` is `--signing-secret`. */
function option(flag: string): string {
  return `--${flag.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}
