import type { Binding } from "../crypto/envelope.ts";

/** A version's ciphertext opens only as this version of this secret: not as another one, nor after the secret was deleted and made again. */
export function secretBinding(uid: string, version: number): Binding {
  return { namespaceId: 1, kind: "secret", rowUid: uid, version };
}
