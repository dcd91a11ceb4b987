import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkRoleConfig } from "../../src/engines/redis/config.ts";
import { ruleProblem } from "../../src/engines/redis/rules.ts";
import { clientOf, redisTarget, type RedisServer } from "../conformance/engine-redis-setup.ts";
import { engineWorld, type EngineWorld, lifeOfALease } from "../support/engine-world.ts";

const PATH = "credentials/redis/team/cache";

describe("redis engine", () => {
  let server: RedisServer;
  let world: EngineWorld;
  let admin: Redis;

  beforeAll(async () => {
    server = await redisTarget();
    admin = new Redis(server.url);
    world = await engineWorld("redis");
  });
  afterAll(async () => {
    await world?.close();
    admin?.disconnect();
    await server?.stop();
  });

  const role = (more: object = {}): object => ({ kind: "Role", path: PATH, target: "cache", redis: { rules: ["~app:*", "+@read", "+@string"] }, ...more });

  it("a target and a role applied from a manifest issue a login that lives and ends with its lease", async () => {
    const { host, port, username } = server.config;
    const redis = { host, port, username, tlsMode: "TLS_MODE_DISABLE" };
    const target = { kind: "Target", name: "cache", redis, password: { text: server.password.revealText() } };
    expect(await world.apply(target, role())).toEqual(["created", "created"]);
    expect(await world.apply({ ...target, password: undefined }, role())).toEqual(["unchanged", "unchanged"]);

    const tested = await world.test("cache", PATH);
    expect(tested.checks.filter((check) => !check.ok)).toEqual([]);
    expect(tested.checks).toContainEqual(expect.objectContaining({ name: "without_server_expiry", ok: true }));

    await lifeOfALease(world, PATH, clientOf);
    const users = (await admin.call("ACL", "USERS")) as string[];
    expect(users.filter((name) => name.startsWith("lh_"))).toEqual([]);
  });

  it("a test of the target names the right to list users when it is missing", async () => {
    await admin.call("ACL", "SETUSER", server.config.username, "-acl|users");
    const { checks } = await world.test("cache", PATH);
    await admin.call("ACL", "SETUSER", server.config.username, "+acl|users");
    expect(checks.filter((check) => !check.ok)).toEqual([
      expect.objectContaining({ name: "list", detail: expect.stringContaining(`ACL SETUSER ${server.config.username} +acl|users`) as string }),
    ]);
  });

  it("finding 24: the server ends nothing by itself, so a lease is never longer than a day", async () => {
    const refused = world.apply(role({ maxTtl: "86401s" }));
    await expect(refused).rejects.toMatchObject({ reason: "REQUEST_INVALID" });
    await expect(world.apply(role({ redis: { rules: ["+@all"] } }))).rejects.toMatchObject({ reason: "REQUEST_INVALID" });
  });

  it("no allowed rule holds a command of the server's @admin category", async () => {
    const administrative = new Set(((await admin.call("ACL", "CAT", "admin")) as string[]).map((name) => name.split("|")[0]!));
    expect(administrative.size).toBeGreaterThan(15);
    expect([...administrative].filter((command) => ruleProblem(`+${command}`) === undefined)).toEqual([]);
    const categories = (await admin.call("ACL", "CAT")) as string[];
    for (const category of categories.filter((name) => checkRoleConfig({ rules: [`+@${name}`] }).length === 0)) {
      // oxlint-disable-next-line no-await-in-loop -- a handful
      const commands = (await admin.call("ACL", "CAT", category)) as string[];
      expect(commands.filter((command) => ruleProblem(`+${command}`) !== undefined)).toEqual([]);
    }
  });
});
