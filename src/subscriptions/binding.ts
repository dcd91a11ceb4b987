import type { Binding } from "../crypto/envelope.ts";

/** A sink's secrets open only in their own row. Their version is not bound, as with a target's password. */
export function subscriptionBinding(uid: string): Binding {
  return { namespaceId: 1, kind: "subscription", rowUid: uid, version: 0 };
}
