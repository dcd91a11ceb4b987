import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fromJson } from "@bufbuild/protobuf";
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { bootstrapPostgres, brokerVerifier } from "../../src/engines/postgres/bootstrap.ts";
import { newPassword } from "../../src/engines/generate.ts";
import { OperatorService } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import {
  type Rotation,
  Rotation_State as State,
  RotationSchema,
  RotationService,
  Rotation_Step as Step,
} from "../../src/gen/leasehold/v1/rotation_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { type Broker, BROKER_LOGIN, DATABASE, GROUP, leaseWorld, type LeaseWorld, targetCluster } from "../support/lease-world.ts";
import type { TestCluster } from "../support/postgres.ts";
import { tempFolder } from "../support/temp.ts";
import { until } from "../support/until.ts";

const { method } = RotationService;
/** Longer than a claim: what a replica had in its hands is anybody's. */
const CLAIM_OVER_MS = 46_000;

let world: LeaseWorld;
let target: TestCluster;
let offset = 0;
beforeAll(async () => {
  [world, target] = await Promise.all([leaseWorld(), targetCluster()]);
});
afterAll(async () => {
  await world?.close();
  await target?.remove();
});

const claimsEnd = (): Promise<void> => world.shiftClock((offset += CLAIM_OVER_MS));
const get = async (by: Broker, path: string): Promise<Rotation> => (await by.as("admin").call(method.getRotation, { path: `rotations/${path}` })).rotation!;
const is = (by: Broker, path: string, what: string, done: (rotation: Rotation) => boolean): Promise<Rotation> =>
  until(`${path} ${what}`, async () => {
    const found = await get(by, path);
    return done(found) && found;
  });

interface Login {
  readonly version: bigint;
  readonly user: string;
  readonly password: string;
}

async function currentOf(by: Broker, path: string): Promise<Login> {
  const got = await by.as("admin").call(SecretService.method.getSecret, { path });
  const text = (field: string): string => String(got.data[field]!.kind.value);
  return { version: got.version, user: text("username"), password: text("password") };
}

async function works({ user, password }: Login): Promise<boolean> {
  const client = new pg.Client({ host: target.host, port: target.port, database: DATABASE, user, password, ssl: false });
  client.on("error", () => {});
  try {
    await client.connect();
    await client.end();
    return true;
  } catch (error) {
    if ((error as { code?: string }).code === "28P01") return false;
    throw error;
  }
}

/** Logs in all the time with what it holds, and asks now and then for what is CURRENT. */
class Application {
  logins = 0;
  failures = 0;
  /** Whom it asks; undefined: nobody is there, it goes on with what it holds. */
  asks: Broker | undefined;
  #over = false;
  readonly #running: Promise<void>;

  constructor(path: string, held: Login) {
    this.#running = this.#run(path, held);
  }

  async #run(path: string, first: Login): Promise<void> {
    for (let held = first; !this.#over; this.logins++) {
      if (this.asks !== undefined && this.logins % 4 === 3) held = await currentOf(this.asks, path);
      if (!(await works(held))) this.failures++;
    }
  }

  /** It has asked since, and logged in with the answer. */
  async knows(): Promise<void> {
    const so = this.logins;
    await until("the application knows", () => this.logins > so + 8);
  }

  async end(): Promise<void> {
    this.#over = true;
    await this.#running;
  }
}

/** Two logins of their own, allowed by the target's superuser. */
async function twins(by: Broker, name: string): Promise<readonly [string, string]> {
  const pair = [`${name}_a`, `${name}_b`] as const;
  const { instance } = await by.as("admin").call(OperatorService.method.getServerInfo, {});
  const superuser = new pg.Client(target.url(DATABASE));
  await superuser.connect();
  const verifier = await brokerVerifier(newPassword());
  for (const login of pair) await superuser.query(`CREATE ROLE ${login} LOGIN IN ROLE ${GROUP} PASSWORD '${verifier}'`);
  await bootstrapPostgres(superuser, { instance, login: BROKER_LOGIN, verifier: undefined, allowedGroups: undefined, allowedLogins: pair });
  await superuser.end();
  return pair;
}

it.each(["rotate.staged", "rotate.tested"] as const)(
  "finding 18: a broker frozen at %s while another goes on and rotates again wakes up and changes nothing; its application never fails to log in",
  { timeout: 180_000 },
  async (point) => {
    const name = point.replace(".", "_");
    const path = `secrets/frozen/${name}`;
    const log = join(tempFolder("freezes"), "log");
    writeFileSync(log, "");
    // The second time it comes there: its first rotation makes the secret.
    const freezing = await world.spawn({}, { CRASH_AT: point, CRASH_ON: "2", CRASH_HOW: "SIGSTOP", CRASH_LOG: log });
    if (offset === 0) await world.addTarget(freezing, "main", target);
    const usernames = await twins(freezing, name);
    const rotation = fromJson(RotationSchema, {
      path: `rotations/${path}`,
      postgresAlternatingUsers: { target: "main", usernames: [...usernames], owner: GROUP },
    });
    await freezing.as("admin").call(method.putRotation, { rotation });
    await is(freezing, path, "has a first value", ({ step }) => step === Step.FINISH);
    await claimsEnd();
    await is(freezing, path, "waits", ({ state }) => state === State.WAITING);

    const application = new Application(path, await currentOf(freezing, path));
    // Frozen while it answers, or after.
    freezing
      .as("admin")
      .call(method.rotateNow, { path: rotation.path })
      .catch(() => {});
    await until("it is frozen", () => readFileSync(log, "utf8").includes("SIGSTOP"));

    const other = await world.start();
    await claimsEnd();
    await is(other, path, "has a second value", ({ step, state, generation }) => generation === 2n && (step === Step.FINISH || state === State.WAITING));
    application.asks = other;
    for (const generation of [3n, 4n]) {
      await application.knows();
      await claimsEnd();
      await is(other, path, "waits", ({ state }) => state === State.WAITING);
      await other.as("admin").call(method.rotateNow, { path: rotation.path });
      await is(other, path, "has another value", (found) => found.generation === generation && found.step === Step.FINISH);
    }
    await application.knows();

    freezing.program.signal("SIGCONT");
    await until("it is awake", async () => (await get(freezing, path)).generation === 4n);
    await application.knows();
    await claimsEnd();
    const ended = await is(other, path, "waits", ({ state }) => state === State.WAITING);
    expect(ended).toMatchObject({ generation: 4n, lastProblem: "", pendingVersion: 0n });
    await application.knows();
    await application.end();
    expect(application.failures).toBe(0);

    const { versions } = await other.as("admin").call(SecretService.method.listSecretVersions, { path });
    const labelled = versions.filter(({ stagingLabels }) => stagingLabels.length > 0).map(({ version, stagingLabels }) => [version, stagingLabels]);
    expect(labelled.toSorted()).toEqual([
      [3n, ["PREVIOUS"]],
      [4n, ["CURRENT"]],
    ]);
    expect(await works(await currentOf(other, path))).toBe(true);
    await Promise.all([other.stop(), freezing.stop()]);
  },
);
