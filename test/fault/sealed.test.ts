import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CallError } from "../../src/client/errors.ts";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "../../src/gen/grpc/health/v1/health_pb.ts";
import { OperatorService } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { OperationService } from "../../src/gen/leasehold/v1/operation_service_pb.ts";
import { Operation_State as State } from "../../src/gen/leasehold/v1/operation_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { newMasterKeyLine } from "../../src/kms/master-key.ts";
import { testWorld, type TestBroker, type TestWorld, texts } from "../support/broker.ts";
import { until } from "../support/until.ts";

describe("sealing, over the wire", () => {
  let world: TestWorld;
  beforeAll(async () => {
    world = await testWorld();
  });
  afterAll(() => world.close());

  const get = (broker: TestBroker, path: string) => broker.as("admin").call(SecretService.method.getSecret, { path });
  const health = async (broker: TestBroker) => (await broker.as("admin").call(Health.method.check, {})).status;
  /** The client tries UNAVAILABLE again until its timeout, so it is asked once here. */
  const reason = (broker: TestBroker) =>
    get(broker, "secrets/s/one").then(
      () => "",
      (error: CallError) => error.reason,
    );

  it("rotates, rewraps and still reads everything", async () => {
    const broker = await world.start();
    for (let i = 0; i < 30; i++)
      await broker.as("admin").call(SecretService.method.putSecret, { path: i === 0 ? "secrets/s/one" : `secrets/s/${i}`, data: texts({ k: `v${i}` }) });
    expect((await broker.as("admin").call(OperatorService.method.rotateKeyring, {})).keyId).toBe(2);
    expect((await get(broker, "secrets/s/7")).data["k"]?.kind.value).toBe("v7");
    const { operation } = await broker.as("admin").call(OperatorService.method.rewrapKeyring, {});
    const done = await broker.as("admin").call(OperationService.method.waitOperation, { path: operation!.path });
    expect(done.operation).toMatchObject({ state: State.SUCCEEDED, done: 30n });
    const rows = await world.store.query<{ key_id: number }>("select distinct key_id from secret_version where key_id is not null");
    expect(rows).toEqual([{ key_id: 2 }]);
    for (let i = 1; i < 30; i++) expect((await get(broker, `secrets/s/${i}`)).data["k"]?.kind.value).toBe(`v${i}`);
    await broker.stop();
  });

  it.each(["another key", "no key"])("with %s it starts, serves nothing but SEALED, and goes on once the key is back", async (kind) => {
    const key = readFileSync(world.kmsKey, "utf8");
    renameSync(world.kmsKey, `${world.kmsKey}.kept`);
    if (kind === "another key") writeFileSync(world.kmsKey, newMasterKeyLine(), { mode: 0o600 });
    const broker = await world.start({ settings: { kms: { provider: "file", file: world.kmsKey } } });
    expect(await health(broker)).toBe(Serving.NOT_SERVING);
    expect(await reason(broker)).toBe("SEALED");
    const [before] = await world.store.query<{ n: string }>("select count(*) as n from keyring_seed");
    expect(Number(before!.n)).toBe(2);
    if (kind === "no key") {
      writeFileSync(world.kmsKey, key, { mode: 0o600 });
      await until("it serves", async () => (await health(broker)) === Serving.SERVING);
      expect((await get(broker, "secrets/s/one")).data["k"]?.kind.value).toBe("v0");
    }
    await broker.stop();
    writeFileSync(world.kmsKey, key, { mode: 0o600 });
  });
});
