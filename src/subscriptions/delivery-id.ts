import type { Delivery } from "../model/subscription.ts";

/** Names a delivery, the same in each attempt: `<subscription>.<epoch>.<first>-<last>`, and for what has no revision of its own what it is instead. */
export function deliveryId({ uid, epoch, revision, changes, snapshot, gap, replay }: Delivery): string {
  const [first, last] = [changes[0], changes.at(-1)];
  const range = snapshot
    ? `snapshot-${revision}-${[first?.leaseId ?? first?.path, last?.leaseId ?? last?.path].join("-") || "end"}`
    : gap === undefined
      ? `${first?.revision ?? revision}-${last?.revision ?? revision}`
      : `gap-${gap.id}`;
  return `${uid}.${epoch}.${range}${replay ? ".replay" : ""}`;
}
