import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LeaseholdError } from "../base/errors.ts";
import { startGuarded } from "./child.ts";

export interface LocalRedis {
  readonly url: string;
  readonly port: number;
  stop(): Promise<void>;
}

const START_MS = 10_000;

/** Path of a Redis or Valkey server on this machine, if there is one. */
export function findRedis(): string | undefined {
  for (const name of ["redis-server", "valkey-server"]) {
    const found = spawnSync("/bin/sh", ["-c", `command -v ${name}`], { encoding: "utf8" });
    if (found.status === 0) return found.stdout.trim();
  }
  return undefined;
}

/** Starts a private server on the loopback address, with a random password (in a 0600 file, not on the command line) and no persistence: it holds hints only. */
export async function startLocalRedis(folder: string, port: number, server: string): Promise<LocalRedis> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const password = randomBytes(24).toString("base64url");
  const file = join(folder, "redis.conf");
  rmSync(file, { force: true });
  writeFileSync(file, [`bind 127.0.0.1`, `port ${port}`, `requirepass ${password}`, `dir "${folder}"`, `save ""`, `appendonly no`, `daemonize no`, ""].join("\n"), { mode: 0o600 });
  const child = startGuarded({ argv: [server, file], logFile: join(folder, "redis.log") });
  const giveUpAt = performance.now() + START_MS;
  while (!(await accepts(port))) {
    if (child.code !== undefined || performance.now() > giveUpAt) {
      await child.stop();
      throw new LeaseholdError("STORE_UNAVAILABLE", `Redis did not start; see ${join(folder, "redis.log")}`);
    }
    await sleep(10);
  }
  return { url: `redis://:${password}@127.0.0.1:${port}`, port, stop: () => child.stop() };
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
