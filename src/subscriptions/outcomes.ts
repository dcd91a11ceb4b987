import type { Counter, Metrics } from "../base/metrics.ts";
import type { SinkKind } from "../model/subscription.ts";
import type { Verdict } from "./sink.ts";

/** What becomes of deliveries, counted. */
export class Outcomes {
  readonly #metrics: Metrics;
  readonly skipped: Counter;
  readonly dead: Counter;
  readonly lost: Counter;

  constructor(metrics: Metrics, running: () => number) {
    this.#metrics = metrics;
    this.skipped = metrics.counter("leasehold_subscription_skipped_total", "Events that a subscription's owner may not watch.");
    this.dead = metrics.counter("leasehold_subscription_dead_letters_total", "Events that became dead letters.");
    this.lost = metrics.counter("leasehold_subscription_losses_total", "Subscriptions to which changes were lost.");
    metrics.observe("leasehold_subscriptions_running", "Subscriptions with a sink that this replica works on.", running);
  }

  attempt(sink: SinkKind, outcome: Verdict["kind"], events: number): void {
    this.#metrics.counter("leasehold_subscription_attempts_total", "Deliveries tried.", { sink, outcome }).add();
    if (outcome === "accepted") this.#metrics.counter("leasehold_subscription_events_total", "Events delivered.", { sink }).add(events);
  }
}
