import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { bootstrapPostgres, brokerVerifier } from "../../src/engines/postgres/bootstrap.ts";
import { newPassword } from "../../src/engines/generate.ts";
import { CallError } from "../../src/client/errors.ts";
import { CredentialService } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { OperatorService, TargetSchema } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import {
  type Rotation,
  Rotation_State as State,
  Rotation_Step as Step,
  RotationSchema,
  RotationService,
} from "../../src/gen/leasehold/v1/rotation_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import type { SecretData } from "../../src/model/secret.ts";
import { GROUP } from "../conformance/engine-postgres-setup.ts";
import { testWorld, type TestBroker, type TestWorld, texts } from "../support/broker.ts";
import { compileCache } from "../support/compile-cache.ts";
import { ACME, identity, writeIdentity } from "../support/pki.ts";
import { startProgram } from "../support/process.ts";
import { dataOf } from "../support/rotators.ts";
import { rotatorService } from "../support/rotator-service.ts";
import { LOGINS, postgresWithLogins, REDIS_USER, redisWithUser, SINGLE } from "../support/static-target.ts";
import { until } from "../support/until.ts";
import { webhookReceiver } from "../support/webhook-receiver.ts";

const { method } = RotationService;
const KEY = "a-signing-key-of-32-bytes-------";
const FIRST = "the-first-password";
const LOGIN = "leasehold_kinds";
/** Each command is a process of its own. */
const LIMIT_MS = 240_000;

interface Kind {
  readonly path: string;
  /** As in a manifest. */
  readonly rotator: JsonObject;
  /** Of `rotation put`. */
  readonly flags: readonly string[];
  login(data: SecretData): Promise<boolean>;
}

