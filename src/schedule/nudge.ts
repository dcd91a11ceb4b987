import { randomUUID } from "node:crypto";
import type { Redis } from "ioredis";

/** Where nobody listens, so seldom is it looked whether somebody does: a publication is a system call and wakes Redis, 6 % of a lone caller's renewal. */
const ALONE_MS = 20;

/** Tells other replicas "look now" after a commit. It carries a revision, to spare those a look who have it already, and who says so; a poll each second is the truth. */
export class Nudge {
  readonly #publisher: Redis;
  readonly #subscriber: Redis;
  readonly #channel: string;
  readonly #id = randomUUID();
  #revision = 0;
  /** The last one reached nobody but this process: there is no other replica. */
  #alone = false;
  #later: NodeJS.Timeout | undefined;

  constructor(redis: Redis, scope: string) {
    this.#channel = `${scope}:changes`;
    this.#publisher = redis;
    this.#subscriber = redis.duplicate({ enableOfflineQueue: true, autoResubscribe: false, commandTimeout: undefined as never });
    this.#subscriber.on("error", () => {}); // the other connection says it
  }

  publish(revision: number): void {
    if (this.#alone) this.#later ??= setTimeout(() => this.#publish(), ALONE_MS).unref();
    this.#revision = Math.max(this.#revision, revision);
    if (!this.#alone) this.#publish();
  }

  #publish(): void {
    clearTimeout(this.#later);
    this.#later = undefined;
    this.#publisher.publish(this.#channel, `${this.#revision} ${this.#id}`).then(
      (receivers) => (this.#alone = receivers <= 1),
      () => (this.#alone = false),
    );
  }

  /** Not called for what this process itself has published. */
  onNudge(look: (revision: number | undefined) => void): void {
    const subscribe = (): void => void this.#subscriber.subscribe(this.#channel).catch(() => {});
    this.#subscriber.on("message", (_channel: string, message: string) => {
      const [revision, by] = message.split(" ");
      if (by !== this.#id) look(Number.isSafeInteger(Number(revision)) ? Number(revision) : undefined);
    });
    this.#subscriber.on("ready", subscribe); // now, or whenever Redis comes back
    if (this.#subscriber.status === "ready") subscribe();
  }

  close(): void {
    clearTimeout(this.#later);
    this.#subscriber.disconnect();
  }
}
