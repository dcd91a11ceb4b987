import { randomUUID } from "node:crypto";
import type { Command } from "commander";
import { EventType } from "../gen/leasehold/v1/watch_service_pb.ts";
import {
  type Delivery,
  DeliverySchema,
  Gap_Reason,
  type Subscription,
  SubscriptionSchema,
  SubscriptionStatus_State as State,
} from "../gen/leasehold/v1/subscription_pb.ts";
import { ListDeadLettersResponseSchema, ResumeSubscriptionRequest_From as From, SubscriptionService } from "../gen/leasehold/v1/subscription_service_pb.ts";
import { bareName, parseWhole, withClient } from "./context.ts";
import { interruption, UsageError } from "./exit.ts";
import { type Format, jsonOf, nameOf, printFields, printLine, printStreamed, printTable, printValue, when, wholeJsonOf } from "./output.ts";
import { allPages } from "./secret.ts";

const { method } = SubscriptionService;
const pathOf = (name: string): string => `subscriptions/${bareName(name, "subscriptions")}`;

export function addSubscriptionCommands(program: Command): void {
  const noun = program
    .command("subscription")
    .description("durable subscriptions: changes pushed to a webhook or a Redis stream, or consumed; written with `apply`");
  noun
    .command("list")
    .description("all of them, and how they stand")
    .action((_options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const all = await allPages(async (pageToken) => {
          const page = await client.call(method.listSubscriptions, { pageSize: 1000, pageToken });
          return { items: page.subscriptions, next: page.nextPageToken };
        });
        if (format !== "table") return printValue({ subscriptions: all.map((each) => wholeJsonOf(SubscriptionSchema, each)) }, format);
        printTable(
          ["name", "state", "sink", "owner", "lag", "dead", "skipped", "last error"],
          all.map((each) => [
            each.name,
            nameOf(State, each.status!.state),
            each.sink.case ?? "consumed",
            each.owner,
            String(each.status!.lag),
            String(each.status!.deadLetters),
            String(each.status!.skipped),
            each.status!.lastError,
          ]),
        );
      }),
    );
  noun
    .command("get <name>")
    .description("one of them, and how it stands")
    .action((name: string, _options: object, command: Command) =>
      withClient(command, async ({ client, format }) => print((await client.call(method.getSubscription, { path: pathOf(name) })).subscription!, format)),
    );
  noun
    .command("pause <name>")
    .description("stop its deliveries; what happens meanwhile is kept for it")
    .action((name: string, _options: object, command: Command) =>
      withClient(command, async ({ client, format }) =>
        print((await client.call(method.pauseSubscription, { path: pathOf(name), requestId: randomUUID() })).subscription!, format),
      ),
    );
  noun
    .command("resume <name>")
    .description("let it go on, at its cursor or elsewhere; tries at once what was failing")
    .option("--from <place>", "oldest (change that is kept), now or snapshot; its receiver is told of the gap")
    .action((name: string, options: { from?: string }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const request = { path: pathOf(name), from: placeOf(options.from), requestId: randomUUID() };
        print((await client.call(method.resumeSubscription, request)).subscription!, format);
      }),
    );
  noun
    .command("delete <name>")
    .description("with its cursor and its dead letters")
    .action((name: string, _options: object, command: Command) =>
      withClient(command, async ({ client }) => {
        await client.call(method.deleteSubscription, { path: pathOf(name), requestId: randomUUID() });
        printLine([`${pathOf(name)} deleted`]);
      }),
    );
  noun
    .command("consume <name>")
    .description("print its events and acknowledge them; for one without a sink, by its owner")
    .option("--no-ack", "acknowledge nothing: they come again")
    .option("--count <number>", "end after so many deliveries")
    .action((name: string, options: { ack: boolean; count?: string }, command: Command) => consume(name, options, command));
  addDeadLetterCommands(noun);
}

