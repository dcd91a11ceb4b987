import { createHmac } from "node:crypto";
import { type DescMessage, type MessageShape, toBinary } from "@bufbuild/protobuf";
import type { Keyring } from "../crypto/keyring.ts";

/** A client's idempotency key, with a hash of the whole request it came with. */
export interface RequestKey {
  readonly id: string;
  readonly hash: string;
}

/**
 * Tells a retry from another request under the same id. The hash is keyed: requests hold secrets, and a plain hash beside the row would let a reader of the
 * database guess short ones.
 */
export class RequestKeys {
  readonly #keyring: Keyring;
  #key: Uint8Array | undefined;

  constructor(keyring: Keyring) {
    this.#keyring = keyring;
  }

  /** Undefined when the request has no id. Throws SEALED. */
  of<D extends DescMessage>(schema: D, request: MessageShape<D> & { readonly requestId: string }): RequestKey | undefined {
    if (request.requestId === "") return undefined;
    this.#key ??= this.#keyring.deriveKey("request-hash");
    const bytes = toBinary(schema, request);
    return { id: request.requestId.toLowerCase(), hash: createHmac("sha256", this.#key).update(schema.typeName).update(bytes).digest("hex") };
  }
}
