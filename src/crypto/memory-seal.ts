import { type Cipheriv, createCipheriv, randomBytes } from "node:crypto";

const BLOCK = 16;
/** Above it, AES-GCM by OpenSSL alone is the faster way. */
const MAX_BYTES = 4096;

/** A value as it rests in this process's memory: encrypted, to be opened by the `MemorySeal` that made it. */
export interface Kept {
  /** Number of the value: half of its counter blocks, and never used twice. */
  readonly number: number;
  readonly body: Uint8Array;
}

/**
 * Keeps values that were opened (and so verified) once, for reading them often: AES-256 in counter mode, under a random key that only OpenSSL's memory holds and that ends
 * with the process. Not for anything that leaves memory: it does not authenticate. Why not simply `openPrepared` each time: it makes a cipher object a read, which
 * costs 4 µs and half as much again in garbage collection; one cipher for all costs 1.2. (A cipher in `aes-256-ctr` could not start anew for each value; ECB over
 * the counter blocks is the same keystream.)
 */
export class MemorySeal {
  readonly #cipher: Cipheriv;
  /** Block i of a value: its number (8 bytes), then i (8 bytes). */
  readonly #blocks = new Uint32Array(MAX_BYTES / Uint32Array.BYTES_PER_ELEMENT);
  #made = 0;

  constructor() {
    const key = randomBytes(32);
    this.#cipher = createCipheriv("aes-256-ecb", key, null).setAutoPadding(false);
    key.fill(0);
    for (let word = 3, block = 0; word < this.#blocks.length; word += 4) this.#blocks[word] = block++;
  }

  /** Copies `plaintext`; undefined when it is too large to gain from it. */
  keep(plaintext: Uint8Array): Kept | undefined {
    if (plaintext.length > MAX_BYTES) return undefined;
    const number = ++this.#made;
    return { number, body: this.#apply(number, plaintext) };
  }

  /** Answers fresh bytes that the caller owns. */
  open({ number, body }: Kept): Uint8Array {
    return this.#apply(number, body);
  }

  #apply(number: number, bytes: Uint8Array): Uint8Array {
    const { length } = bytes;
    const blocks = Math.ceil(length / BLOCK);
    const high = Math.floor(number / 2 ** 32);
    for (let block = 0; block < blocks; block++) {
      this.#blocks[4 * block] = high;
      this.#blocks[4 * block + 1] = number;
    }
    const stream = this.#cipher.update(new Uint8Array(this.#blocks.buffer, 0, blocks * BLOCK));
    for (let i = 0; i < length; i++) stream[i]! ^= bytes[i]!;
    return stream.subarray(0, length);
  }
}
