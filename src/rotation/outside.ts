import { LeaseholdError } from "../base/errors.ts";
import { newPassword } from "../engines/generate.ts";
import { isPath } from "../model/path.ts";
import { MAX_DATA_BYTES, type SecretData } from "../model/secret.ts";
import type { PasswordPolicyConfig } from "../model/target.ts";
import type { Candidate, CreateStep, Need, Violation } from "./rotator.ts";

// What the rotators have in common that ask a service of somebody else's.

export interface OutsideConfig {
  /** Longest a step may take, milliseconds. */
  readonly timeoutMs: number;
  readonly parameters: Readonly<Record<string, string>>;
  /** What is made here when the service makes nothing. */
  readonly field: string;
  readonly passwordPolicy: PasswordPolicyConfig | undefined;
}

export const DEFAULT_STEP_TIMEOUT_MS = 10_000;
export const DEFAULT_FIELD = "password";
/** Year 9999: what a Timestamp can say. */
const MAX_TIME = 253_402_300_800_000;

/** The service has answered no. @param problem a constant word. */
export function refused(problem: string): LeaseholdError {
  return new LeaseholdError("TARGET_MISCONFIGURED", `rotator: ${problem}`, { metadata: { problem } });
}

/** Nothing is known. @param problem a constant word. */
export function unreachable(problem: string, cause?: string): LeaseholdError {
  return new LeaseholdError("TARGET_UNAVAILABLE", `rotator: ${problem}`, {
    metadata: { problem },
    ...(cause === undefined ? {} : { cause: new Error(cause) }),
  });
}

/** The service sees the secret's values, and the broker goes where the rotation says: whoever puts one could read the secret by it, and reach what only the broker reaches. */
export function outsideNeeds(path: string, secret: string): readonly Need[] {
  return [
    { capability: "read", path },
    { capability: "operate", path: `rotations/${path}` },
    { capability: "read", path: secret },
  ];
}

export function outsideViolations({ timeoutMs, parameters, field }: OutsideConfig): Violation[] {
  const violations: Violation[] = [];
  if (!(timeoutMs >= 1000 && timeoutMs <= 60_000)) violations.push({ field: "timeout", description: "must be from 1 s to 60 s" });
  if (!isFieldName(field)) violations.push({ field: "field", description: "must be 1 to 128 bytes" });
  for (const [name, value] of Object.entries(parameters)) {
    if (!/^[A-Za-z0-9._-]{1,64}$/.test(name) || Buffer.byteLength(value) > 4096 || !value.isWellFormed())
      violations.push({ field: "parameters", description: "must have names of 1 to 64 characters of [A-Za-z0-9._-] and values of at most 4,096 bytes" });
  }
  return violations;
}

export function secretPathViolations(field: string, path: string): readonly Violation[] {
  return isPath(path) && path.startsWith("secrets/") ? [] : [{ field, description: "must be the path of a secret" }];
}

function isFieldName(name: string): boolean {
  return name.length > 0 && Buffer.byteLength(name) <= 128 && name.isWellFormed();
}

/** A candidate made here: one random field, the others as they are. */
function madeHere({ config, current }: Pick<CreateStep<OutsideConfig>, "config" | "current">): SecretData {
  return new Map([...(current ?? new Map()), [config.field, { kind: "text", value: newPassword(config.passwordPolicy) }]]);
}

/** What the service made, if it fits a version. Throws TARGET_MISCONFIGURED `malformed_answer`. */
function madeOutside(data: SecretData): SecretData {
  let bytes = 0;
  for (const [name, { value }] of data) {
    if (!isFieldName(name)) throw refused("malformed_answer");
    bytes += Buffer.byteLength(name) + value.reveal().length;
  }
  if (bytes > MAX_DATA_BYTES) throw refused("malformed_answer");
  return data;
}

/** A candidate as the service answered it: what it made, or what is made here. @param expireAt Unix milliseconds. Throws TARGET_MISCONFIGURED `malformed_answer`. */
export function candidateOf(
  made: SecretData | undefined,
  expireAt: number | undefined,
  step: Pick<CreateStep<OutsideConfig>, "config" | "current">,
  now: number,
): Candidate {
  if (made === undefined || made.size === 0) return { data: madeHere(step) };
  if (expireAt !== undefined && !(expireAt > now && expireAt < MAX_TIME)) throw refused("malformed_answer");
  return { data: madeOutside(made), expireAt };
}

/** Milliseconds that a call may take: until the step's deadline, at most the configured timeout. Throws TARGET_UNAVAILABLE when there is none left. */
export function timeLeft(step: Pick<CreateStep<OutsideConfig>, "config" | "deadlineAt">, now: number): number {
  const left = Math.min(step.config.timeoutMs, step.deadlineAt - now);
  if (left <= 0) throw unreachable("deadline_passed");
  return left;
}

/** A service's own word for what is wrong; anything that is none is dropped: it could be a secret. */
export function wordOf(problem: unknown, otherwise: string): string {
  return typeof problem === "string" && /^[a-z][a-z0-9_]{0,63}$/.test(problem) ? problem : otherwise;
}
