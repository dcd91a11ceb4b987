import { LeaseholdError } from "../base/errors.ts";
import type { Principal } from "../model/principal.ts";

/** Seals small texts (src/crypto/token.ts): AEAD under a key of the keyring, with algorithm and key id inside. */
export interface TokenBox {
  seal(plaintext: Uint8Array, context: Uint8Array): Uint8Array;
  /** Undefined for anything that was not sealed in this context. */
  open(sealed: Uint8Array, context: Uint8Array): Uint8Array | undefined;
}

export type Filter = Readonly<Record<string, string | number | boolean | readonly (string | number)[]>>;

const LIFETIME_MS = 24 * 3600 * 1000;
const MAX_TOKEN_CHARS = 2048;
const BASE64URL = /^[A-Za-z0-9_-]+$/;

/**
 * Page tokens: where the next page begins, sealed, because that may be a name the caller can't see (attack 32). Bound to method, filter,
 * principal and namespace: a token opens in no other call.
 */
export class PageTokens {
  readonly #box: TokenBox;
  readonly #namespace: string;

  constructor(box: TokenBox, namespace = "default") {
    this.#box = box;
    this.#namespace = namespace;
  }

  /** @param filter everything of the request that decides what is listed, in the same order each time; not the page size. */
  seal(method: string, filter: Filter, principal: Principal, key: string, now: number = Date.now()): string {
    const plaintext = Buffer.from(`${now + LIFETIME_MS} ${key}`, "utf8");
    return Buffer.from(this.#box.seal(plaintext, this.#context(method, filter, principal))).toString("base64url");
  }

  /** The key that was sealed; undefined for the empty token, which asks for the first page. Throws PAGE_TOKEN_INVALID. */
  open(method: string, filter: Filter, principal: Principal, token: string, now: number = Date.now()): string | undefined {
    if (token === "") return undefined;
    if (token.length > MAX_TOKEN_CHARS || !BASE64URL.test(token)) throw new LeaseholdError("PAGE_TOKEN_INVALID");
    const opened = this.#box.open(Buffer.from(token, "base64url"), this.#context(method, filter, principal));
    if (opened === undefined) throw new LeaseholdError("PAGE_TOKEN_INVALID");
    const text = Buffer.from(opened).toString("utf8");
    const space = text.indexOf(" ");
    if (Number(text.slice(0, space)) < now) throw new LeaseholdError("PAGE_TOKEN_INVALID");
    return text.slice(space + 1);
  }

  /** Length-prefixed, so that no two different contexts read the same. */
  #context(method: string, filter: Filter, principal: Principal): Uint8Array {
    const parts = ["page-token", method, JSON.stringify(filter), principal.id, this.#namespace];
    return Buffer.from(parts.map((part) => `${Buffer.byteLength(part)}:${part}`).join(""), "utf8");
  }
}
