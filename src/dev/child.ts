import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";

/**
 * Runs a server as a child that can't outlive us: in a session of its own (Ctrl-C in the terminal does not reach it before we drain), watched by a
 * small shell that reads a pipe from us. When we are gone in whatever way, `kill -9` included, the pipe ends and the server gets SIGINT until it is gone too.
 * (In `sh` a background `cat` has /dev/null as its input, hence descriptor 3; a SIGINT before the server listens for it is lost, hence the loop.)
 */
const WATCH =
  'exec 3<&0; "$@" </dev/null 3<&- & server=$!; (cat <&3 >/dev/null; while kill -INT $server 2>/dev/null; do sleep 0.1; done) & watcher=$!; ' +
  "exec 3<&-; wait $server; code=$?; kill $watcher 2>/dev/null; exit $code";

export interface GuardedChild {
  /** Resolves with the exit code once the server is gone. */
  readonly exited: Promise<number | null>;
  /** Undefined while it runs. */
  readonly code: number | null | undefined;
  /** Asks it to end and waits until it has. */
  stop(): Promise<void>;
}

export interface ChildOptions {
  readonly argv: readonly string[];
  /** Standard error and output are appended here. */
  readonly logFile: string;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
}

/** What a child needs of our environment, and nothing of ours: no key, no URL, no token (finding C7). */
export function cleanEnvironment(): NodeJS.ProcessEnv {
  return { PATH: process.env["PATH"] ?? "/usr/bin:/bin", LC_ALL: "C" };
}

export function startGuarded(options: ChildOptions): GuardedChild {
  const log = openSync(options.logFile, "a", 0o600);
  const child: ChildProcess = spawn("/bin/sh", ["-c", WATCH, "leasehold-child", ...options.argv], {
    detached: true,
    stdio: ["pipe", log, log],
    cwd: "/",
    env: cleanEnvironment(),
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.gid }),
  });
  closeSync(log);
  child.stdin!.on("error", () => {});
  let code: number | null | undefined;
  const exited = new Promise<number | null>((resolve) => {
    const done = (value: number | null): void => {
      code = value;
      child.stdin!.destroy();
      resolve(value);
    };
    child.once("exit", done);
    child.once("error", () => done(127));
  });
  return {
    exited,
    get code() {
      return code;
    },
    async stop() {
      child.stdin!.end();
      await exited;
    },
  };
}
