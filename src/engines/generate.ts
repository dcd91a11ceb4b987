import { randomPooled } from "../base/random.ts";
import { Sensitive } from "../base/sensitive.ts";

const PASSWORD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const SUFFIX = "abcdefghijklmnopqrstuvwxyz0123456789";

/** 32 characters of [A-Za-z0-9], 190 bits: nothing that a URL, a shell or a template could take for syntax (lesson 20). */
export function newPassword(): Sensitive {
  return new Sensitive(randomCharacters(32, PASSWORD));
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