function addDeadLetterCommands(noun: Command): void {
  noun
    .command("dead-letters <name>")
    .description("events that its receiver refused too often, oldest first")
    .action((name: string, _options: object, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const deadLetters = await allPages(async (pageToken) => {
          const page = await client.call(method.listDeadLetters, { path: pathOf(name), pageSize: 1000, pageToken });
          return { items: page.deadLetters, next: page.nextPageToken };
        });
        if (format !== "table")
          return printValue(
            wholeJsonOf(ListDeadLettersResponseSchema, { $typeName: "leasehold.v1.ListDeadLettersResponse", deadLetters, nextPageToken: "" }),
            format,
          );
        printTable(
          ["id", "since", "tries", "problem", "event", "path"],
          deadLetters.map(({ id, createTime, attempts, problem, delivery, replaying }) => {
            const event = delivery?.events[0];
            const what = event === undefined ? "(notice)" : nameOf(EventType, event.type);
            return [id, when(createTime), String(attempts), replaying ? `${problem} (is delivered once more)` : problem, what, event?.path ?? ""];
          }),
        );
      }),
    );
  noun
    .command("replay <name> [ids...]")
    .description("deliver dead letters once more: these, or --all")
    .option("--all", "all of them", false)
    .action((name: string, ids: string[], options: { all: boolean }, command: Command) =>
      withClient(command, async ({ client }) => {
        chosen(ids, options.all);
        const { count } = await client.call(method.replayDeadLetters, { path: pathOf(name), ids, requestId: randomUUID() });
        printLine([`${count} will be delivered once more`]);
      }),
    );
  noun
    .command("discard <name> [ids...]")
    .description("throw dead letters away: these, or --all")
    .option("--all", "all of them", false)
    .action((name: string, ids: string[], options: { all: boolean }, command: Command) =>
      withClient(command, async ({ client }) => {
        chosen(ids, options.all);
        const { count } = await client.call(method.discardDeadLetters, { path: pathOf(name), ids, all: options.all, requestId: randomUUID() });
        printLine([`${count} are gone`]);
      }),
    );
}

async function consume(name: string, options: { ack: boolean; count?: string }, command: Command): Promise<void> {
  const stop = interruption();
  const most = options.count === undefined ? Number.POSITIVE_INFINITY : parseWhole(options.count, "--count", 1);
  await withClient(command, async ({ client, format }) => {
    let count = 0;
    for await (const { delivery, ackToken } of client.stream(method.consume, { path: pathOf(name) }, stop.signal)) {
      if (delivery === undefined) continue;
      printDelivery(delivery, format);
      if (options.ack) await client.call(method.acknowledge, { path: pathOf(name), ackToken });
      if (++count >= most) return;
    }
  });
  stop.signal.throwIfAborted();
}

function printDelivery(delivery: Delivery, format: Format): void {
  if (format !== "table") return printStreamed(jsonOf(DeliverySchema, delivery), format);
  const { gap } = delivery;
  if (gap !== undefined)
    printLine([`-- ${nameOf(Gap_Reason, gap.reason)}`, gap.intact ? "nothing was lost" : `from revision ${gap.fromRevision} to ${gap.revision}`]);
  for (const event of delivery.events) {
    const about = [event.version === 0n ? "" : `version ${event.version}`, event.leasePath, event.snapshot ? "(snapshot)" : ""];
    printLine([when(event.time), String(event.revision).padStart(6), nameOf(EventType, event.type), event.path, ...about]);
  }
  if (delivery.snapshotEnd) printLine(["-- end of the snapshot"]);
}

function print(subscription: Subscription, format: Format): void {
  if (format !== "table") return printValue(wholeJsonOf(SubscriptionSchema, subscription), format);
  const status = subscription.status!;
  printFields({
    name: subscription.name,
    state: nameOf(State, status.state),
    paths: subscription.paths.join(" "),
    types: subscription.types.map((type) => nameOf(EventType, type)).join(" "),
    sink: sinkText(subscription),
    owner: subscription.owner,
    cursor: `revision ${status.revision} of epoch ${status.epoch}, ${status.lag} behind${status.snapshot ? ", in its snapshot" : ""}`,
    moved: when(status.acknowledgedTime),
    delivered: String(status.delivered),
    skipped: status.skipped === 0n ? "" : `${status.skipped} that the owner may not watch`,
    "dead letters": status.deadLetters === 0n ? "" : String(status.deadLetters),
    "last error": status.lastError === "" ? "" : `${status.lastError} (${status.attempts} in a row, since ${when(status.failingSinceTime)})`,
    "next attempt": when(status.nextAttemptTime),
    lost:
      status.loss === undefined
        ? ""
        : `${nameOf(Gap_Reason, status.loss.reason)}: changes from revision ${status.loss.fromRevision} to ${status.loss.revision}; resume --from`,
    "signing key": status.signingKeyId,
  });
}

function sinkText({ sink }: Subscription): string {
  switch (sink.case) {
    case "webhook":
      return sink.value.url;
    case "redisStream":
      return `Redis stream ${sink.value.key} at ${sink.value.host}:${sink.value.port}`;
    case undefined:
      return "consumed";
  }
}

function chosen(ids: readonly string[], all: boolean): void {
  if (all === ids.length > 0) throw new UsageError("give ids, or else --all");
}

function placeOf(text: string | undefined): From {
  if (text === undefined) return From.UNSPECIFIED;
  const place = { oldest: From.OLDEST, now: From.NOW, snapshot: From.SNAPSHOT }[text];
  if (place === undefined) throw new UsageError("--from must be oldest, now or snapshot");
  return place;
}
