import { spawnSync } from "node:child_process";
import { findRedis } from "../../src/dev/local-redis.ts";

const INSTALL = "export DEBIAN_FRONTEND=noninteractive; apt-get install -y -qq redis-server || { apt-get update -qq && apt-get install -y -qq redis-server; }";

/** Path of a Redis or Valkey server, installed with the system's package manager when it may be. Throws when there is none: tests never skip in silence. */
export function redisServer(): string {
  const there = findRedis();
  if (there !== undefined) return there;
  const ways = [
    ...(has("apt-get") ? [[...(process.getuid?.() === 0 ? [] : ["sudo", "-n"]), "sh", "-c", INSTALL]] : []),
    ...(has("brew") ? [["brew", "install", "redis"]] : []),
  ];
  for (const [program, ...args] of ways) {
    console.log(`the tests need a Redis server: installing one with ${program === "brew" ? "brew" : "apt-get"}`);
    // apt starts the packaged service where there is an init system; the tests use servers of their own beside it.
    spawnSync(program!, args, { stdio: ["ignore", "ignore", "inherit"] });
    const installed = findRedis();
    if (installed !== undefined) return installed;
  }
  throw new Error(
    "the tests need redis-server or valkey-server on the PATH: install it (Debian, Ubuntu: apt-get install redis-server; macOS: brew install redis) and run them again",
  );
}

function has(program: string): boolean {
  return spawnSync("/bin/sh", ["-c", `command -v ${program}`]).status === 0;
}
