import { randomPooled } from "../base/random.ts";
import { Sensitive } from "../base/sensitive.ts";
import type { PasswordPolicyConfig } from "../model/target.ts";

const UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER = "abcdefghijklmnopqrstuvwxyz";
const DIGITS = "0123456789";
/** Those that RFC 3986 leaves unreserved: no URL, shell or template takes them for syntax (lesson 20). */
const SYMBOLS = "-._~";
const SUFFIX = LOWER + DIGITS;

export const MIN_PASSWORD_LENGTH = 22;
export const MAX_PASSWORD_LENGTH = 128;
const DEFAULT_POLICY: PasswordPolicyConfig = { length: 32, minUpper: 0, minLower: 0, minDigits: 0, minSymbols: 0 };

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
