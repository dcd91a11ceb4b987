import type { Change } from "../model/event.ts";
import type { Delivery, SinkConfig, SinkKind } from "../model/subscription.ts";
import type { DestinationRules } from "./destination.ts";
import type { SinkSecrets } from "./sink-secrets.ts";

/** A delivery as it is sent; the JSON is that of the API's own messages. */
export interface Outgoing {
  /** The same for each attempt. */
  readonly id: string;
  readonly delivery: Delivery;
  /** Counts claims: of two workers the one with the higher number is the later one. */
  readonly fence: number;
}

/** The API's own messages as JSON (src/rpc/services/delivery-message.ts). */
export interface Render {
  delivery(outgoing: Outgoing): string;
  event(change: Change, snapshot: boolean): string;
  /** Name of an event's type, such as `EVENT_TYPE_SECRET_DELETED`. */
  typeName(change: Change): string;
}

/**
 * What came of an attempt. `refused`: the receiver is there and will not have these events, whatever is tried again. `unavailable`: it says something of the receiver, so it is tried for ever.
 * `problem` is shown to people: constant words and numbers, nothing that the receiver wrote.
 */
export type Verdict =
  | { readonly kind: "accepted" }
  | { readonly kind: "refused"; readonly problem: string }
  | { readonly kind: "unavailable"; readonly problem: string; readonly retryAfterMs?: number | undefined };

export interface Sink {
  /** One attempt, within the sink's own time limit. Never rejects; an abort is `unavailable`. */
  deliver(outgoing: Outgoing, signal: AbortSignal): Promise<Verdict>;
  close(): void;
}

export interface SinkDefinition<K extends SinkKind = SinkKind> {
  readonly kind: K;
  /** What only code can check; fields as in the API's message. */
  check(config: Extract<SinkConfig, { kind: K }>, rules: DestinationRules): { readonly field: string; readonly description: string }[];
  /** What decides where secrets go: when it changes, they are asked for again. */
  destination(config: Extract<SinkConfig, { kind: K }>): unknown;
  /** Opens nothing yet. */
  open(config: Extract<SinkConfig, { kind: K }>, secrets: SinkSecrets, rules: DestinationRules, render: Render): Sink;
}
