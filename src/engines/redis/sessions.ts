import { Redis } from "ioredis";
import type { Sensitive } from "../../base/sensitive.ts";
import type { OpenOptions } from "../engine.ts";
import { ExclusivePool } from "../exclusive.ts";
import { tlsOptions } from "../tls.ts";
import type { RedisTargetConfig } from "./config.ts";
import { targetError } from "./faults.ts";

/** Connections to one target, each used by one call at a time: WATCH and MULTI belong to the connection. */
export class Sessions {
  readonly config: RedisTargetConfig;
  readonly #options: OpenOptions;
  readonly #pool: ExclusivePool<Redis>;

  constructor(config: RedisTargetConfig, password: Sensitive, options: OpenOptions) {
    this.config = config;
    this.#options = options;
    this.#pool = new ExclusivePool(options, {
      open: () => this.connectAs(config.username, password),
      isUsable: (redis) => redis.status === "ready",
      discard: (redis) => redis.disconnect(),
      fault: targetError,
    });
  }

  /** Throws a LeaseholdError TARGET_*. */
  use<T>(work: (redis: Redis) => Promise<T>): Promise<T> {
    return this.#pool.use(work);
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
    this.#pool.close();
    return Promise.resolve();
  }
}
