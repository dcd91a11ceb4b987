import { status } from "@grpc/grpc-js";
import { LeaseholdError } from "../base/errors.ts";
import { CallError } from "../client/errors.ts";

/** Exit codes; docs/cli.md. */
export const EXIT = { ok: 0, failure: 1, usage: 2, notFound: 3, denied: 4, unavailable: 5, conflict: 6 } as const;

/** The command line was wrong. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Something was checked and is not good; it was said already. */
export class CheckFailed extends Error {
  override readonly name = "CheckFailed";
}

/** Says what went wrong on standard error, without a stack, and answers the exit code. */
export function explain(error: unknown, say: (line: string) => void): number {
  if (error instanceof CheckFailed) return EXIT.failure;
  if (error instanceof UsageError) {
    say(`error: ${error.message}`);
    return EXIT.usage;
  }
  if (error instanceof LeaseholdError) {
    say(`error: ${error.message}`);
    return EXIT.failure;
  }
  if (!(error instanceof CallError)) {
    say(`error: ${error instanceof Error ? error.message : "unexpected failure"}`);
    return EXIT.failure;
  }
  say(`error: ${error.reason === "" ? "" : `${error.reason}: `}${error.message}`);
  for (const [name, value] of Object.entries(error.metadata)) say(`  ${name}: ${value}`);
  for (const { field, description } of error.violations) say(`  ${field} ${description}`);
  if (error.requestId !== "") say(`  request id: ${error.requestId}`);
  if (error.code === status.UNAVAILABLE && error.reason === "")
    say("  is the broker running, and does it accept this certificate? `leasehold doctor` looks into it");
  return exitOf(error.code);
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
