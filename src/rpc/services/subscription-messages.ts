import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type DeadLetterSchema,
  type Subscription,
  Subscription_OnLoss as OnLoss,
  Subscription_Start as Start,
  type SubscriptionSchema,
  SubscriptionStatus_State as State,
  type SubscriptionStatusSchema,
} from "../../gen/leasehold/v1/subscription_pb.ts";
import type { EventType } from "../../gen/leasehold/v1/watch_service_pb.ts";
import { invalid, LeaseholdError } from "../../base/errors.ts";
import { isSegment, parseScope } from "../../model/path.ts";
import type { DeadLetterRecord, Delivery, SubscriptionRecord } from "../../model/subscription.ts";
import { deliveryId } from "../../subscriptions/delivery-id.ts";
import type { SubscriptionInput } from "../../subscriptions/write.ts";
import { timestamp } from "../convert.ts";
import { deliveryMessage, gapMessage } from "./delivery-message.ts";
import { sinkInput, sinkMessage } from "./sink-messages.ts";

const MAX_BATCH = 100;

/** Throws REQUEST_INVALID, PATH_INVALID. */
export function subscriptionInput(message: Subscription): Omit<SubscriptionInput, "owner" | "begin"> {
  if (!isSegment(message.name)) throw new LeaseholdError("PATH_INVALID");
  for (const path of message.paths) {
    if (parseScope(path).prefix.startsWith("leases/")) throw invalid("subscription.paths", "can't be below leases/; name the role paths, credentials/**");
  }
  if (new Set(message.paths).size !== message.paths.length) throw invalid("subscription.paths", "must name each path once");
  const { sink, secrets } = sinkInput(message);
  return {
    name: message.name,
    onLoss: message.onLoss === OnLoss.CONTINUE ? "CONTINUE" : message.onLoss === OnLoss.SNAPSHOT ? "SNAPSHOT" : "STOP",
    secrets,
    document: {
      paths: message.paths,
      types: [...new Set<number>(message.types)].sort((a, b) => a - b),
      start: message.start === Start.SNAPSHOT ? "SNAPSHOT" : "NOW",
      maxBatch: message.maxBatch || MAX_BATCH,
      description: message.description,
      sink,
    },
  };
}

/** @param head newest revision, for the lag. */
export function subscriptionMessage(record: SubscriptionRecord, head: number): MessageInitShape<typeof SubscriptionSchema> {
  const { document } = record;
  return {
    name: record.name,
    paths: [...document.paths],
    types: [...document.types] as EventType[],
    start: Start[document.start],
    onLoss: OnLoss[record.onLoss],
    sink: sinkMessage(document.sink),
    owner: record.owner,
    maxBatch: document.maxBatch,
    description: document.description,
    status: statusMessage(record, head),
    uid: record.uid,
    etag: String(record.generation),
    updateTime: timestamp(record.updatedAt),
    updatedBy: record.updatedBy,
  };
}

function statusMessage(record: SubscriptionRecord, head: number): MessageInitShape<typeof SubscriptionStatusSchema> {
  const { failingSince, nextAttemptAt, lost } = record;
  return {
    state: lost !== undefined ? State.LOST : record.paused ? State.PAUSED : failingSince !== undefined ? State.FAILING : State.ACTIVE,
    epoch: String(record.epoch),
    revision: BigInt(record.revision),
    lag: BigInt(Math.max(0, head - record.revision)),
    acknowledgedTime: timestamp(record.movedAt),
    delivered: BigInt(record.delivered),
    skipped: BigInt(record.skipped),
    deadLetters: BigInt(record.deadLetters),
    attempts: record.attempts,
    lastError: record.lastError,
    snapshot: record.snapshot !== undefined,
    signingKeyId: record.document.sink.kind === "webhook" ? String(record.signingKey) : "",
    claimed: record.claimed,
    ...(failingSince === undefined ? {} : { failingSinceTime: timestamp(failingSince) }),
    ...(nextAttemptAt === undefined ? {} : { nextAttemptTime: timestamp(nextAttemptAt) }),
    ...(lost === undefined ? {} : { loss: gapMessage(lost) }),
  };
}

export function deadLetterMessage({ uid, name }: SubscriptionRecord, letter: DeadLetterRecord): MessageInitShape<typeof DeadLetterSchema> {
  const { change, snapshot, snapshotEnd, gap } = letter.content;
  const { epoch, revision } = letter;
  const delivery: Delivery = { uid, name, epoch, revision, changes: change === undefined ? [] : [change], snapshot, snapshotEnd, gap, replay: false };
  return {
    id: letter.id,
    delivery: deliveryMessage({ id: deliveryId(delivery), delivery }),
    problem: letter.problem,
    attempts: letter.attempts,
    createTime: timestamp(letter.createdAt),
    updateTime: timestamp(letter.updatedAt),
    replaying: letter.replaying,
  };
}
