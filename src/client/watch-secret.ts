import { AsyncLocalStorage } from "node:async_hooks";
import { inspect } from "node:util";
import { status } from "@grpc/grpc-js";
import { SecretService } from "../gen/leasehold/v1/secret_service_pb.ts";
import { EventType } from "../gen/leasehold/v1/watch_service_pb.ts";
import type { Client } from "./client.ts";
import { CallError } from "./errors.ts";
import { follow } from "./follow.ts";
import { type Data, plainValues } from "./values.ts";
import { pause, verdictOf } from "./verdict.ts";
import type { WatchEvent } from "./watch-event.ts";

/** One version of a secret. Printing it shows no secret: `data` is the door. */
export class SecretValue {
  readonly path: string;
  readonly version: number;
  readonly #data: Data;

  constructor(path: string, version: number, data: Data) {
    this.path = path;
    this.version = version;
    this.#data = data;
  }

  get data(): Data {
    return this.#data;
  }

  toJSON(): object {
    return { path: this.path, version: this.version };
  }

  [inspect.custom](): string {
    return `SecretValue ${this.path}@${this.version} [redacted]`;
  }
}

export interface WatchSecretOptions {
  /** The secret was deleted. */
  readonly onRemoved?: (() => void | Promise<void>) | undefined;
  /** A callback threw, or a version can't be read (CallError with the reason). The watch goes on. Left out: a process warning without the error's text, which may hold a secret. */
  readonly onError?: ((error: unknown) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Calls back with the value a secret has now and with each version after it, in order, one call at a time: the next one waits for the promise of the last. A callback that throws does not
 * end it. Where changes are no longer kept only the newest version is told. A deleted secret that comes back is told again.
 */
export class SecretWatch {
  /** Settles with the first call's end: there is a value, or none can be had now. Rejects when the watch ended before that. */
  readonly ready: Promise<void>;
  /** Resolves after `close`; rejects with the CallError that ended the watch (a policy that does not allow it any more, a certificate refused for good). */
  readonly ended: Promise<void>;
  readonly #client: Client;
  readonly #path: string;
  readonly #onVersion: (secret: SecretValue) => void | Promise<void>;
  readonly #options: WatchSecretOptions;
  readonly #stop = new AbortController();
  readonly #inside = new AsyncLocalStorage<true>();
  #version = 0;

  constructor(client: Client, path: string, onVersion: (secret: SecretValue) => void | Promise<void>, options: WatchSecretOptions = {}) {
    this.#client = client;
    this.#path = path;
    this.#onVersion = onVersion;
    this.#options = options;
    const ready = Promise.withResolvers<void>();
    this.ready = ready.promise;
    this.ended = this.#run(ready.resolve);
    this.ended.then(ready.resolve, ready.reject);
    // Who does not ask is not told: an unhandled rejection would end the process.
    for (const promise of [this.ready, this.ended]) promise.catch(() => {});
  }

  /** Ends it. Resolves when no callback runs any more, or will; in a callback itself, at once. */
  async close(): Promise<void> {
    this.#stop.abort();
    if (this.#inside.getStore() !== true) await this.ended.catch(() => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #run(ready: () => void): Promise<void> {
    const { signal } = this.#options;
    const stop = (): void => this.#stop.abort();
    if (signal?.aborted === true) stop();
    signal?.addEventListener("abort", stop, { once: true });
    try {
      for await (const told of follow(this.#client, { paths: [this.#path], snapshot: true, includeValues: true, signal: this.#stop.signal })) {
        if (told.kind === "event") await this.#tell(told.event);
        if (this.#stop.signal.aborted) return;
        if (told.kind === "snapshot_end" || this.#version > 0) ready();
      }
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  async #tell(event: WatchEvent): Promise<void> {
    if (event.removed) {
      // Its versions may begin anew.
      if (this.#version > 0) await this.#call(async () => this.#options.onRemoved?.());
      this.#version = 0;
      return;
    }
    const isValue = event.type === EventType.SECRET_VERSION_CREATED || event.type === EventType.ROTATION_SUCCEEDED;
    const isNew = isValue && (event.version !== this.#version || event.difference === undefined);
    if (event.version === 0 || (!isNew && event.type !== EventType.SECRET_RESTORED)) return;
    const value = await this.#valueOf(event);
    if (value === undefined || this.#stop.signal.aborted) return;
    this.#version = value.version;
    await this.#call(async () => this.#onVersion(value));
  }

  /** The event's own data, or the version as it can be read now; undefined when it can't, which is told. Throws what ends the watch. */
  async #valueOf(event: WatchEvent): Promise<SecretValue | undefined> {
    const { path, version } = event;
    if (Object.keys(event.data).length > 0) return new SecretValue(path, version, event.data);
    for (let attempt = 0; !this.#stop.signal.aborted; attempt++) {
      try {
        const secret = await this.#client.call(SecretService.method.getSecret, { path, selector: { case: "version", value: BigInt(version) } });
        return new SecretValue(path, version, plainValues(secret.data));
      } catch (error) {
        if (!(error instanceof CallError) || error.code === status.PERMISSION_DENIED || error.code === status.UNAUTHENTICATED) throw error;
        if (verdictOf(error) !== "again") {
          this.#report(error);
          return undefined;
        }
        await pause(attempt, error, this.#stop.signal);
      }
    }
    return undefined;
  }

  async #call(callback: () => Promise<void>): Promise<void> {
    try {
      await this.#inside.run(true, callback);
    } catch (error) {
      this.#report(error);
    }
  }

  #report(error: unknown): void {
    const { onError } = this.#options;
    if (onError === undefined) {
      process.emitWarning(`a callback of watchSecret failed (${error instanceof Error ? error.name : typeof error})`, "LeaseholdWarning");
      return;
    }
    try {
      onError(error);
    } catch {
      // It had its chance.
    }
  }
}
