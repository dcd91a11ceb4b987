import type { Binding } from "../crypto/envelope.ts";

/** A target's password opens only in its own row. Its version is not bound: the row has one password, and an older one of the same target is of no use to a thief. */
export function targetBinding(uid: string): Binding {
  return { namespaceId: 1, kind: "target", rowUid: uid, version: 0 };
}
