import { spawn, type ChildProcessByStdio } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import type { Readable, Writable } from "node:stream";
import { LeaseholdError } from "../base/errors.ts";
import { startEnvironment, type Account } from "./account.ts";

/**
 * Runs a server that ends when we end, however we end: its shell holds the read end of a pipe of ours, and end-of-file (also after
 * `kill -9`) makes it signal the server. Losing alternatives: PR_SET_PDEATHSIG needs native code and is Linux only; exit handlers do not
 * run at `kill -9`. `detached` gives it a session of its own, so that Ctrl-C in a terminal reaches us alone and we drain before it stops.
 *
 * The signal is repeated, because one that comes before the server installed its handler is lost (a background job of `sh` ignores INT);
 * after 10 s the last resort follows. In `sh` a background job's standard input is /dev/null, hence descriptor 3.
 */
const TETHER = `
signal=$1 last=$2; shift 2
exec 3<&0
"$@" </dev/null >&2 3<&- & server=$!
echo $server
exec >&2
(
  cat <&3 >/dev/null
  n=0
  while kill -$signal $server 2>/dev/null; do
    n=$((n + 1)); [ $n -gt 100 ] && kill -$last $server 2>/dev/null
    sleep 0.1
  done
) & watcher=$!
exec 3<&-
wait $server; code=$?
kill $watcher 2>/dev/null
exit $code
`;

export interface Tethered {
  /** Of the server itself, not of the shell. */
  readonly pid: number;
  /** The server's exit code; above 128 it is 128 + the signal that ended it. */
  readonly exited: Promise<number>;
  /** Asks it to stop and waits until it has. Idempotent. */
  end(): Promise<void>;
}

export interface TetherOptions {
  readonly account: Account;
  /** Appended to, mode 0600: both output streams of the server. */
  readonly logFile: string;
  readonly signal: "INT" | "TERM";
  readonly lastResort: "QUIT" | "KILL";
}

/** @throws LeaseholdError STORE_UNAVAILABLE when no process can be started at all; a server that fails later shows in `exited`. */
export async function tether(command: readonly string[], options: TetherOptions): Promise<Tethered> {
  const log = openSync(options.logFile, "a", 0o600);
  const child = spawn("/bin/sh", ["-c", TETHER, "tether", options.signal, options.lastResort, ...options.account.prefix, ...command], {
    detached: true,
    stdio: ["pipe", "pipe", log],
    cwd: "/",
    env: startEnvironment(),
    ...options.account.ids,
  }) as ChildProcessByStdio<Writable, Readable, null>;
  closeSync(log);
  child.stdin.on("error", () => {});
  const exited = new Promise<number>((resolve) => {
    child.once("exit", (code, signal) => {
      child.stdin.destroy();
      resolve(code ?? (signal === null ? 1 : 128));
    });
  });
  const pid = await new Promise<number>((resolve, reject) => {
    child.once("error", (cause) => reject(new LeaseholdError("STORE_UNAVAILABLE", `cannot start ${command[0]}`, { cause })));
    child.stdout.once("data", (line: Buffer) => resolve(Number(line.toString())));
    void exited.then(() => reject(new LeaseholdError("STORE_UNAVAILABLE", `cannot start ${command[0]}`)));
  });
  return {
    pid,
    exited,
    async end() {
      child.stdin.end();
      await exited;
    },
  };
}
