import { randomBytes } from "node:crypto";
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { LeaseholdError } from "../base/errors.ts";
import { startEnvironment } from "./account.ts";
import { tether } from "./tether.ts";

export interface LocalRedis {
  /** Holds the password: not to be printed. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Settles when the server ends, wanted or not. */
  readonly exited: Promise<number>;
  /** Idempotent. */
  stop(): Promise<void>;
}

const READY_LIMIT_MS = 30_000;

/** Path of a Redis or Valkey server on the PATH, if there is one. */
export function findRedis(): string | undefined {
  for (const name of ["redis-server", "valkey-server"]) {
    const found = spawnSync("/bin/sh", ["-c", `command -v ${name}`], { encoding: "utf8", env: startEnvironment() });
    if (found.status === 0) return found.stdout.trim();
  }
  return undefined;
}

/**
 * A private server on 127.0.0.1 that ends with us however we end, without persistence: it holds hints only. Its password stands in a 0600
 * file, never on a command line.
 * @param folder its own, made 0700 when absent.
 * @param server from `findRedis`.
 * @throws LeaseholdError STORE_UNAVAILABLE whose message is one clear line, such as that the port is taken.
 */
export async function startLocalRedis(folder: string, port: number, server: string, password = randomBytes(24).toString("base64url")): Promise<LocalRedis> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const configFile = join(folder, "redis.conf");
  const logFile = join(folder, "redis.log");
  const config = [
    "bind 127.0.0.1",
    `port ${port}`,
    `requirepass ${password}`,
    `dir ${JSON.stringify(folder)}`,
    'save ""',
    "appendonly no",
    "maxmemory-policy noeviction",
  ];
  // Removed first: `mode` counts only for a new file.
  for (const file of [configFile, logFile]) rmSync(file, { force: true });
  writeFileSync(configFile, `${config.join("\n")}\n`, { mode: 0o600, flag: "wx" });
  const account = { prefix: [], ids: {}, owner: undefined };
  const redis = await tether([server, configFile], { account, logFile, signal: "TERM", lastResort: "KILL" });

  let ended = false;
  void redis.exited.then(() => (ended = true));
  for (const giveUpAt = Date.now() + READY_LIMIT_MS; !(await answers(port, password)); await delay(10)) {
    if (!ended && Date.now() < giveUpAt) continue;
    await redis.end();
    const taken = readFileSync(logFile, "utf8").includes("Address already in use");
    throw new LeaseholdError(
      "STORE_UNAVAILABLE",
      taken ? `cannot start Redis: port ${port} of 127.0.0.1 is in use by another program` : `cannot start Redis: see ${logFile}`,
    );
  }
  return { url: `redis://:${password}@127.0.0.1:${port}`, port, pid: redis.pid, exited: redis.exited, stop: () => redis.end() };
}

/** Whether ours answers: another program that holds the port does not know the password. */
function answers(port: number, password: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(`AUTH ${password}\r\nPING\r\n`));
    let reply = "";
    const done = (): void => {
      socket.destroy();
      resolve(reply.startsWith("+OK\r\n+PONG"));
    };
    socket.setTimeout(1000, done);
    socket.on("data", (chunk: Buffer) => {
      reply += chunk.toString("latin1");
      if (reply.includes("PONG") || !reply.startsWith("+OK".slice(0, reply.length))) done();
    });
    socket.on("error", done);
    socket.on("end", done);
  });
}
