import { status } from "@grpc/grpc-js";
import { LeaseholdError } from "../base/errors.ts";
import { CallError } from "../client/errors.ts";
import { SettingsError } from "../client/settings.ts";
import { printable } from "./printable.ts";

/** Exit codes; docs/cli.md. */
export const EXIT = { ok: 0, failure: 1, usage: 2, notFound: 3, denied: 4, unavailable: 5, conflict: 6, interrupted: 130, terminated: 143 } as const;

/** A signal ended what would have gone on: the shell's 128 + n (lesson 60). */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  readonly exitCode: number;

  constructor(signal: "SIGINT" | "SIGTERM") {
    super(signal);
    this.exitCode = signal === "SIGINT" ? EXIT.interrupted : EXIT.terminated;
  }
}

/** The command line was wrong. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Something was checked and is not good; it was said already. */
export class CheckFailed extends Error {
  override readonly name = "CheckFailed";
}

/** Aborts, with `Interrupted` as its reason, at SIGINT or SIGTERM: for commands that go on until then. */
export function interruption(): AbortController {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort(new Interrupted(signal)));
  return stop;
}

/** Says what went wrong on standard error, without a stack, and answers the exit code. */
export function explain(error: unknown, print: (line: string) => void): number {
  const say = (line: string): void => print(printable(line));
  if (error instanceof Interrupted) return error.exitCode;
  if (error instanceof CheckFailed) return EXIT.failure;
  if (error instanceof UsageError || error instanceof SettingsError) {
    say(`error: ${error.message}`);
    return EXIT.usage;
  }
  if (error instanceof LeaseholdError) {
    say(`error: ${error.message}`);
    return EXIT.failure;
  }
  if (!(error instanceof CallError)) {
    // An AggregateError of Node (both addresses of localhost refused) has a code and no message.
    const { message, code } = error instanceof Error ? (error as NodeJS.ErrnoException) : { message: "", code: undefined };
    say(`error: ${message || code || "unexpected failure"}`);
    return EXIT.failure;
  }
  say(`error: ${error.reason === "" ? transport(error) : `${error.reason}: ${error.message}`}`);
  for (const [name, value] of Object.entries(error.metadata)) say(`  ${name}: ${value}`);
  for (const { field, description } of error.violations) say(`  ${field} ${description}`);
  if (error.requestId !== "") say(`  request id: ${error.requestId}`);
  if (error.code === status.OUT_OF_RANGE && error.reason !== "") say("  what came after that point is no longer kept: start again with --snapshot");
  if ((error.code === status.UNAVAILABLE || error.code === status.DEADLINE_EXCEEDED) && error.reason === "")
    say("  is the broker running, and does it accept this certificate? `leasehold doctor` looks into it");
  return exitOf(error.code);
}

/** grpc-js's words for what never reached a broker, without its time stamps and OpenSSL's file names. */
export function transport({ code, message }: CallError): string {
  const cause = /Last error: (?:Error: )?(.*?)\.? ?(?:Resolution note:.*)?$/s.exec(message)?.[1] ?? message;
  const words = cause
    .replace(/^[0-9A-F]{8,}:error:[0-9A-F]+:SSL routines:[^:]*:([^:]*):.*$/s, "TLS: $1")
    .replace(/^Failed to connect .*$/s, "the other side ended the handshake");
  return `${status[code]}: ${words.trim()}`;
}

function exitOf(code: status): number {
  switch (code) {
    case status.INVALID_ARGUMENT:
    case status.UNIMPLEMENTED:
      return EXIT.usage;
    case status.NOT_FOUND:
      return EXIT.notFound;
    case status.PERMISSION_DENIED:
    case status.UNAUTHENTICATED:
      return EXIT.denied;
    case status.UNAVAILABLE:
    case status.DEADLINE_EXCEEDED:
    case status.RESOURCE_EXHAUSTED:
      return EXIT.unavailable;
    case status.ABORTED:
    case status.ALREADY_EXISTS:
    case status.FAILED_PRECONDITION:
    case status.OUT_OF_RANGE:
      return EXIT.conflict;
    default:
      return EXIT.failure;
  }
}
