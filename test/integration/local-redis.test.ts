import { once } from "node:events";
import { readFileSync, statSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Redis } from "ioredis";
import { expect, inject, onTestFinished, test } from "vitest";
import { freePort } from "../../src/dev/free-port.ts";
import { startLocalRedis, type LocalRedis } from "../../src/dev/local-redis.ts";
import { groupOf, isRunning, startProgram } from "../support/process.ts";
import { freshRedis, sharedRedis } from "../support/redis.ts";
import { tempFolder } from "../support/temp.ts";
import { until } from "../support/until.ts";

const HOLD = fileURLToPath(new URL("../support/hold-server.ts", import.meta.url));

async function start(folder: string, port: number): Promise<LocalRedis> {
  const server = await startLocalRedis(folder, port, inject("redisServer"));
  onTestFinished(() => server.stop());
  return server;
}

async function connected(url: string): Promise<Redis> {
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null, maxRetriesPerRequest: 0 });
  redis.on("error", () => {});
  onTestFinished(() => redis.disconnect());
  await redis.connect();
  return redis;
}

test("it asks for its password, which is in a 0600 file in a 0700 folder, and keeps nothing on disk", async () => {
  const folder = join(tempFolder("redis"), "redis");
  const server = await start(folder, await freePort());
  const redis = await connected(server.url);
  await redis.set("a", "1");
  expect(await redis.config("GET", "save")).toEqual(["save", ""]);
  expect(await redis.config("GET", "appendonly")).toEqual(["appendonly", "no"]);
  const stranger = connect(server.port, "127.0.0.1", () => stranger.write("GET a\r\n"));
  onTestFinished(() => void stranger.destroy());
  const [answer] = (await once(stranger, "data")) as [Buffer];
  expect(answer.toString()).toMatch(/^-NOAUTH /);
  expect(statSync(folder).mode & 0o777).toBe(0o700);
  expect(statSync(join(folder, "redis.conf")).mode & 0o777).toBe(0o600);
  expect(statSync(join(folder, "redis.log")).mode & 0o777).toBe(0o600);
  await server.stop();
  await server.stop();
  expect(await server.exited).toBe(0);
});

test("a taken port is one clear line, also when another server answers there", async () => {
  const there = await start(join(tempFolder("redis"), "redis"), await freePort());
  const message = `cannot start Redis: port ${there.port} of 127.0.0.1 is in use by another program`;
  await expect(start(join(tempFolder("redis"), "redis"), there.port)).rejects.toMatchObject({ reason: "STORE_UNAVAILABLE", message });

  const silent = createServer();
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void silent.close());
  const { port } = silent.address() as { port: number };
  await expect(start(join(tempFolder("redis"), "redis"), port)).rejects.toThrow(`port ${port} of 127.0.0.1 is in use`);
});

test("the parent's kill -9 leaves no process", async () => {
  const program = startProgram(process.execPath, [HOLD, "redis", join(tempFolder("redis"), "redis")]);
  const [, json] = await program.says(/started (\{.*\})/);
  const { pid } = JSON.parse(json!) as { pid: number };
  const shell = process.platform === "linux" ? groupOf(pid) : pid;
  expect(isRunning(pid) && isRunning(shell)).toBe(true);
  program.signal("SIGKILL");
  await until("Redis and its shell to be gone", () => !isRunning(pid) && !isRunning(shell));
});

test.runIf(process.platform === "linux")("finding C7: nothing of the parent's environment reaches it, and no password its command line", async () => {
  const program = startProgram(process.execPath, [HOLD, "redis", join(tempFolder("redis"), "redis")], { env: { LEASEHOLD_KMS_KEY: "canary-of-c7" } });
  const [, json] = await program.says(/started (\{.*\})/);
  const { pid } = JSON.parse(json!) as { pid: number };
  for (const one of [pid, groupOf(pid)]) {
    expect(readFileSync(`/proc/${one}/environ`, "utf8")).not.toMatch(/canary|LEASEHOLD/);
    expect(readFileSync(`/proc/${one}/cmdline`, "utf8")).not.toContain("password");
  }
});

test("a Redis of one's own can be wiped, killed and started again, empty, at the same URL", async () => {
  const own = await freshRedis();
  const write = async (): Promise<void> => void (await (await connected(own.url)).set("a", "1"));
  await write();
  expect(await own.dump()).toBe('a "1"');
  await own.wipe();
  expect(await own.dump()).toBe("");
  await write();
  await own.kill();
  await own.kill();
  await expect(connected(own.url)).rejects.toThrow();
  await own.restart();
  expect(await own.dump()).toBe("");
  await write();
  await own.restart();
  expect(await own.dump()).toBe("");
  await own.stop();
});

test("what is under one prefix of the shared Redis is one caller's alone", async () => {
  const [mine, yours] = [sharedRedis(), sharedRedis()];
  const redis = await connected(mine.url);
  await redis.zadd(`${mine.prefix}due`, 5, "x");
  await redis.hset(`${mine.prefix}counters`, "n", "2");
  expect(await mine.dump()).toBe(`${mine.prefix}counters {"n":"2"}\n${mine.prefix}due ["x","5"]`);
  expect(await yours.dump()).toBe("");
});
