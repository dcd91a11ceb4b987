import { isIP } from "node:net";
import { checkServerIdentity } from "node:tls";
import { Redis } from "ioredis";
import type { RedisStreamConfig } from "../../model/subscription.ts";
import { connectionProblem, type DestinationRules, resolveDestination } from "../destination.ts";
import type { Outgoing, Render, Sink, Verdict } from "../sink.ts";
import type { SinkSecrets } from "../sink-secrets.ts";

const CONNECT_MS = 5000;

/** One stream: the entries of a delivery in one transaction, so that all of them are there or none. Whether they survive Redis is Redis's own setting. */
export class RedisStreamSink implements Sink {
  readonly #config: RedisStreamConfig;
  readonly #secrets: SinkSecrets;
  readonly #rules: DestinationRules;
  readonly #render: Render;
  #redis: Redis | undefined;

  constructor(config: RedisStreamConfig, secrets: SinkSecrets, rules: DestinationRules, render: Render) {
    this.#config = config;
    this.#secrets = secrets;
    this.#rules = rules;
    this.#render = render;
  }

  async deliver(outgoing: Outgoing, signal: AbortSignal): Promise<Verdict> {
    const drop = (): void => this.#drop();
    signal.addEventListener("abort", drop, { once: true });
    try {
      signal.throwIfAborted();
      const redis = (this.#redis ??= await this.#connect());
      signal.throwIfAborted(); // connecting may have taken longer than the claim
      const { key, maxLength } = this.#config;
      const transaction = redis.multi();
      for (const fields of this.#entries(outgoing)) transaction.xadd(key, "MAXLEN", "~", String(maxLength), "*", ...fields);
      const results = await transaction.exec();
      const failed = results === null ? new Error("aborted") : results.find(([error]) => error !== null)?.[0];
      if (failed === undefined || failed === null) return { kind: "accepted" };
      throw failed;
    } catch (error) {
      this.#drop();
      return { kind: "unavailable", problem: redisProblem(error) };
    } finally {
      signal.removeEventListener("abort", drop);
    }
  }

  close(): void {
    this.#drop();
    this.#secrets.wipe();
  }

  #entries(outgoing: Outgoing): string[][] {
    const { delivery } = outgoing;
    const subscription = `subscriptions/${delivery.name}`;
    const replay = delivery.replay ? { replay: "true" } : {};
    const entries = delivery.changes.map((change) => {
      const id = `${delivery.epoch}.${change.revision}`;
      const fields = {
        id,
        subscription,
        type: this.#render.typeName(change),
        path: change.path,
        event: this.#render.event(change, delivery.snapshot),
        ...replay,
      };
      return Object.entries(fields).flat();
    });
    if (delivery.gap === undefined && !delivery.snapshotEnd) return entries;
    const notice = ["id", outgoing.id, "subscription", subscription, "notice", this.#render.delivery({ ...outgoing, delivery: { ...delivery, changes: [] } })];
    return delivery.gap === undefined ? [...entries, notice] : [notice, ...entries];
  }

  /** To the first of the host's addresses that answers. */
  async #connect(): Promise<Redis> {
    const { host, tls } = this.#config;
    const addresses = await resolveDestination(host, tls, this.#rules);
    for (const [i, address] of addresses.entries()) {
      try {
        return await this.#connectTo(address);
      } catch (error) {
        if (i === addresses.length - 1) throw error;
      }
    }
    throw new Error("no address");
  }

  async #connectTo(address: string): Promise<Redis> {
    const { host, port, tls, caPem, username, database, timeoutMs } = this.#config;
    const password = this.#secrets.password?.revealText();
    const redis = new Redis({
      host: address,
      port,
      db: database,
      ...(username === undefined ? {} : { username }),
      ...(password === undefined ? {} : { password }),
      ...(tls
        ? {
            tls: {
              rejectUnauthorized: true,
              minVersion: "TLSv1.2",
              ...(isIP(host) === 0 ? { servername: host } : {}),
              checkServerIdentity: (_asked: string, certificate: Parameters<typeof checkServerIdentity>[1]) => checkServerIdentity(host, certificate),
              ...(caPem === undefined ? {} : { ca: caPem }),
            },
          }
        : {}),
      lazyConnect: true,
      enableOfflineQueue: false,
      enableReadyCheck: false, // it would need INFO
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      retryStrategy: () => null,
      connectTimeout: Math.min(CONNECT_MS, timeoutMs),
      commandTimeout: timeoutMs,
    });
    let said: unknown;
    redis.on("error", (error) => (said = error)); // the call under way fails by itself
    redis.on("end", () => {
      if (this.#redis === redis) this.#redis = undefined;
    });
    try {
      await redis.connect();
      await redis.ping(); // a wrong password is an answer here, and not before
      return redis;
    } catch (error) {
      redis.disconnect();
      throw said ?? error;
    }
  }

  #drop(): void {
    this.#redis?.disconnect();
    this.#redis = undefined;
  }
}

/** The first word of an error of Redis is a code of its own; the rest is not repeated. */
function redisProblem(error: unknown): string {
  const { name, message } = error as Error;
  if (name === "ReplyError") return `Redis: ${/^[A-Z]{2,32}\b/.exec(message)?.[0] ?? "error"}`;
  if (message === "Command timed out" || message === "connect ETIMEDOUT") return "timeout";
  return connectionProblem(error);
}
