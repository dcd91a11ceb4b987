import { create, type MessageInitShape, toJson, toJsonString } from "@bufbuild/protobuf";
import { DeliverySchema, Gap_Reason, type GapSchema } from "../../gen/leasehold/v1/subscription_pb.ts";
import { EventSchema, EventTypeSchema } from "../../gen/leasehold/v1/watch_service_pb.ts";
import type { Gap } from "../../model/subscription.ts";
import type { Outgoing, Render } from "../../subscriptions/sink.ts";
import { timestamp } from "../convert.ts";
import { eventOf } from "./watch-message.ts";

/** Deliveries as JSON of the API's own messages. */
export const render: Render = {
  delivery: (outgoing) => toJsonString(DeliverySchema, create(DeliverySchema, deliveryMessage(outgoing))),
  event: (change, snapshot) => JSON.stringify(toJson(EventSchema, create(EventSchema, eventOf(change, snapshot)))),
  typeName: (change) => EventTypeSchema.values.find(({ number }) => number === change.type)?.name ?? String(change.type),
};

export function deliveryMessage({ id, delivery }: Pick<Outgoing, "id" | "delivery">): MessageInitShape<typeof DeliverySchema> {
  return {
    id,
    subscription: `subscriptions/${delivery.name}`,
    epoch: String(delivery.epoch),
    revision: BigInt(delivery.revision),
    events: delivery.changes.map((change) => eventOf(change, delivery.snapshot)),
    snapshotEnd: delivery.snapshotEnd,
    replay: delivery.replay,
    ...(delivery.gap === undefined ? {} : { gap: gapMessage(delivery.gap) }),
  };
}

export function gapMessage(gap: Gap): MessageInitShape<typeof GapSchema> {
  return {
    reason: Gap_Reason[gap.reason],
    intact: gap.intact,
    fromEpoch: String(gap.fromEpoch),
    fromRevision: BigInt(gap.fromRevision),
    epoch: String(gap.epoch),
    revision: BigInt(gap.revision),
    time: timestamp(gap.at),
  };
}
