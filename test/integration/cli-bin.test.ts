import { spawn } from "node:child_process";
import { type AddressInfo, createServer } from "node:net";
import { join, resolve } from "node:path";
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tempFolder } from "../support/temp.ts";

const BIN = resolve(import.meta.dirname, "../../bin/leasehold.mjs");

describe("bin/leasehold.mjs under an old Node, which starts the one of node_modules", () => {
  /** Takes connections and says nothing: a command that waits for it is known to be up. */
  const silent = createServer();
  let preload: string;

  beforeAll(async () => {
    preload = join(tempFolder("bin"), "old.mjs");
    writeFileSync(preload, `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "20.1.0" } });\n`);
    await new Promise<void>((done) => silent.listen(0, "127.0.0.1", done));
  });
  afterAll(() => silent.close());

  const start = (...args: string[]) => spawn(process.execPath, ["--import", preload, BIN, ...args], { stdio: ["ignore", "pipe", "pipe"] });

  it.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("lesson 60: %s reaches the command and comes back as %i", async (signal, code) => {
    const { port } = silent.address() as AddressInfo;
    const up = new Promise<void>((done) => silent.once("connection", (socket) => done(void socket.on("error", () => {}))));
    const wrapper = start("target", "bootstrap", "--instance", "abcdefgh", "--url", `postgresql://x@127.0.0.1:${port}/x`);
    const ended = new Promise<[number | null, string | null]>((done) => wrapper.on("exit", (exit, by) => done([exit, by])));
    await up;
    wrapper.kill(signal);
    expect(await ended).toEqual([code, null]);
  });

  it("passes the command's own exit code on", async () => {
    const wrapper = start("no-such-command");
    expect(await new Promise((done) => wrapper.on("exit", done))).toBe(2);
  });
});
