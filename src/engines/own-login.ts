import { LeaseholdError } from "../base/errors.ts";
import { isInstance } from "./names.ts";

/** Far above any lease (32 days and grace), far below what overflows a server's clock. */
const MAX_VALID_FOR_MS = 400 * 24 * 3_600_000;

/** TARGET_MISCONFIGURED with its problem (docs/errors.md); `details` are identifiers that the caller may see. */
export function misconfigured(problem: string, details: Readonly<Record<string, string>> = {}): LeaseholdError {
  return new LeaseholdError("TARGET_MISCONFIGURED", `target: ${problem}`, { metadata: { problem, ...details } });
}

/** The instant after which a creation must not happen has passed on the target's clock. */
export function deadlinePassed(): LeaseholdError {
  return new LeaseholdError("TARGET_UNAVAILABLE", "target: deadline_passed", { metadata: { problem: "deadline_passed" } });
}

export function problemOf(error: unknown): string | undefined {
  return error instanceof LeaseholdError ? error.metadata["problem"] : undefined;
}

/** For engines whose target has no functions of ours to check it: only names that this broker makes. Throws TARGET_MISCONFIGURED `role_protected`. */
export function requireOwn(instance: string, name: string): void {
  if (!isInstance(instance)) throw new RangeError("malformed instance");
  if (!name.startsWith(`lh_${instance}_`) || !/^[a-z0-9_]{1,80}$/.test(name)) throw misconfigured("role_protected");
}

/** Throws TARGET_MISCONFIGURED `malformed` for a lifetime that is none, or is endless. */
export function requireLifetime(validForMs: number): void {
  if (!(validForMs > 0 && validForMs <= MAX_VALID_FOR_MS)) throw misconfigured("malformed");
}
