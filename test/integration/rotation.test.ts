import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CredentialService } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { type Rotation, Rotation_State as State, RotationSchema, RotationService } from "../../src/gen/leasehold/v1/rotation_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { CallError } from "../../src/client/errors.ts";
import { applyManifest, manifestOf, parseManifests } from "../../src/cli/manifest.ts";
import { APP, testWorld, type TestBroker, type TestWorld, texts } from "../support/broker.ts";
import { until } from "../support/until.ts";

const { method } = RotationService;

async function reasonOf(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => undefined,
    (failed: unknown) => failed,
  );
  if (!(error instanceof CallError)) throw new Error(`expected an error, got ${String(error)}`);
  return error.reason;
}

describe("rotations, over the wire", () => {
  let world: TestWorld;
  let broker: TestBroker;
  beforeAll(async () => {
    world = await testWorld();
    broker = await world.start();
  });
  afterAll(() => world.close());

  const admin = () => broker.as("admin");
  const generated = { fields: [{ name: "password", password: {} }] };
  const put = (path: string, body: JsonObject, more: object = {}) =>
    admin().call(method.putRotation, { rotation: fromJson(RotationSchema, { path: `rotations/${path}`, generated, ...body }), ...more });
  const rotation = async (path: string): Promise<Rotation> => (await admin().call(method.getRotation, { path: `rotations/${path}` })).rotation!;
  const secret = async (path: string, more: object = {}) => {
    const got = await admin().call(SecretService.method.getSecret, { path, ...more });
    return {
      version: Number(got.version),
      labels: got.stagingLabels,
      data: Object.fromEntries(Object.entries(got.data).map(([key, { kind }]) => [key, kind.value])),
    };
  };
  const rotated = (path: string, times: number): Promise<Rotation> =>
    until(`${path} is rotated ${times} times`, async () => {
      const found = await rotation(path);
      return found.state === State.WAITING && Number(found.generation) >= times && found;
    });
  const putSecret = (path: string, data: Record<string, string>) => admin().call(SecretService.method.putSecret, { path, data: texts(data) });

  it("makes the first version of a secret that has none, and keeps what it did not make", async () => {
    const path = "secrets/r/fresh";
    const fields = [
      { name: "password", password: { length: 40, minDigits: 3 } },
      { name: "salt", random: { size: 16, encoding: "ENCODING_HEX" } },
      { name: "key", keyPair: { algorithm: "ALGORITHM_EC_P256" } },
    ];
    await put(path, { generated: { fields } });
    const first = await rotated(path, 1);
    expect(first).toMatchObject({ cause: "first", lastProblem: "" });
    const made = await secret(path);
    expect(made.version).toBe(1);
    expect(made.data["password"]).toMatch(/^[A-Za-z0-9]{40}$/);
    expect(made.data["salt"]).toMatch(/^[0-9a-f]{32}$/);
    expect(made.data["key"]).toContain("BEGIN PRIVATE KEY");
    expect(made.data["key_public"]).toContain("BEGIN PUBLIC KEY");
  });

  it("rotates now: one event per step, each audited with its cause, exactly one CURRENT, the old one PREVIOUS", async () => {
    const path = "secrets/r/now";
    await putSecret(path, { username: "app", password: "old" });
    await put(path, {});
    await admin().call(method.rotateNow, { path: `rotations/${path}` });
    await rotated(path, 1);
    const current = await secret(path);
    expect(current).toMatchObject({ version: 2, labels: ["CURRENT"], data: { username: "app" } });
    expect(current.data["password"]).not.toBe("old");
    expect(await secret(path, { selector: { case: "stagingLabel", value: "PREVIOUS" } })).toMatchObject({ version: 1, data: { password: "old" } });
    expect(await reasonOf(secret(path, { selector: { case: "stagingLabel", value: "PENDING" } }))).toBe("VERSION_NOT_FOUND");
    const events = await world.store.query<{ type: number; version: number }>(
      "select type, version::int from change_log where path = $1 and type >= 50 order by revision",
      [path],
    );
    expect(events).toEqual([57, 50, 51, 52, 55, 54].map((type) => ({ type, version: [51, 52, 55, 54].includes(type) ? 2 : 0 })));
    const records = await world.store.query<{ action: string; cause: string }>(
      "select record->>'action' as action, record->>'cause' as cause from audit_record where record->>'path' = $1 and record->>'action' like 'rotation.%' order by seq",
      [path],
    );
    expect(records).toEqual(["stage", "was_set", "promote", "finish"].map((step) => ({ action: `rotation.${step}`, cause: "requested" })));
  });

  it("does a request once", async () => {
    const path = "secrets/r/once";
    await put(path, {});
    await rotated(path, 1);
    const requestId = randomUUID();
    await admin().call(method.rotateNow, { path: `rotations/${path}`, requestId });
    await rotated(path, 2);
    await admin().call(method.rotateNow, { path: `rotations/${path}`, requestId });
    expect((await rotation(path)).generation).toBe(2n);
  });

  it("lesson 30: a manifest applied again changes neither the value nor the planned time", async () => {
    const path = "secrets/r/again";
    const policy = { interval: "86400s", jitter: "600s" };
    await put(path, { policy });
    const before = await rotated(path, 1);
    const value = await secret(path);
    await put(path, { policy });
    const after = await until("it was looked at", async () => {
      const found = await rotation(path);
      return found.etag === "2" && found;
    });
    expect(after.nextRotationTime).toEqual(before.nextRotationTime);
    expect(await secret(path)).toEqual(value);
    // Another policy is another time, counted from the last rotation.
    await put(path, { policy: { interval: "172800s" } });
    const moved = await rotation(path);
    expect(Number(moved.nextRotationTime!.seconds - moved.lastRotationTime!.seconds)).toBe(172_800);
  });

  it("may be written by hand all the same, as in AWS Secrets Manager: what is put is CURRENT", async () => {
    const path = "secrets/r/byhand";
    await put(path, { policy: { interval: "86400s" } });
    await rotated(path, 1);
    await putSecret(path, { password: "by hand" });
    expect(await secret(path)).toMatchObject({ version: 2, data: { password: "by hand" } });
    await admin().call(method.rotateNow, { path: `rotations/${path}` });
    await rotated(path, 2);
    expect(await secret(path, { selector: { case: "stagingLabel", value: "PREVIOUS" } })).toMatchObject({ version: 2 });
  });

  it("is aborted until it is resumed", async () => {
    const path = "secrets/r/abort";
    await put(path, { policy: { interval: "86400s" } });
    await rotated(path, 1);
    const aborted = await admin().call(method.abortRotation, { path: `rotations/${path}` });
    expect(aborted.rotation).toMatchObject({ state: State.ABORTED });
    expect(aborted.rotation!.nextRotationTime).toBeUndefined();
    const resumed = await admin().call(method.resumeRotation, { path: `rotations/${path}` });
    expect(resumed.rotation!.state).toBe(State.WAITING);
    expect(resumed.rotation!.nextRotationTime).toBeDefined();
  });

  it("GetStaticCredential says when the next rotation is, and is a read", async () => {
    const path = "secrets/r/static";
    await put(path, { policy: { cron: { expression: "0 3 * * SUN", timeZone: "Europe/Berlin" } } });
    await rotated(path, 1);
    const got = await admin().call(CredentialService.method.getStaticCredential, { path });
    expect(got).toMatchObject({ version: 1n, rotating: false, overlap: true });
    expect(got.nextRotationTime).toEqual((await rotation(path)).nextRotationTime);
    expect(
      new Date(Number(got.nextRotationTime!.seconds) * 1000).toLocaleString("en", {
        timeZone: "Europe/Berlin",
        weekday: "short",
        hour: "numeric",
        hour12: false,
      }),
    ).toMatch(/Sun.*0?3/);
    expect(got.data["password"]?.kind.case).toBe("text");
    await putSecret("secrets/r/plain", { k: "v" });
    expect(await reasonOf(admin().call(CredentialService.method.getStaticCredential, { path: "secrets/r/plain" }))).toBe("ROTATION_NOT_FOUND");
    const [record] = await world.store.query<{ version: string }>(
      "select record->>'version' as version from audit_record where record->>'action' = 'CredentialService/GetStaticCredential' and record->>'path' = $1 and record->>'outcome' = 'ok'",
      [path],
    );
    expect(record?.version).toBe("1");
  });

  it("the time that is announced is that of the condition, where that comes first, and follows what is put by hand", async () => {
    const path = "secrets/r/age";
    const seconds = async () => {
      const { createTime, nextRotationTime } = await admin().call(CredentialService.method.getStaticCredential, { path });
      return Number(nextRotationTime!.seconds - createTime!.seconds);
    };
    await put(path, { policy: { interval: "86400s", conditions: { maxAge: "3600s", beforeExpiry: "600s" } } });
    const found = await rotated(path, 1);
    expect(await seconds()).toBe(3600);
    const [event] = await world.store.query<{ at: Date }>("select expire_at as at from change_log where path = $1 and type = 55", [path]);
    expect(Math.floor(event!.at.getTime() / 1000)).toBe(Number(found.nextRotationTime!.seconds));
    await admin().call(SecretService.method.putSecret, { path, data: texts({ password: "x" }), expireTime: timestampFromMs(Date.now() + 1_800_000) });
    expect(await seconds()).toBeGreaterThan(1190);
    expect(await seconds()).toBeLessThan(1210);
    expect((await admin().call(method.abortRotation, { path: `rotations/${path}` })).rotation!.nextRotationTime).toBeUndefined();
  });

  it("needs the capability on the rotation and on the secret, and says which is missing", async () => {
    const path = "secrets/payments/guarded";
    await put(path, {});
    await rotated(path, 1);
    const now = () => broker.as("app").call(method.rotateNow, { path: `rotations/${path}` });
    const allow = (...paths: string[]) =>
      admin().call(PolicyService.method.putPolicy, {
        policy: { name: "rotate", principals: [APP], rules: [{ paths, allow: ["rotate", "describe", "list"] }] },
      });
    await allow(`rotations/${path}`);
    expect(await reasonOf(now())).toBe("PERMISSION_DENIED");
    const why = await admin().call(PolicyService.method.explainAccess, { principal: APP, capability: "rotate", path: `rotations/${path}` });
    expect(why.allowed).toBe(false);
    expect(why.explanation).toContain(`on ${path}: denied`);
    await allow(`rotations/${path}`, path);
    await now();
    await rotated(path, 2);
    // To put one takes write on the secret too.
    const rotationBody = fromJson(RotationSchema, { path: `rotations/${path}`, generated });
    expect(await reasonOf(broker.as("app").call(method.putRotation, { rotation: rotationBody }))).toBe("PERMISSION_DENIED");
    const listed = await broker.as("app").call(method.listRotations, {});
    expect(listed.rotations.map((each) => each.path)).toEqual([`rotations/${path}`]);
    expect(await reasonOf(broker.as("app").call(method.getRotation, { path: "rotations/secrets/payments/other" }))).toBe("PERMISSION_DENIED");
  });

  it("begins when CURRENT was read often enough", async () => {
    const path = "secrets/r/reads";
    await put(path, { policy: { conditions: { maxReads: "3" } } });
    await rotated(path, 1);
    await until(
      "reads count",
      async () => {
        await secret(path);
        const found = await rotation(path);
        return found.generation === 2n && found.state === State.WAITING && found.cause === "reads";
      },
      30_000,
    );
  });

  it("a manifest is created, then unchanged; what get prints is one that apply takes back", async () => {
    const path = "secrets/r/manifest";
    const text = `
kind: Rotation
path: rotations/${path}
policy:
  cron: { expression: "0 3 * * SUN", window: 7200s }
  jitter: 3600s
  conditions: { maxAge: 2592000s, onFinding: true }
generated:
  fields:
    - { name: token, random: { size: 32 } }
    - { name: key, keyPair: {} }
    - { name: password, password: { length: 40, minUpper: 2 } }
    - { name: plain, password: {} }
`;
    const [manifest] = parseManifests(text, "test");
    expect(await applyManifest(admin(), manifest!, true)).toEqual({ name: `rotations/${path}`, applied: "created" });
    expect(await applyManifest(admin(), manifest!, false)).toMatchObject({ applied: "created" });
    await rotated(path, 1);
    expect(await applyManifest(admin(), manifest!, false)).toMatchObject({ applied: "unchanged" });
    const { kind: _, ...body } = manifestOf("Rotation", await rotation(path));
    expect(await applyManifest(admin(), { kind: "Rotation", body, source: "get" }, false)).toMatchObject({ applied: "unchanged" });
    expect((await rotation(path)).etag).toBe("1");
  });

  it("goes with its rotation's deletion, not with the secret's value", async () => {
    const path = "secrets/r/delete";
    await put(path, {});
    await rotated(path, 1);
    await admin().call(method.deleteRotation, { path: `rotations/${path}` });
    expect(await reasonOf(rotation(path))).toBe("ROTATION_NOT_FOUND");
    expect((await secret(path)).version).toBe(1);
  });

  it("survives a restart with the exact next time, and does not rotate because of it", async () => {
    const path = "secrets/r/restart";
    await put(path, { policy: { interval: "3600s", jitter: "300s" } });
    await put("secrets/r/noschedule", {});
    const before = await rotated(path, 1);
    await rotated("secrets/r/noschedule", 1);
    await broker.stop();
    broker = await world.start();
    await rotated(path, 1);
    const after = await rotation(path);
    expect(after.nextRotationTime).toEqual(before.nextRotationTime);
    expect([after.generation, (await rotation("secrets/r/noschedule")).generation]).toEqual([1n, 1n]);
  });

  it("refuses what is wrong, by field", async () => {
    await putSecret("secrets/r/wrong", { k: "v" });
    for (const [body, field] of [
      [{ policy: { cron: { expression: "* * *" } } }, "rotation.policy.cron.expression"],
      [{ policy: { cron: { expression: "0 3 30 2 *" } } }, "rotation.policy.cron.expression"],
      [{ policy: { cron: { expression: "0 3 * * *", timeZone: "Mars/Base" } } }, "rotation.policy.cron.time_zone"],
      [{ policy: { interval: "1s" } }, "rotation.policy.interval"],
      [{ policy: { interval: "3600s", jitter: "1800s" } }, "rotation.policy.jitter"],
      [
        {
          generated: {
            fields: [
              { name: "a", password: {} },
              { name: "a", random: { size: 16 } },
            ],
          },
        },
        "rotation.generated.fields[1].name",
      ],
      [{ generated: { fields: [{ name: "a", password: { length: 5 } }] } }, "rotation.generated.fields[0].password.length"],
    ] as const) {
      const error = await put("secrets/r/wrong", body as unknown as JsonObject).catch((failed: unknown) => failed);
      expect(error).toBeInstanceOf(CallError);
      expect(JSON.stringify((error as CallError).message) + JSON.stringify(error)).toContain(field);
    }
  });
});
