import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { freePort } from "../src/dev/free-port.ts";
import { layoutOf } from "../src/dev/layout.ts";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "../src/gen/grpc/health/v1/health_pb.ts";
import { compiledPath, MALLOC_ENV, NODE_FLAGS } from "./compiled.ts";
import { type Bench, median, type Result } from "./result.ts";
import { Wire } from "./wire.ts";

const FIRST_RUNS = 3;
const WARM_RUNS = 5;
const LIMIT_MS = 60_000;
const IDLE_MS = 5000;

export const startBenches: readonly Bench[] = [
  { name: "start_first", reach: "≤ 6 s", run: startFirst },
  { name: "start_warm", reach: "≤ 1.5 s", run: startWarm },
  { name: "idle_rss", reach: "≤ 150 MB", run: idleRss },
];

/** `leasehold dev` in an empty folder, each time another one. */
async function startFirst(): Promise<Result> {
  const seconds: number[] = [];
  for (let i = 0; i < FIRST_RUNS; i++) seconds.push(await inFolder(async (folder) => (await startDev(folder)).seconds));
  return { value: median(seconds), unit: "s", detail: { runs: seconds } };
}

/** The same in a folder that is there already. */
async function startWarm(): Promise<Result> {
  return inFolder(async (folder) => {
    await startDev(folder);
    const seconds: number[] = [];
    for (let i = 0; i < WARM_RUNS; i++) seconds.push((await startDev(folder)).seconds);
    return { value: median(seconds), unit: "s", detail: { runs: seconds } };
  });
}

/** `leasehold server`, without telemetry, on the store of a running `leasehold dev`: resident memory once it has been idle. */
async function idleRss(): Promise<Result> {
  return inFolder(async (folder) => {
    const { value } = await startDev(folder, async (layout) => {
      const port = await freePort();
      const server = start(["server", "--config", layout.config], { LEASEHOLD_LISTEN: `127.0.0.1:${port}` });
      try {
        await serving(server, layout, port);
        await delay(IDLE_MS);
        return residentMegabytes(server.pid!);
      } finally {
        await end(server);
      }
    });
    return { value: value!, unit: "MB" };
  });
}

type Layout = ReturnType<typeof layoutOf>;

/** Starts `leasehold dev`, waits until it serves, does `work`, and ends it. */
async function startDev<T>(folder: string, work?: (layout: Layout) => Promise<T>): Promise<{ readonly seconds: number; readonly value: T | undefined }> {
  const port = await freePort();
  const layout = layoutOf(folder);
  const startedAt = performance.now();
  const child = start(["dev", "--folder", folder, "--listen", `127.0.0.1:${port}`]);
  try {
    await serving(child, layout, port);
    const seconds = (performance.now() - startedAt) / 1000;
    // `dev` goes on with its demo: it is let finish, so that the next start finds a whole folder.
    while (!existsSync(layout.dev)) await delay(20);
    return { seconds, value: await work?.(layout) };
  } finally {
    await end(child);
  }
}

function start(args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
  const own = { PATH: process.env["PATH"] ?? "", HOME: process.env["HOME"] ?? "", NODE_ENV: "production", ...MALLOC_ENV };
  return spawn(process.execPath, [...NODE_FLAGS, compiledPath("main.js"), ...args], { env: { ...own, ...env }, stdio: ["ignore", "ignore", 2] });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  await ended;
}

/** Asks the port's health every 10 ms, over a new connection each time. */
async function serving(child: ChildProcess, layout: Layout, port: number): Promise<void> {
  const identity = { certificate: join(layout.pki, "admin.crt"), key: join(layout.pki, "admin.key") };
  const ca = join(layout.pki, "ca.crt");
  for (const giveUpAt = performance.now() + LIMIT_MS; performance.now() < giveUpAt; await delay(10)) {
    if (child.exitCode !== null) throw new Error(`leasehold ended with ${child.exitCode}`);
    if (![ca, identity.certificate, identity.key].every((file) => existsSync(file))) continue;
    const wire = new Wire(`127.0.0.1:${port}`, ca, identity);
    try {
      const { status } = await wire.call(Health.method.check, {}, 1000);
      if (status === Serving.SERVING) return;
    } catch {
      // not yet
    } finally {
      wire.close();
    }
  }
  throw new Error(`leasehold was not serving within ${LIMIT_MS / 1000} s`);
}

async function inFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const parent = mkdtempSync(join(tmpdir(), "leasehold-bench-"));
  try {
    return await work(join(parent, "broker"));
  } finally {
    rmSync(parent, { recursive: true, force: true });
  }
}

function residentMegabytes(pid: number): number {
  const line = /^VmRSS:\s+([0-9]+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(line?.[1]) / 1024;
}
