import { inspect } from "node:util";

const REDACTED = "[redacted]";

/**
 * Holds secret bytes so that no accident prints them: `toString`, JSON and `util.inspect` show `[redacted]`.
 * `reveal` is the one door, easy to search for. `wipe` overwrites what Node allows us to overwrite.
 */
export class Sensitive {
  readonly #bytes: Uint8Array;

  /** Takes ownership of `bytes`: the caller must not keep or share them. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  static text(value: string): Sensitive {
    return new Sensitive(Buffer.from(value, "utf8"));
  }

  reveal(): Uint8Array {
    return this.#bytes;
  }

  revealText(): string {
    return Buffer.from(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength).toString("utf8");
  }

  wipe(): void {
    this.#bytes.fill(0);
  }

  toString(): string {
    return REDACTED;
  }

  toJSON(): string {
    return REDACTED;
  }

  [inspect.custom](): string {
    return REDACTED;
  }
}
