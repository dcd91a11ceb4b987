import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CallError } from "../../src/client/errors.ts";
import { PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { allowApp, testWorld, type TestBroker, type TestWorld, texts } from "../support/broker.ts";

describe("two replicas on one store", () => {
  let world: TestWorld;
  let brokers: [TestBroker, TestBroker];
  beforeAll(async () => {
    world = await testWorld();
    brokers = [await world.start(), await world.start()];
  });
  afterAll(() => world.close());

  const [one, two] = [0, 1] as const;
  const put = (i: 0 | 1, value: string) =>
    brokers[i].as("admin").call(SecretService.method.putSecret, { path: "secrets/payments/x", data: texts({ k: value }) });
  const get = async (i: 0 | 1, as: "app" | "admin") =>
    (await brokers[i].as(as).call(SecretService.method.getSecret, { path: "secrets/payments/x" })).data["k"]?.kind.value;

  it("finding 16: what was written through one is read through the other at once, every time", async () => {
    for (let i = 0; i < 30; i++) {
      await put((i % 2) as 0 | 1, String(i));
      expect(await get(((i + 1) % 2) as 0 | 1, "admin")).toBe(String(i));
    }
  });

  it("finding 16: a policy deleted through one is obeyed by the next read through the other, every time", async () => {
    for (let i = 0; i < 10; i++) {
      await allowApp(brokers[one]);
      expect(await get(two, "app")).toBeDefined();
      await brokers[one].as("admin").call(PolicyService.method.deletePolicy, { path: "policies/app" });
      await expect(get(two, "app")).rejects.toSatisfy((error) => error instanceof CallError && error.reason === "PERMISSION_DENIED");
    }
  });

  it("waits for min_revision", async () => {
    const { revision } = await put(one, "newest");
    const got = await brokers[two].as("admin").call(SecretService.method.getSecret, { path: "secrets/payments/x", minRevision: revision });
    expect(got.data["k"]?.kind.value).toBe("newest");
  });
});