describe("every rotator, as its users have it: by the API, by `apply` and by the command", () => {
  let world: TestWorld;
  let broker: TestBroker;
  let kinds: Readonly<Record<string, Kind>>;
  let settings: string[];
  const stops: (() => Promise<unknown>)[] = [];
  const admin = () => broker.as("admin");

  beforeAll(async () => {
    const [postgres, redis, web, service] = await Promise.all([postgresWithLogins(), redisWithUser(), webhookReceiver(KEY, FIRST), rotatorService(FIRST)]);
    stops.push(
      () => postgres.target.cluster.stop(),
      () => redis.server.stop(),
      () => web.stop(),
      () => service.stop(),
    );
    world = await testWorld();
    broker = await world.start();
    const { certificate, key } = writeIdentity(world.folder, "admin", await identity("admin"));
    settings = ["--address", broker.address, "--cert", certificate, "--key", key, "--ca", join(world.folder, "ca.pem"), "--server-name", "localhost"];

    const { instance } = await admin().call(OperatorService.method.getServerInfo, {});
    const superuser = await postgres.target.cluster.superuser();
    const password = newPassword();
    await bootstrapPostgres(superuser, {
      instance,
      login: LOGIN,
      verifier: await brokerVerifier(password),
      allowedGroups: [GROUP],
      allowedLogins: [...LOGINS, SINGLE],
    });
    await superuser.end();
    const targets = [
      {
        name: "db",
        postgres: { host: "127.0.0.1", port: postgres.target.cluster.port, database: "postgres", username: LOGIN, tlsMode: "TLS_MODE_DISABLE" },
        password: { text: password.revealText() },
      },
      {
        name: "cache",
        redis: {
          host: "127.0.0.1",
          port: redis.server.config.port,
          username: redis.server.config.username,
          tlsMode: "TLS_MODE_DISABLE",
          allowLogins: [REDIS_USER],
        },
        password: { text: redis.server.password.revealText() },
      },
    ];
    for (const target of targets) await admin().call(OperatorService.method.putTarget, { target: fromJson(TargetSchema, target) });
    const shown = await identity("admin");
    await putSecret("secrets/ops/key", { key: KEY });
    await putSecret("secrets/ops/client", { certificate: shown.certificatePem, key: shown.keyPem });
    const ca = join(world.folder, "service-ca.pem");
    writeFileSync(ca, web.caPem);

    const works = (login: (data: SecretData) => Promise<void>) => (data: SecretData) =>
      login(data).then(
        () => true,
        () => false,
      );
    const text = (data: SecretData): string => data.get("password")!.value.revealText();
    kinds = {
      generated: {
        path: "secrets/kinds/generated",
        rotator: { generated: { fields: [{ name: "password", password: {} }] } },
        flags: ["-g", "password"],
        login: async (data) => text(data).length === 32,
      },
      single: {
        path: "secrets/kinds/single",
        rotator: { postgresSingleUser: { target: "db", username: SINGLE } },
        flags: ["--postgres", "db", "-u", SINGLE],
        login: works((data) => postgres.login(data)),
      },
      alternating: {
        path: "secrets/kinds/alternating",
        rotator: { postgresAlternatingUsers: { target: "db", usernames: [...LOGINS], owner: GROUP } },
        flags: ["--postgres", "db", "-u", ...LOGINS, "--owner", GROUP],
        login: works((data) => postgres.login(data)),
      },
      redis: {
        path: "secrets/kinds/redis",
        rotator: { redisAcl: { target: "cache", username: REDIS_USER } },
        flags: ["--redis", "cache", "-u", REDIS_USER],
        login: works((data) => redis.login(data)),
      },
      webhook: {
        path: "secrets/kinds/webhook",
        rotator: { webhook: { url: `https://localhost:${web.port}/`, caPem: web.caPem, signingSecret: "secrets/ops/key", parameters: { account: "app" } } },
        flags: ["--webhook", `https://localhost:${web.port}/`, "--service-ca", ca, "--signing-secret", "secrets/ops/key", "--parameter", "account=app"],
        login: async (data) => web.accepts(data),
      },
      grpc: {
        path: "secrets/kinds/grpc",
        rotator: {
          grpc: { address: `127.0.0.1:${service.port}`, caPem: service.caPem, spiffeId: `spiffe://${ACME}/leasehold`, clientSecret: "secrets/ops/client" },
        },
        flags: [
          "--grpc",
          `127.0.0.1:${service.port}`,
          "--service-ca",
          ca,
          "--spiffe-id",
          `spiffe://${ACME}/leasehold`,
          "--client-secret",
          "secrets/ops/client",
        ],
        login: async (data) => service.accepts(text(data)),
      },
    };
  });
  afterAll(async () => {
    await world?.close();
    await Promise.all(stops.map((stop) => stop()));
  });

  const putSecret = (path: string, data: Record<string, string>) => admin().call(SecretService.method.putSecret, { path, data: texts(data) });
  const get = async (path: string): Promise<Rotation> => (await admin().call(method.getRotation, { path: `rotations/${path}` })).rotation!;
  const each = <T>(work: (kind: Kind, name: string) => Promise<T>): Promise<T[]> => Promise.all(Object.entries(kinds).map(([name, kind]) => work(kind, name)));
  /** Nothing that was begun can take effect any more: what waits for that goes on. */
  let offset = 0;
  const settle = async (): Promise<void> => {
    offset += 46_000;
    const body = `select date_trunc('milliseconds', clock_timestamp()) + interval '${offset} ms'`;
    await world.store.query(`create or replace function leasehold_now() returns timestamptz language sql volatile parallel safe as $$ ${body} $$`);
  };
  const is = (path: string, what: string, done: (rotation: Rotation) => boolean): Promise<Rotation> =>
    until(`${path} ${what}`, async () => {
      const rotation = await get(path);
      return done(rotation) && rotation;
    });
  const moved = (path: string, generation: bigint): Promise<Rotation> =>
    is(path, "has a new CURRENT", ({ generation: now, state, step }) => now === generation && (state === State.WAITING || step === Step.FINISH));
  const credential = async (path: string) => {
    const got = await admin().call(CredentialService.method.getStaticCredential, { path });
    return { got, data: dataOf(Object.fromEntries(Object.entries(got.data).map(([name, { kind }]) => [name, kind.case === "text" ? kind.value : ""]))) };
  };

  it("by the API: put, the first value, now, the credential with the next time, abort, resume, delete", async () => {
    const put = (kind: Kind, more: object) =>
      admin().call(method.putRotation, {
        rotation: fromJson(RotationSchema, { path: `rotations/${kind.path}`, policy: { interval: "86400s" }, ...kind.rotator }),
        ...more,
      });
    await each(async (kind, name) => {
      await put(kind, { dryRun: true });
      await expect(get(kind.path), name).rejects.toBeInstanceOf(CallError);
      await put(kind, {});
      const stored = await moved(kind.path, 1n);
      const { got, data } = await credential(kind.path);
      expect([name, got.version, got.nextRotationTime, got.rotating]).toEqual([name, 1n, stored.nextRotationTime, false]);
      expect([name, await kind.login(data)]).toEqual([name, true]);
    });
    await settle();
    await each(async ({ path }) => is(path, "waits", ({ state }) => state === State.WAITING));
    await each(async (kind, name) => {
      const before = await credential(kind.path);
      const begun = await admin().call(method.rotateNow, { path: `rotations/${kind.path}` });
      expect([name, begun.rotation!.cause, begun.rotation!.generation]).toEqual([name, "requested", 2n]);
      await moved(kind.path, 2n);
      const { got, data } = await credential(kind.path);
      expect([name, got.version]).toEqual([name, 2n]);
      expect([name, await kind.login(data)]).toEqual([name, true]);
      expect([name, await kind.login(before.data)]).toEqual([name, got.overlap || !["single"].includes(name)]);
      const aborted = await admin().call(method.abortRotation, { path: `rotations/${kind.path}` });
      expect([name, aborted.rotation!.state, aborted.rotation!.nextRotationTime]).toEqual([name, State.ABORTED, undefined]);
      const resumed = await admin().call(method.resumeRotation, { path: `rotations/${kind.path}` });
      expect([name, resumed.rotation!.state]).toEqual([name, State.WAITING]);
      expect(resumed.rotation!.nextRotationTime).toBeDefined();
      expect([name, await kind.login((await credential(kind.path)).data)]).toEqual([name, true]);
    });
    const tested = await admin().call(OperatorService.method.testTarget, { path: "targets/db" });
    expect(tested.checks.filter(({ name }) => name.startsWith("static_login")).map(({ name, ok }) => [name, ok])).toEqual(
      [...LOGINS, SINGLE].map((name) => [`static_login ${name}`, true]),
    );
    await expect(admin().call(OperatorService.method.deleteTarget, { path: "targets/db" })).rejects.toMatchObject({ reason: "IN_USE" });
    await each(async ({ path }) => void (await admin().call(method.deleteRotation, { path: `rotations/${path}` })));
  });

  it("`target test` says which login a rotation could not set", async () => {
    const rotation = fromJson(RotationSchema, { path: "rotations/secrets/kinds/nobody", postgresSingleUser: { target: "db", username: "nobody_here" } });
    await admin().call(method.putRotation, { rotation });
    const tested = await admin().call(OperatorService.method.testTarget, { path: "targets/db" });
    expect(tested.ok).toBe(false);
    expect(tested.checks.find(({ name }) => name === "static_login nobody_here")).toMatchObject({
      ok: false,
      detail: expect.stringContaining("does not exist"),
    });
    await admin().call(method.abortRotation, { path: rotation.path });
    await settle();
    await is("secrets/kinds/nobody", "is aborted", ({ state }) => state === State.ABORTED);
    await admin().call(method.deleteRotation, { path: rotation.path });
    expect((await admin().call(OperatorService.method.testTarget, { path: "targets/db" })).ok).toBe(true);
  });

  it("by documents and by flags: the same rotation", { timeout: LIMIT_MS }, async () => {
    const run = async (...args: string[]) => {
      const program = startProgram(process.execPath, [resolve(import.meta.dirname, "../../src/main.ts"), ...settings, ...args], {
        env: { NODE_COMPILE_CACHE: await compileCache() },
      });
      const { code } = await program.ended;
      return { code, out: program.stdout(), err: program.stderr() };
    };
    const file = join(world.folder, "rotations.yaml");
    const documents = Object.values(kinds).map(({ path, rotator }) =>
      stringify({ kind: "Rotation", path: `rotations/${path}`, policy: { interval: "604800s" }, ...rotator }),
    );
    writeFileSync(file, documents.join("---\n"));
    const names = Object.values(kinds).map(({ path }) => `rotations/${path}`);
    const lines = (text: string): string => names.map((name) => `${name} ${text}\n`).join("");
    expect(await run("apply", "-f", file)).toMatchObject({ code: 0, out: lines("created") });
    const etags = await each(async ({ path }) => (await get(path)).etag);
    // Each kind by its flags is what the document says: nothing but the edition changes.
    const before = await each(({ path }) => get(path));
    const put = await each(({ path, flags }) => run("rotation", "put", path, ...flags, "-i", "7d"));
    expect(put.map(({ code, err }) => [code, err])).toEqual(put.map(() => [0, ""]));
    const after = await each(({ path }) => get(path));
    expect(after.map(({ rotator, policy }) => ({ rotator, policy }))).toEqual(before.map(({ rotator, policy }) => ({ rotator, policy })));
    expect(after.map(({ etag }) => etag)).toEqual(etags.map((etag) => String(Number(etag) + 1)));
    expect(await run("apply", "-f", file)).toMatchObject({ code: 0, out: lines("unchanged") });

    // One that was deleted and put again goes on where its service has seen it: generations, and the value.
    const { path } = kinds["grpc"]!;
    expect((await run("rotation", "put", path, "-i", "30d", "--max-age", "60d")).code).toBe(0);
    expect(await get(path)).toMatchObject({
      rotator: { case: "grpc" },
      policy: { schedule: { value: { seconds: 2_592_000n } }, conditions: { maxAge: { seconds: 5_184_000n } } },
    });
    const now = await run("rotation", "now", path, "--wait", "-o", "json");
    expect([now.code, now.err]).toEqual([0, ""]);
    const { data } = await credential(path);
    const printed = await run("rotation", "credential", path, "-o", "json");
    expect(JSON.parse(printed.out)).toMatchObject({ version: 3, overlap: false, data: { password: data.get("password")!.value.revealText() } });
    expect((JSON.parse(printed.out) as { nextRotationTime: string }).nextRotationTime).not.toBe("");
    expect((await run("rotation", "get", path)).out).toMatch(/state +running finish[^]*next rotation +20/);
    expect((await run("rotation", "put", "secrets/kinds/none", "-i", "1d")).code).toBe(2);
    expect((await run("rotation", "put", path, "--redis", "cache", "-u", "a", "b")).err).toContain("--redis takes one --user");
  });
});
