import type { DestinationRules } from "./destination.ts";

/** Times in milliseconds. */
export interface SubscriptionSettings extends DestinationRules {
  /** Between attempts, doubled each time. */
  readonly retryMinMs: number;
  readonly retryMaxMs: number;
  /** A worker that is not heard of for so long has lost its subscriptions to another. */
  readonly claimMs: number;
  /** A subscription with so many stands still: somebody has to look at them. */
  readonly maxDeadLetters: number;
}
