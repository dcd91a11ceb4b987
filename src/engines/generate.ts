import { randomPooled } from "../base/random.ts";
import { Sensitive } from "../base/sensitive.ts";
import type { PasswordPolicyConfig } from "../model/target.ts";
import type { Violation } from "./engine.ts";

const UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER = "abcdefghijklmnopqrstuvwxyz";
const DIGITS = "0123456789";
/** Those that RFC 3986 leaves unreserved: no URL, shell or template takes them for syntax (lesson 20). */
const SYMBOLS = "-._~";
const SUFFIX = LOWER + DIGITS;

const MIN_PASSWORD_LENGTH = 22;
const MAX_PASSWORD_LENGTH = 128;
const DEFAULT_POLICY: PasswordPolicyConfig = { length: 32, minUpper: 0, minLower: 0, minDigits: 0, minSymbols: 0 };

/** What is wrong with a policy: fewer than 128 bits, or so many of one kind that hardly a random password would do. Fields as in the proto. */
export function passwordPolicyViolation(policy: PasswordPolicyConfig): Violation | undefined {
  if (policy.length < MIN_PASSWORD_LENGTH || policy.length > MAX_PASSWORD_LENGTH) {
    return { field: "length", description: `must be from ${MIN_PASSWORD_LENGTH} (128 bits) to ${MAX_PASSWORD_LENGTH}` };
  }
  // About what a random password has anyway.
  for (const [field, count, share] of [
    ["min_upper", policy.minUpper, 4],
    ["min_lower", policy.minLower, 4],
    ["min_digits", policy.minDigits, 8],
    ["min_symbols", policy.minSymbols, 16],
  ] as const) {
    if (count < 0 || count > Math.floor(policy.length / share)) return { field, description: `must be at most length / ${share}` };
  }
  return undefined;
}

/** By default 32 characters of [A-Za-z0-9], 190 bits. Every password that fits the policy is as likely as every other: one that does not is thrown away whole. */
export function newPassword(policy: PasswordPolicyConfig = DEFAULT_POLICY): Sensitive {
  const alphabet = UPPER + LOWER + DIGITS + (policy.minSymbols > 0 ? SYMBOLS : "");
  for (;;) {
    const characters = randomCharacters(policy.length, alphabet);
    if (fits(characters, policy)) return new Sensitive(characters);
    characters.fill(0);
  }
}

function fits(characters: Uint8Array, policy: PasswordPolicyConfig): boolean {
  const count = (of: string): number => characters.reduce((sum, code) => sum + (of.includes(String.fromCharCode(code)) ? 1 : 0), 0);
  if (policy === DEFAULT_POLICY) return true;
  return count(UPPER) >= policy.minUpper && count(LOWER) >= policy.minLower && count(DIGITS) >= policy.minDigits && count(SYMBOLS) >= policy.minSymbols;
}

/** The random part of a login's name: 12 characters of [a-z0-9], 62 bits. */
export function newLoginSuffix(): string {
  return Buffer.from(randomCharacters(12, SUFFIX)).toString("latin1");
}

/** Evenly spread: bytes beyond the last whole multiple of the alphabet are thrown away. */
function randomCharacters(count: number, alphabet: string): Uint8Array {
  const limit = 256 - (256 % alphabet.length);
  const out = new Uint8Array(count);
  let filled = 0;
  while (filled < count) {
    const bytes = randomPooled(count);
    for (const byte of bytes) {
      if (byte < limit && filled < count) out[filled++] = alphabet.charCodeAt(byte % alphabet.length);
    }
    bytes.fill(0);
  }
  return out;
}
