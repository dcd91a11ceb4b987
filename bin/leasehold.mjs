#!/usr/bin/env node
// Plain JavaScript, so that an old Node can still say what is wrong. The sources run as they are (Node >= 24 strips the types).
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
if (Number(process.versions.node.split(".")[0]) < 24) {
  const own = join(root, "node_modules", "node", "bin", "node");
  if (!existsSync(own)) {
    console.error("leasehold needs Node 24. `npm ci` installs one into node_modules; if you used --ignore-scripts, run `npm rebuild node`.");
    process.exit(1);
  }
  const { spawn } = await import("node:child_process");
  const child = spawn(own, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  const { constants } = await import("node:os");
  child.on("exit", (code, signal) => process.exit(signal === null ? (code ?? 1) : 128 + constants.signals[signal]));
} else {
  const built = join(root, "dist", "main.js");
  const source = join(root, "src", "main.ts");
  await import(existsSync(source) ? source : built);
}
