import { Redis } from "ioredis";
import { LeaseholdError } from "../../base/errors.ts";
import type { Sensitive } from "../../base/sensitive.ts";
import type { OpenOptions } from "../engine.ts";
import { tlsOptions } from "../tls.ts";
import type { RedisTargetConfig } from "./config.ts";
import { targetError } from "./faults.ts";

/**
 * Connections to one target, each used by one call at a time: WATCH and MULTI belong to the connection. One that failed in any way is
 * discarded, so that a hung or half-open one, or one with a transaction begun, is never handed out again (lesson 22).
 */
export class Sessions {
  readonly config: RedisTargetConfig;
  readonly #password: Sensitive;
  readonly #options: OpenOptions;
  readonly #idle: Redis[] = [];
  readonly #waiting: (() => void)[] = [];
  #busy = 0;
  #closed = false;

  constructor(config: RedisTargetConfig, password: Sensitive, options: OpenOptions) {
    this.config = config;
    this.#password = password;
    this.#options = options;
  }

  /** Throws a LeaseholdError TARGET_*. */
  async use<T>(work: (redis: Redis) => Promise<T>): Promise<T> {
    while (this.#busy >= this.#options.maxConnections) {
      // oxlint-disable-next-line no-await-in-loop -- woken one at a time
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (this.#closed) throw new LeaseholdError("TARGET_UNAVAILABLE", "target closed");
    this.#busy += 1;
    let redis: Redis | undefined;
    try {
      redis = this.#take() ?? (await this.connectAs(this.config.username, this.#password));
      const result = await work(redis);
      if (this.#closed) redis.disconnect();
      else this.#idle.push(redis);
      return result;
    } catch (error) {
      redis?.disconnect();
      throw targetError(error);
    } finally {
      this.#busy -= 1;
      this.#waiting.shift()?.();
    }
  }

  /** A single connection as somebody else, for preflight. The caller ends it. */
  async connectAs(username: string, password: Sensitive): Promise<Redis> {
    const { connectTimeoutMs, statementTimeoutMs } = this.#options;
    const tls = tlsOptions(this.config);
    let lost: unknown;
    const redis = new Redis({
      host: this.config.host,
      port: this.config.port,
      lazyConnect: true,
      enableReadyCheck: false,
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      disableClientInfo: true,
      protocol: 2,
      maxRetriesPerRequest: 0,
      retryStrategy: () => null,
      connectTimeout: connectTimeoutMs,
      commandTimeout: statementTimeoutMs,
      ...(tls === undefined ? {} : { tls }),
    });
    redis.on("error", (error) => (lost = error)); // the loss shows at the next command
    try {
      await redis.connect();
      // Ourselves, not by ioredis's options: it goes on when the server says that no password is needed, and keeps the password readable.
      await redis.call("AUTH", username, password.revealText());
      return redis;
    } catch (error) {
      redis.disconnect();
      throw targetError(lost ?? error);
    }
  }

  close(): Promise<void> {
    this.#closed = true;
    for (const redis of this.#idle.splice(0)) redis.disconnect();
    for (const wake of this.#waiting.splice(0)) wake();
    return Promise.resolve();
  }

  #take(): Redis | undefined {
    for (;;) {
      const redis = this.#idle.pop();
      if (redis === undefined || redis.status === "ready") return redis;
      redis.disconnect();
    }
  }
}
