import { randomUUID } from "node:crypto";
import { status } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CallError } from "../../src/client/errors.ts";
import { SecretService, SecretVersion_State as State } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { allowApp, testWorld, type TestBroker, type TestWorld, texts } from "../support/broker.ts";

const { method } = SecretService;

/** The reason a call failed with; fails the test if it did not. */
async function reasonOf(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => undefined,
    (failed: unknown) => failed,
  );
  if (!(error instanceof CallError)) throw new Error(`expected an error, got ${String(error)}`);
  return error.reason;
}

describe("secrets, over the wire", () => {
  let world: TestWorld;
  let broker: TestBroker;
  beforeAll(async () => {
    world = await testWorld();
    broker = await world.start();
    await allowApp(broker);
  });
  afterAll(() => world.close());

  const admin = () => broker.as("admin");
  const put = (path: string, data: Record<string, string>, more: object = {}) => admin().call(method.putSecret, { path, data: texts(data), ...more });
  const get = async (path: string, more: object = {}) => {
    const got = await admin().call(method.getSecret, { path, ...more });
    return {
      version: Number(got.version),
      labels: got.stagingLabels,
      data: Object.fromEntries(Object.entries(got.data).map(([key, { kind }]) => [key, kind.value])),
    };
  };

  it("keeps versions, with CURRENT and PREVIOUS", async () => {
    const path = "secrets/v/one";
    await put(path, { k: "first" });
    await put(path, { k: "second" });
    expect(await get(path)).toEqual({ version: 2, labels: ["CURRENT"], data: { k: "second" } });
    expect(await get(path, { selector: { case: "stagingLabel", value: "PREVIOUS" } })).toEqual({ version: 1, labels: ["PREVIOUS"], data: { k: "first" } });
    await admin().call(method.rollbackSecret, { path, toVersion: 1n });
    expect(await get(path)).toEqual({ version: 3, labels: ["CURRENT"], data: { k: "first" } });
  });

  it("of twenty writers who know the same version exactly one wins", async () => {
    const path = "secrets/v/race";
    await put(path, { k: "0" });
    const outcomes = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        put(path, { k: String(i) }, { expectedVersion: 1n }).then(
          () => "won",
          (error: CallError) => error.reason,
        ),
      ),
    );
    expect(outcomes.filter((outcome) => outcome === "won")).toHaveLength(1);
    expect(new Set(outcomes)).toEqual(new Set(["won", "VERSION_MISMATCH"]));
    expect((await get(path)).version).toBe(2);
  });

  it("twenty writers who know nothing make twenty versions", async () => {
    const path = "secrets/v/all";
    await Promise.all(Array.from({ length: 20 }, (_, i) => put(path, { k: String(i) })));
    const { versions } = await admin().call(method.listSecretVersions, { path });
    expect((await get(path)).version).toBe(20);
    expect(versions.length).toBeGreaterThanOrEqual(10); // max_versions keeps the newest
  });

  it("does a request once, and refuses another request under its id", async () => {
    const path = "secrets/v/once";
    const requestId = randomUUID();
    const [first, again] = [await put(path, { k: "v" }, { requestId }), await put(path, { k: "v" }, { requestId })];
    expect(again).toMatchObject({ revision: first.revision, version: { version: 1n } });
    expect(await reasonOf(put(path, { k: "other" }, { requestId }))).toBe("CONFLICT");
    expect((await get(path)).version).toBe(1);
  });

  it("deletes, undeletes and destroys versions", async () => {
    const path = "secrets/v/gone";
    await put(path, { k: "a" });
    await put(path, { k: "b" });
    await admin().call(method.deleteSecretVersions, { path, versions: [2n] });
    expect(await reasonOf(get(path))).toBe("VERSION_DELETED");
    await admin().call(method.undeleteSecretVersions, { path, versions: [2n] });
    expect((await get(path)).data).toEqual({ k: "b" });
    const destroyed = await admin().call(method.destroySecretVersions, { path, versions: [1n] });
    expect(destroyed.versions[0]).toMatchObject({ version: 1n, state: State.DESTROYED });
    expect(await reasonOf(get(path, { selector: { case: "version", value: 1n } }))).toBe("VERSION_DESTROYED");
    expect(await reasonOf(admin().call(method.undeleteSecretVersions, { path, versions: [1n] }))).toBe("VERSION_DESTROYED");
    const [row] = await world.store.query<{ sealed: unknown }>(
      "select v.sealed from secret_version v join secret s on s.uid = v.secret_uid where s.path = $1 and v.version = 1",
      [path],
    );
    expect(row!.sealed).toBeNull();
  });

  it("deletes a secret with a window to restore it in, then purges it; the same name made again is another secret", async () => {
    const path = "secrets/v/window";
    await put(path, { k: "a" });
    const before = (await admin().call(method.describeSecret, { path })).secret!;
    await admin().call(method.deleteSecret, { path });
    expect(await reasonOf(get(path))).toBe("SECRET_DELETED");
    expect(await reasonOf(put(path, { k: "b" }))).toBe("SECRET_DELETED");
    await admin().call(method.restoreSecret, { path });
    expect((await get(path)).data).toEqual({ k: "a" });
    await admin().call(method.deleteSecret, { path, recoveryWindow: { seconds: 0n, nanos: 0 } });
    expect(await reasonOf(get(path))).toMatch(/SECRET_(DELETED|NOT_FOUND)/);
    await world.store.query("delete from secret where path = $1", [path]);
    await put(path, { k: "new" });
    expect((await admin().call(method.describeSecret, { path })).secret!.uid).not.toBe(before.uid);
  });

  it("finding 33: a ciphertext that was moved to another row or version does not open", async () => {
    await put("secrets/v/from", { k: "stolen" });
    await put("secrets/v/to", { k: "mine" });
    await world.store.query(
      "update secret_version set sealed = (select v.sealed from secret_version v join secret s on s.uid = v.secret_uid where s.path = 'secrets/v/from') where secret_uid = (select uid from secret where path = 'secrets/v/to')",
    );
    const failure = await admin()
      .call(method.batchGetSecrets, { requests: [{ path: "secrets/v/to" }, { path: "secrets/v/from" }] })
      .then((answer) => answer.results.map((result) => result.result.case));
    expect(failure).toEqual(["error", "secret"]);
  });

  it("is not readable before not_before, nor from expire_time on, by the database's clock", async () => {
    const at = (ms: number) => ({ seconds: BigInt(Math.floor((Date.now() + ms) / 1000)), nanos: 0 });
    await put("secrets/v/early", { k: "v" }, { notBefore: at(3_600_000) });
    await put("secrets/v/late", { k: "v" }, { expireTime: at(-3_600_000) });
    expect(await reasonOf(get("secrets/v/early"))).toBe("VERSION_NOT_YET_VALID");
    expect(await reasonOf(get("secrets/v/late"))).toBe("VERSION_EXPIRED");
  });

  it("answers a batch item by item, each authorized by itself", async () => {
    await put("secrets/payments/a", { k: "a" });
    await put("secrets/other/b", { k: "b" });
    const { results } = await broker.as("app").call(method.batchGetSecrets, {
      requests: [{ path: "secrets/payments/a" }, { path: "secrets/other/b" }, { path: "secrets/payments/none" }, { path: "secrets/../x" }],
    });
    expect(results.map(({ result }) => (result.case === "secret" ? "secret" : result.case === "error" ? result.value.code : "")).slice(0, 4)).toEqual([
      "secret",
      status.PERMISSION_DENIED,
      status.NOT_FOUND,
      status.INVALID_ARGUMENT,
    ]);
  });

  it("a batch that does not fit says so item by item", async () => {
    const big = "x".repeat(60_000);
    await put("secrets/v/big", { k: big });
    const { results } = await admin().call(method.batchGetSecrets, { requests: Array.from({ length: 60 }, () => ({ path: "secrets/v/big" })) });
    const kinds = results.map(({ result }) => result.case);
    expect(kinds.filter((kind) => kind === "secret").length).toBeGreaterThan(40);
    expect(kinds.at(-1)).toBe("error");
  });

  it("finding 32: lists show and tell only what the caller may list; page tokens fit no other call", async () => {
    for (let i = 0; i < 7; i++) await put(`secrets/payments/page/${i}`, { k: "v" });
    await put("secrets/hidden/aaa", { k: "v" });
    const seen: string[] = [];
    let token = "";
    do {
      const page = await broker.as("app").call(method.listSecrets, { pageSize: 3, pageToken: token });
      seen.push(...page.secrets.map((secret) => secret.path));
      token = page.nextPageToken;
      expect(Buffer.from(token, "base64url").includes("secrets/")).toBe(false);
    } while (token !== "");
    expect(seen.every((path) => path.startsWith("secrets/payments/"))).toBe(true);
    expect(seen.filter((path) => path.startsWith("secrets/payments/page/"))).toHaveLength(7);
    expect([...seen].sort()).toEqual(seen);
    const first = await broker.as("app").call(method.listSecrets, { prefix: "secrets/payments/", pageSize: 2 });
    expect(await reasonOf(broker.as("app").call(method.listSecrets, { pageSize: 2, pageToken: first.nextPageToken }))).toBe("PAGE_TOKEN_INVALID");
    expect(await reasonOf(admin().call(method.listSecrets, { prefix: "secrets/payments/", pageSize: 2, pageToken: first.nextPageToken }))).toBe(
      "PAGE_TOKEN_INVALID",
    );
    expect(await reasonOf(broker.as("app").call(method.listSecrets, { prefix: "secrets/payments/", pageToken: `${first.nextPageToken.slice(0, -2)}AA` }))).toBe(
      "PAGE_TOKEN_INVALID",
    );
  });

  it("changes metadata by mask and etag", async () => {
    const path = "secrets/v/meta";
    await put(path, { k: "v" });
    const { secret } = await admin().call(method.updateSecretMetadata, { path, labels: { team: "a" }, updateMask: { paths: ["labels"] } });
    expect(secret).toMatchObject({ labels: { team: "a" }, maxVersions: 10 });
    expect(await reasonOf(admin().call(method.updateSecretMetadata, { path, etag: "1", maxVersions: 2, updateMask: { paths: ["max_versions"] } }))).toBe(
      "VERSION_MISMATCH",
    );
    await admin().call(method.updateSecretMetadata, { path, etag: secret!.etag, maxVersions: 2, updateMask: { paths: ["max_versions"] } });
    for (let i = 0; i < 4; i++) await put(path, { k: String(i) });
    expect((await admin().call(method.listSecretVersions, { path })).versions.map((version) => Number(version.version))).toEqual([5, 4]);
  });

  it("takes text, bytes and any Unicode, up to 64 KiB", async () => {
    const path = "secrets/v/kinds";
    const data = {
      text: { kind: { case: "text" as const, value: "ünï\u{1f511}\n" } },
      bytes: { kind: { case: "bytes" as const, value: Uint8Array.of(0, 255, 1) } },
      empty: { kind: { case: "text" as const, value: "" } },
    };
    await admin().call(method.putSecret, { path, data });
    expect((await get(path)).data).toEqual({ text: "ünï\u{1f511}\n", bytes: Uint8Array.of(0, 255, 1), empty: "" });
    expect(await reasonOf(put("secrets/v/huge", { k: "x".repeat(65_536) }))).toBe("REQUEST_INVALID");
    expect(await reasonOf(put("secrets/v/none", {}))).toBe("REQUEST_INVALID");
  });

  it.each([
    "",
    "secrets",
    "secrets/",
    "/secrets/a",
    "secrets//a",
    "secrets/a/",
    "secrets/.",
    "secrets/../a",
    "secrets/a/../b",
    "secrets/a\u0000b",
    "secrets/a%2fb",
    "secrets/é",
    "Secrets/a",
    "policies/a",
    `secrets/${"a/".repeat(40)}b`,
    `secrets/${"x".repeat(600)}`,
  ])("lesson 47: the path %j is refused, never repaired", async (path) => {
    expect(await reasonOf(admin().call(method.getSecret, { path }))).toBe("PATH_INVALID");
    expect(await reasonOf(put(path, { k: "v" }))).toBe("PATH_INVALID");
  });
});
