import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { backoffMs } from "../base/retry.ts";
import type { CallError } from "./errors.ts";

/** What grpc-js says of such a message; it has no code of its own. */
const TOO_LARGE = /^(?:Received|Sent) message larger than max/;

/**
 * What to do about the error that ended a stream or a call:
 * `again`: the same once more, later; `lost`: what came since is no longer kept, begin with a snapshot; `identity`: the certificate is refused, another one may not be; `final`: nothing helps.
 */
export type Verdict = "again" | "lost" | "identity" | "final";

export function verdictOf({ code, reason, message }: Pick<CallError, "code" | "reason" | "message">): Verdict {
  switch (code) {
    case status.OUT_OF_RANGE:
      return reason === "REVISION_COMPACTED" || reason === "RESUME_TOKEN_STALE" ? "lost" : "final";
    case status.UNAUTHENTICATED:
      return "identity";
    case status.RESOURCE_EXHAUSTED:
      // A message too large for this client will be again. Any other without a reason of the broker's own is a stream that was reset because nobody read even its end (WATCH_TOO_SLOW).
      if (reason === "") return TOO_LARGE.test(message) ? "final" : "again";
      return reason === "WATCH_TOO_SLOW" || reason === "RATE_LIMITED" ? "again" : "final";
    case status.UNAVAILABLE:
    case status.DEADLINE_EXCEEDED:
    // What a killed server or a proxy between makes of a stream; the broker's own INTERNAL may be of that moment.
    case status.CANCELLED:
    case status.INTERNAL:
    case status.UNKNOWN:
      return "again";
    default:
      return "final";
  }
}

const RETRY_MS = 200;
const MAX_RETRY_MS = 5000;

/** Waits before the next try: capped backoff with jitter, and at least what the broker asks for. Ends early, without an error, when `signal` aborts. */
export async function pause(attempt: number, error: CallError | undefined, signal: AbortSignal | undefined): Promise<void> {
  const ms = Math.max(backoffMs(attempt, RETRY_MS, MAX_RETRY_MS), error?.retryMs ?? 0);
  await sleep(ms, undefined, signal === undefined ? {} : { signal }).catch(() => {});
}
