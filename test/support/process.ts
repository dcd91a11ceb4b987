import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { onTestFinished } from "vitest";
import { until } from "./until.ts";

export interface Program {
  readonly pid: number;
  /** What it wrote so far. */
  stdout(): string;
  stderr(): string;
  /** Waits until its output (both streams) matches, and answers the match. Fails at once, with the output, when the program ends without it. */
  says(pattern: RegExp, limitMs?: number): Promise<RegExpExecArray>;
  write(text: string): void;
  /** To the program alone, not to its children. */
  signal(name: NodeJS.Signals): void;
  /** Exit code and signal; output is complete by then. */
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  /** `kill -9` of it and all that is in its process group. Done by itself when the test finishes. */
  killTree(): Promise<void>;
}

export interface ProgramOptions {
  readonly cwd?: string;
  /** Added to ours; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly uid?: number;
  readonly gid?: number;
  /** For hooks: it outlives the test, and the caller ends it with `killTree`. */
  readonly keep?: boolean;
}

/** Runs a program in a process group of its own, which is killed when the calling test finishes (unless `keep`). */
export function startProgram(command: string, args: readonly string[], options: ProgramOptions = {}): Program {
  const { env, keep = false, ...rest } = options;
  const child = spawn(command, args, { ...rest, env: { ...process.env, ...env }, detached: true, stdio: ["pipe", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "", all: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      output[name] += text;
      output.all += text;
    });
  }
  child.stdin.on("error", () => {});
  let over = false;
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
    child.once("error", reject);
    // `close`, not `exit`: children that outlive the program may hold its output open, so this also waits for them.
    child.once("close", (code, signal) => {
      over = true;
      resolve({ code, signal });
    });
  });
  ended.catch(() => {});
  const killTree = async (): Promise<void> => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch (error) {
      // ESRCH: nothing of the group is left.
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
    await ended.catch(() => {});
  };
  if (!keep) onTestFinished(killTree);
  if (child.pid === undefined) throw new Error(`cannot start ${command}`);
  return {
    pid: child.pid,
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    async says(pattern, limitMs) {
      return until(
        `${command} to say ${pattern}`,
        () => {
          const match = pattern.exec(output.all);
          if (match === null && over) throw new Error(`${command} ended without saying ${pattern}:\n${output.all}`);
          return match ?? undefined;
        },
        limitMs,
      );
    },
    write: (text) => void child.stdin.write(text),
    signal: (name) => void child.kill(name),
    ended,
    killTree,
  };
}

/** `kill -9` of a server and the wait for its end. Nothing if `exited` has settled: its pid may be another process's by then. */
export async function killServer(server: { readonly pid: number; readonly exited: Promise<number> }): Promise<void> {
  const state = await Promise.race([server.exited, new Promise<"running">((resolve) => setImmediate(resolve, "running"))]);
  if (state === "running" && isRunning(server.pid)) process.kill(server.pid, "SIGKILL");
  await server.exited;
}

/** Whether a process with that id is there and alive: one that has ended but that nobody has waited for yet (in a container without an init) is not. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
  return process.platform !== "linux" || !"ZX".includes(statOf(pid)[0] ?? "X");
}

/** Whether a process was stopped by a signal (Linux only). */
export function isStopped(pid: number): boolean {
  return statOf(pid)[0] === "T";
}

/** The process group of a process (Linux only): for a tethered server, the id of the shell around it. */
export function groupOf(pid: number): number {
  return Number(statOf(pid)[2]);
}

/** The fields of /proc/<pid>/stat after the name: state, parent, group, … None when it is gone. */
function statOf(pid: number): string[] {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  } catch {
    return [];
  }
}
