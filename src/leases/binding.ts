import type { Binding } from "../crypto/envelope.ts";

/** A leased password opens only in its own row; a row has one. */
export function leaseBinding(id: string): Binding {
  return { namespaceId: 1, kind: "lease", rowUid: id, version: 0 };
}
