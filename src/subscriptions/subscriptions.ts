import type { ActSpans } from "../base/act-spans.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Keyring } from "../crypto/keyring.ts";
import { TokenBox } from "../crypto/token.ts";
import type { Change } from "../model/event.ts";
import type { Job } from "../schedule/jobs.ts";
import type { Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { AckTokens } from "./ack-token.ts";
import { Claims } from "./claims.ts";
import { Consumers } from "./consumers.ts";
import { Deliverer } from "./deliverer.ts";
import { Losses } from "./losses.ts";
import { Outcomes } from "./outcomes.ts";
import type { SubscriptionSettings } from "./settings.ts";
import type { Render } from "./sink.ts";
import type { SourceDeps } from "./source.ts";
import { type Tail, Tails } from "./tails.ts";
import { SubscriptionWriter } from "./write.ts";

export interface SubscriptionsDeps {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly committer: Committer;
  readonly feed: Tail & { listen(listener: { changed(changes: readonly Change[]): void; restarted(): void }): void };
  readonly mayWatch: SourceDeps["mayWatch"];
  readonly settings: SubscriptionSettings;
  readonly render: Render;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly spans?: ActSpans | undefined;
}

export interface Subscriptions {
  readonly writer: SubscriptionWriter;
  readonly consumers: Consumers;
  /** Looks for work and for losses. */
  readonly jobs: readonly Job[];
  /** Begins to deliver. */
  start(): void;
  stop(): Promise<void>;
}

const LOOK_MS = 1000;
const LOSSES_MS = 5000;

/** Builds the durable subscriptions of this process. Nothing is delivered before `start`. */
export function createSubscriptions(deps: SubscriptionsDeps): Subscriptions {
  const { db, keyring, committer, feed, settings, log, metrics } = deps;
  const tails = new Tails();
  const claims = new Claims(db, settings.claimMs, log);
  let started = false;
  const outcomes = new Outcomes(metrics, () => deliverer.size);
  const losses = new Losses(db, committer, outcomes, log);
  const source = { db, tail: feed, mayWatch: deps.mayWatch };
  const runner = { db, committer, settings, outcomes, log, lagMs: () => feed.lagMs, spans: deps.spans };
  const deliverer = new Deliverer({ runner, source, tails, claims, losses, keyring, render: deps.render, log });
  const tokens = new AckTokens(new TokenBox(keyring, "ack-token"));
  feed.listen({
    changed(changes) {
      tails.changed(changes);
      if (started) deliverer.changed(changes);
    },
    restarted() {
      tails.restarted();
      if (started) deliverer.look();
    },
  });
  return {
    writer: new SubscriptionWriter({ db, keyring, committer, rules: settings }),
    consumers: new Consumers({ db, source, tails, claims, losses, committer, tokens }),
    jobs: [
      { name: "subscriptions", everyMs: LOOK_MS, run: async () => deliverer.look() },
      { name: "subscription-losses", everyMs: LOSSES_MS, run: () => losses.look() },
    ],
    start() {
      started = true;
      deliverer.look();
    },
    stop: () => deliverer.stop(),
  };
}
