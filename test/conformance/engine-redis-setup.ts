import { Redis } from "ioredis";
import { Sensitive } from "../../src/base/sensitive.ts";
import type { CreatedLogin } from "../../src/engines/engine.ts";
import type { RedisRoleConfig, RedisTargetConfig } from "../../src/engines/redis/config.ts";
import { redis } from "../../src/engines/redis/definition.ts";
import { freshRedis } from "../support/redis.ts";
import type { EngineUnderTest, LeasedSession } from "./engine.ts";

export const BROKER = "leasehold_test";
/** As docs/engines.md has it. */
export const BROKER_RIGHTS =
  "~leasehold:* resetchannels -@all +acl|setuser +acl|getuser +acl|users +acl|deluser +acl|save +client|kill +info +time +watch +unwatch +multi +exec +get +set +ping".split(
    " ",
  );

export interface RedisServer {
  readonly url: string;
  readonly config: RedisTargetConfig;
  readonly password: Sensitive;
  stop(): Promise<void>;
}

/** A server whose broker's user has no more than the rights the documentation names. */
export async function redisTarget(): Promise<RedisServer> {
  const server = await freshRedis();
  const password = "a-password-of-the-brokers-own";
  const admin = new Redis(server.url);
  await admin.call("ACL", "SETUSER", BROKER, "on", `>${password}`, ...BROKER_RIGHTS);
  admin.disconnect();
  const config: RedisTargetConfig = { host: "127.0.0.1", port: Number(new URL(server.url).port), username: BROKER, tls: { mode: "disable" } };
  return { url: server.url, config, password: Sensitive.text(password), stop: () => server.stop() };
}

export async function redisUnderTest(): Promise<EngineUnderTest<RedisTargetConfig, RedisRoleConfig>> {
  const server = await redisTarget();
  const { config, password } = server;
  return {
    engine: redis,
    config,
    // TEST-NET-1 (RFC 5737): nothing answers there.
    unreachable: { ...config, host: "192.0.2.1" },
    password,
    instance: "test",
    role: { rules: ["~app:*", "+@read", "+@string", "+ping"] },
    connect: clientOf,
    stop: () => server.stop(),
  };
}

/** An ordinary driver, as an application would use it. */
export async function clientOf(connection: CreatedLogin["connection"], secret: Sensitive): Promise<LeasedSession> {
  const client = new Redis({
    host: connection["host"]!,
    port: Number(connection["port"]),
    username: connection["username"]!,
    password: secret.revealText(),
    lazyConnect: true,
    enableReadyCheck: false,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    retryStrategy: () => null,
  });
  client.on("error", () => {});
  const ended = new Promise<void>((resolve) => client.once("end", () => resolve()));
  try {
    await client.connect();
    await client.get("app:x");
  } catch (error) {
    client.disconnect();
    throw error;
  }
  return {
    ended,
    use: async () => void (await client.get("app:x")),
    close: () => Promise.resolve(client.disconnect()),
  };
}
