import { type MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "../../src/client/client.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { type Subscription, type SubscriptionSchema, SubscriptionStatus_State as State } from "../../src/gen/leasehold/v1/subscription_pb.ts";
import { SubscriptionService } from "../../src/gen/leasehold/v1/subscription_service_pb.ts";
import { type TestBroker, type TestWorld, texts } from "./broker.ts";
import { type Receiver, SIGNING_SECRET } from "./receiver.ts";
import { nameOf } from "../../src/cli/output.ts";
import { until } from "./until.ts";

const { method } = SubscriptionService;

/** Retries and takeovers in the time of a test. */
export const FAST = { subscriptions: { retry_min: "20ms", retry_max: "100ms", claim: "2s", max_dead_letters: 3 } };

export function text(value: string) {
  return { kind: { case: "text" as const, value } };
}

/** A subscription of `secrets/<name>/**` whose sink is the receiver. */
export function webhookOf(
  name: string,
  receiver: Pick<Receiver, "url" | "ca">,
  more: MessageInitShape<typeof SubscriptionSchema> = {},
): MessageInitShape<typeof SubscriptionSchema> {
  const value = { url: receiver.url, caPem: receiver.ca, signingSecret: text(SIGNING_SECRET), maxRefusals: 2 };
  return { name, paths: [`secrets/${name}/**`], sink: { case: "webhook", value }, ...more };
}

export async function putSubscription(client: Client, subscription: MessageInitShape<typeof SubscriptionSchema>): Promise<Subscription> {
  return (await client.call(method.putSubscription, { subscription })).subscription!;
}

export async function subscription(client: Client, name: string): Promise<Subscription> {
  return (await client.call(method.getSubscription, { path: `subscriptions/${name}` })).subscription!;
}

/** Waits until the subscription stands so. */
export function standing(client: Client, name: string, state: State): Promise<Subscription> {
  return until(`subscription ${name} to be ${nameOf(State, state)}`, async () => {
    const found = await subscription(client, name);
    return found.status!.state === state ? found : undefined;
  });
}

/** Writes secrets one after the other; answers what a subscription of them is to deliver: `path@version` of each. */
export async function write(broker: TestBroker, paths: readonly string[]): Promise<string[]> {
  const written: string[] = [];
  for (const path of paths) {
    const { version } = await broker.as("admin").call(SecretService.method.putSecret, { path, data: texts({ k: "v" }) });
    written.push(`${path}@${version!.version}`);
  }
  return written;
}

/** Actions and causes of the automatic acts about a subscription that are on record, in order. */
export async function acts(world: TestWorld, name: string): Promise<string[]> {
  const rows = await world.store.query<{ action: string; cause: string | null }>(
    "select record->>'action' as action, record->>'cause' as cause from audit_record where record->>'path' = $1 and record->>'action' like 'subscription.%' order by (record->>'at')::bigint, chain, seq",
    [`subscriptions/${name}`],
  );
  return rows.map(({ action, cause }) => `${action}: ${cause ?? ""}`);
}
