import type { Redis } from "ioredis";

/** Tells other replicas "look now" after a commit. It carries a number nobody relies on; a poll each second is the truth. */
export class Nudge {
  readonly #publisher: Redis;
  readonly #subscriber: Redis;
  readonly #channel: string;

  constructor(redis: Redis, scope: string) {
    this.#channel = `${scope}:changes`;
    this.#publisher = redis;
    this.#subscriber = redis.duplicate({ enableOfflineQueue: true, autoResubscribe: false, commandTimeout: undefined as never });
    this.#subscriber.on("error", () => {}); // the other connection says it
  }

  publish(revision: number): void {
    this.#publisher.publish(this.#channel, String(revision)).catch(() => {});
  }

  onNudge(look: () => void): void {
    const subscribe = (): void => void this.#subscriber.subscribe(this.#channel).catch(() => {});
    this.#subscriber.on("message", look);
    this.#subscriber.on("ready", subscribe); // now, or whenever Redis comes back
    if (this.#subscriber.status === "ready") subscribe();
  }

  close(): void {
    this.#subscriber.disconnect();
  }
}
