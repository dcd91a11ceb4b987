import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { TlsMode } from "../../gen/leasehold/v1/operator_service_pb.ts";
import type { RedisStreamSink, Subscription, SubscriptionSchema, WebhookSink } from "../../gen/leasehold/v1/subscription_pb.ts";
import type { Value } from "../../gen/leasehold/v1/value_pb.ts";
import { invalid } from "../../base/errors.ts";
import { Sensitive } from "../../base/sensitive.ts";
import type { SinkConfig } from "../../model/subscription.ts";
import type { SecretsInput } from "../../subscriptions/sink-secrets.ts";
import { headerProblem } from "../../subscriptions/registry.ts";
import { durationMs } from "../convert.ts";

const WEBHOOK_TIMEOUT_MS = 10_000;
const REDIS_TIMEOUT_MS = 5000;
const MAX_REFUSALS = 5;
const MAX_LENGTH = 1_000_000;

/** Throws REQUEST_INVALID for what only code can check. */
export function sinkInput({ sink }: Subscription): { readonly sink: SinkConfig; readonly secrets: SecretsInput } {
  switch (sink.case) {
    case "webhook":
      return webhookInput(sink.value);
    case "redisStream":
      return redisInput(sink.value);
    case undefined:
      return { sink: { kind: "" }, secrets: { secretHeaders: {} } };
  }
}

function webhookInput(input: WebhookSink): { readonly sink: SinkConfig; readonly secrets: SecretsInput } {
  const below = "subscription.webhook";
  const secretHeaders: Record<string, Sensitive> = {};
  for (const [name, value] of Object.entries(input.secretHeaders)) {
    const text = textOf(value, `${below}.secret_headers`);
    const problem = headerProblem(name, text, true);
    if (problem !== undefined) throw invalid(`${below}.secret_headers`, problem);
    secretHeaders[name.toLowerCase()] = Sensitive.text(text);
  }
  return {
    sink: {
      kind: "webhook",
      url: input.url,
      headers: { ...input.headers },
      secretHeaders: Object.keys(secretHeaders).sort(),
      timeoutMs: durationMs(input.timeout, `${below}.timeout`) ?? WEBHOOK_TIMEOUT_MS,
      maxRefusals: input.maxRefusals || MAX_REFUSALS,
      ...(input.caPem === "" ? {} : { caPem: input.caPem }),
    },
    secrets: { secretHeaders, ...(input.signingSecret === undefined ? {} : { signingSecret: bytesOf(input.signingSecret, `${below}.signing_secret`) }) },
  };
}

function redisInput(input: RedisStreamSink): { readonly sink: SinkConfig; readonly secrets: SecretsInput } {
  const below = "subscription.redis_stream";
  return {
    sink: {
      kind: "redis_stream",
      host: input.host,
      port: input.port,
      tls: input.tlsMode !== TlsMode.DISABLE,
      database: input.database,
      key: input.key,
      maxLength: Number(input.maxLength) || MAX_LENGTH,
      timeoutMs: durationMs(input.timeout, `${below}.timeout`) ?? REDIS_TIMEOUT_MS,
      ...(input.username === "" ? {} : { username: input.username }),
      ...(input.caPem === "" ? {} : { caPem: input.caPem }),
    },
    secrets: { secretHeaders: {}, ...(input.password === undefined ? {} : { password: Sensitive.text(textOf(input.password, `${below}.password`)) }) },
  };
}

/** As stored, without secrets. */
export function sinkMessage(sink: SinkConfig): NonNullable<MessageInitShape<typeof SubscriptionSchema>["sink"]> {
  switch (sink.kind) {
    case "webhook": {
      const { url, headers, caPem, timeoutMs, maxRefusals } = sink;
      return { case: "webhook", value: { url, headers: { ...headers }, caPem: caPem ?? "", timeout: durationFromMs(timeoutMs), maxRefusals } };
    }
    case "redis_stream": {
      const { host, port, tls, caPem, username, database, key, maxLength, timeoutMs } = sink;
      const tlsMode = tls ? TlsMode.VERIFY_FULL : TlsMode.DISABLE;
      const more = { caPem: caPem ?? "", username: username ?? "", maxLength: BigInt(maxLength), timeout: durationFromMs(timeoutMs) };
      return { case: "redisStream", value: { host, port, tlsMode, database, key, ...more } };
    }
    case "":
      return { case: undefined };
  }
}

/** A request's subscription as it may be shown again. */
export function withoutSecrets(subscription: Subscription): Subscription {
  const { sink } = subscription;
  if (sink.case === "webhook") {
    const { signingSecret: _, ...value } = sink.value;
    return { ...subscription, sink: { case: "webhook", value: { ...value, secretHeaders: {} } } };
  }
  if (sink.case === undefined) return subscription;
  const { password: _, ...value } = sink.value;
  return { ...subscription, sink: { case: "redisStream", value } };
}

function textOf({ kind }: Value, field: string): string {
  if (kind.case !== "text") throw invalid(field, "must have a text");
  return kind.value;
}

function bytesOf({ kind }: Value, field: string): Sensitive {
  if (kind.case === undefined) throw invalid(field, "must have a text or bytes");
  return kind.case === "text" ? Sensitive.text(kind.value) : new Sensitive(Uint8Array.from(kind.value));
}
