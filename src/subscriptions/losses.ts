import type { Log } from "../base/log.ts";
import { systemActor } from "../model/audit.ts";
import type { Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { subscriptionsBehind } from "../store/subscriptions.ts";
import type { Outcomes } from "./outcomes.ts";

const BATCH = 1000;

/** Says so where a cursor's place is gone: the subscription stops, or tells its receiver and goes on, as it is set to; in a new epoch it first looks whether anything was lost at all. */
export class Losses {
  readonly #db: Db;
  readonly #committer: Committer;
  readonly #outcomes: Outcomes;
  readonly #log: Log;

  constructor(db: Db, committer: Committer, outcomes: Outcomes, log: Log) {
    this.#db = db;
    this.#committer = committer;
    this.#outcomes = outcomes;
    this.#log = log;
  }

  async tell(uid: string, name: string, reason: "COMPACTED" | "EPOCH_CHANGED"): Promise<void> {
    const actor = systemActor("subscription.lose", reason);
    const outcome = await this.#committer.commit({ kind: "subscription.lose", path: `subscriptions/${name}`, actor, args: { uid, reason } });
    if (!outcome.ok) return; // another replica did
    if (outcome.result["lost"] !== true) return;
    this.#outcomes.lost.add();
    this.#log.error({ subscription: name, reason }, "changes were lost to a subscription");
  }

  /** Also those that nobody works on: paused ones, and those without a consumer. */
  async look(): Promise<void> {
    for (const { uid, name, reason } of await subscriptionsBehind(this.#db, BATCH)) await this.tell(uid, name, reason);
  }
}
