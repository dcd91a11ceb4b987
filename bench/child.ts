import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { MALLOC_ENV, NODE_FLAGS } from "./compiled.ts";

/** A program of the bench in a process of its own, which answers one question at a time. */
export interface Child {
  readonly pid: number;
  /** What it said when it was ready. */
  readonly ready: unknown;
  ask(question: object): Promise<unknown>;
  stop(): Promise<void>;
}

export interface ChildOptions {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** For Node, beside the image's. */
  readonly flags?: readonly string[];
  /** Folder for a CPU profile of the process, written when it ends. */
  readonly profile?: string | undefined;
}

/** Starts `bench/<file>`; it must send one message when it is ready, and one per question. Its standard output goes to standard error. Rejects when it ends first. */
export async function startChild(file: string, { args = [], env = {}, flags = [], profile }: ChildOptions = {}): Promise<Child> {
  const child = fork(join(import.meta.dirname, file), [...args], {
    env: { PATH: process.env["PATH"] ?? "", HOME: process.env["HOME"] ?? "", NODE_ENV: "production", ...MALLOC_ENV, ...env },
    execArgv: [...NODE_FLAGS, ...flags, ...(profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profile}`])],
    stdio: ["ignore", 2, 2, "ipc"],
  });
  return {
    pid: child.pid!,
    ready: await nextMessage(child, file),
    async ask(question) {
      child.send(question);
      return nextMessage(child, file);
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.send({ stop: true });
      await ended;
    },
  };
}

async function nextMessage(child: ChildProcess, file: string): Promise<unknown> {
  const over = new AbortController();
  try {
    return await Promise.race([
      once(child, "message", { signal: over.signal }).then(([message]: unknown[]) => message),
      once(child, "exit", { signal: over.signal }).then(([code]) => {
        throw new Error(`bench/${file} ended with ${String(code)}`);
      }),
    ]);
  } finally {
    over.abort();
  }
}
