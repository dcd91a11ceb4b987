import type { Redis } from "ioredis";

const CHANNEL = "leasehold:1:changes";

/** Tells other replicas "look now" after a commit. It carries a number nobody relies on; a poll each second is the truth. */
export class Nudge {
  readonly #publisher: Redis;
  readonly #subscriber: Redis;

  constructor(redis: Redis) {
    this.#publisher = redis;
    this.#subscriber = redis.duplicate({ enableOfflineQueue: true, autoResubscribe: true, commandTimeout: undefined as never });
    this.#subscriber.on("error", () => {}); // the other connection says it
  }

  publish(revision: number): void {
    this.#publisher.publish(CHANNEL, String(revision)).catch(() => {});
  }

  onNudge(look: () => void): void {
    this.#subscriber.on("message", look);
    this.#subscriber.subscribe(CHANNEL).catch(() => {});
  }

  close(): void {
    this.#subscriber.disconnect();
  }
}
