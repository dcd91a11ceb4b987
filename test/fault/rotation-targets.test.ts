import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { FAULT_POINTS, setFaultHandler } from "../../src/base/fault-point.ts";
import type { SecretData } from "../../src/model/secret.ts";
import { encodePayload } from "../../src/secrets/payload.ts";
import { GROUP } from "../conformance/engine-postgres-setup.ts";
import { CLAIM_OVER_MS, dieAt, rotationActor, type RotationReplica, rotationWorld, type RotationWorld } from "../support/rotation-world.ts";
import { dataOf } from "../support/rotators.ts";
import { LOGINS, postgresWithLogins, REDIS_USER, redisWithUser, SINGLE } from "../support/static-target.ts";
import { until } from "../support/until.ts";

const POINTS = FAULT_POINTS.filter((point) => point.startsWith("rotate."));
const CONFIGS: Readonly<Record<string, object>> = {
  postgres_single_user: { target: "db", username: SINGLE },
  postgres_alternating_users: { target: "db", usernames: LOGINS, owner: GROUP },
  redis_acl: { target: "cache", username: REDIS_USER, dropPrevious: false },
};
/** Those whose CURRENT works at every moment. */
const OVERLAP = ["postgres_alternating_users", "redis_acl"];

describe("rotations of real logins when workers die at every step", () => {
  let postgres: Awaited<ReturnType<typeof postgresWithLogins>>;
  let redis: Awaited<ReturnType<typeof redisWithUser>>;
  let world: RotationWorld;
  let replica: RotationReplica;
  let other: RotationReplica;

  beforeAll(async () => {
    [postgres, redis] = [await postgresWithLogins(), await redisWithUser()];
    world = await rotationWorld();
    replica = await world.replica();
    const write = { etag: "", dryRun: false, actor: rotationActor("OperatorService/PutTarget"), request: undefined };
    const { config, password } = postgres.target;
    await replica.targets.putTarget({ name: "db", engine: "postgres", config, password }, write);
    await replica.targets.putTarget(
      { name: "cache", engine: "redis", config: { ...redis.server.config, allowLogins: [REDIS_USER] }, password: redis.server.password },
      write,
    );
    other = await world.replica();
  });
  afterEach(() => setFaultHandler(undefined));
  afterAll(async () => {
    await world?.close();
    await postgres?.target.cluster.stop();
    await redis?.server.stop();
  });

  const login = (name: string, data: SecretData): Promise<void> => (name === "redis_acl" ? redis : postgres).login(data);
  const works = (name: string, data: SecretData): Promise<boolean> =>
    login(name, data).then(
      () => true,
      () => false,
    );
  const labels = async (path: string) =>
    (
      await world.database.query<{ current: number; pending: number }>(
        "select current_version::int as current, pending_version::int as pending from secret where path = $1",
        [path],
      )
    )[0]!;

  it.each(Object.keys(CONFIGS))("%s: exactly one CURRENT, and it logs in, whatever step a worker dies at", async (name) => {
    const path = `secrets/static/${name}`;
    const put = { path, rotator: name, policy: {}, maxCandidateFailures: 5, config: CONFIGS[name]! };
    const asked = { actor: rotationActor(), request: undefined };
    await replica.writer.put(put, "", true, false, asked);
    // From nothing: the first rotation makes the secret's first version.
    await world.settle(replica, path);
    await login(name, await world.current(path));

    let over = false;
    let [logins, failures] = [0, 0];
    // An application that reads CURRENT now and then, and logs in with what it holds all the time.
    const application = (async () => {
      let held = await world.current(path);
      for (; !over; logins++) {
        if (logins % 5 === 4) held = await world.current(path);
        if (!(await works(name, held))) failures++;
      }
    })();
    for (const [i, point] of POINTS.entries()) {
      dieAt(point);
      await replica.writer.rotateNow(path, asked);
      await replica.clockwork.sweep();
      const ended = await world.settle(other, path);
      expect(ended, point).toMatchObject({ state: "WAITING", problem: "" });
      expect(await labels(path), point).toEqual({ current: i + 2, pending: 0 });
      await login(name, await world.current(path));
      const so = logins;
      await until("a login", () => logins > so + 5);
    }
    over = true;
    await application;
    if (OVERLAP.includes(name)) expect(failures).toBe(0);
  });

  it.each(Object.keys(CONFIGS))("%s: an abort at any step leaves a CURRENT that logs in", async (name) => {
    const path = `secrets/static/${name}`;
    const asked = { actor: rotationActor(), request: undefined };
    for (const point of ["rotate.created", "rotate.staged", "rotate.set", "rotate.tested"] as const) {
      const before = await labels(path);
      dieAt(point);
      await replica.writer.rotateNow(path, asked);
      await replica.clockwork.sweep();
      await replica.abort(path, asked);
      expect(await world.settle(replica, path), point).toMatchObject({ state: "ABORTED" });
      expect((await labels(path)).current, point).toBe(before.current);
      await until(`CURRENT logs in after ${point}`, async () => works(name, await world.current(path)));
    }
    await replica.writer.resume(path, asked);
    await replica.writer.rotateNow(path, asked);
    await world.settle(replica, path);
    await login(name, await world.current(path));
  });

  it("whoever may write the secret, and no more, can't have another login's password set by it", async () => {
    const path = "secrets/static/postgres_single_user";
    const asked = { actor: rotationActor(), request: undefined };
    const twins = await world.current("secrets/static/postgres_alternating_users");
    dieAt("rotate.set");
    await replica.writer.rotateNow(path, asked);
    await replica.clockwork.sweep();
    await until("it is at SET", async () => (await world.rotation(path)).step === "SET");
    const chosen = dataOf({ username: twins.get("username")!.value.revealText(), password: "chosen-by-a-writer" });
    const options = { expectedVersion: undefined, notBefore: undefined, expireAt: undefined };
    await replica.secrets.put(path, encodePayload(chosen), options, rotationActor("SecretService/PutSecret"), undefined);
    await replica.abort(path, asked);
    await until("it was tried", async () => {
      await replica.clockwork.sweep();
      await world.advance(CLAIM_OVER_MS);
      return (await world.rotation(path)).problem === "TARGET_MISCONFIGURED: no_login";
    });
    await login("postgres_alternating_users", twins);
    expect(await works("postgres_single_user", chosen)).toBe(false);
  });
});
