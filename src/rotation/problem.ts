import { isReason, LeaseholdError } from "../base/errors.ts";

/** What operators see of an error: words of ours only. */
export function problemOf(error: unknown): string {
  if (!(error instanceof LeaseholdError)) return "INTERNAL";
  const word = error.metadata["problem"];
  return word === undefined || !/^[a-z0-9_]{1,64}$/.test(word) ? error.reason : `${error.reason}: ${word}`;
}

/** Nothing can be written, and nothing need be: the claim ends by itself. */
export function endsTheClaim(error: unknown): error is LeaseholdError {
  return isReason(error, "STORE_UNAVAILABLE", "AUDIT_UNAVAILABLE", "DRAINING");
}
