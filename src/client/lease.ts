import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { durationFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { CredentialService } from "../gen/leasehold/v1/credential_service_pb.ts";
import { LeaseService } from "../gen/leasehold/v1/lease_service_pb.ts";
import type { Client } from "./client.ts";
import { Credential, timesOf } from "./credential.ts";
import { CallError } from "./errors.ts";
import { plainValues } from "./values.ts";
import { pause, verdictOf } from "./verdict.ts";

export interface LeaseOptions {
  /** How long a credential is asked for, and each renewal. Left out: the role's default. */
  readonly ttlMs?: number | undefined;
  /** When a credential can't be renewed any more, issue another one while it still works, and call back. Left out: the lease ends with the credential. */
  readonly onCredential?: ((current: Credential, previous: Credential) => void | Promise<void>) | undefined;
  /** The credential is about to end: it is not, or could not be, renewed or replaced. Once for each end. */
  readonly onExpiring?: ((credential: Credential) => void) | undefined;
  /** What was tried and failed; most of it is tried again. */
  readonly onError?: ((error: unknown) => void) | undefined;
  /** How long before its end `onExpiring` is called. Left out: a fifth of what it had when it was issued or renewed, at most a minute. */
  readonly warnMs?: number | undefined;
  /** As `close`. */
  readonly signal?: AbortSignal | undefined;
}

/** How a held lease ended. */
export type LeaseEnd = "closed" | "expired" | "revoked";

const MAX_WARN_MS = 60_000;
/** Timers beyond 2^31 ms fire at once. */
const MAX_SLEEP_MS = 86_400_000;

/** Issues a credential. The same request_id is kept over all tries, so that a lost answer makes no second login. Throws CallError when another try can't help, or `signal`'s reason. */
export async function issue(
  client: Client,
  path: string,
  ttlMs: number | undefined,
  signal: AbortSignal,
): Promise<{ credential: Credential; clock: BrokerClock }> {
  const ttl = ttlMs === undefined ? {} : { ttl: durationFromMs(ttlMs) };
  let [requestId, sentAt] = [randomUUID(), performance.now()];
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted();
    try {
      const issued = await client.call(CredentialService.method.issueCredential, { path, requestId, ...ttl });
      const credential = new Credential(issued.lease!, plainValues(issued.data));
      return { credential, clock: new BrokerClock(timestampMs(issued.lease!.issueTime!), sentAt) };
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      // The answer was lost so long that the broker took the login away: nobody has it.
      if (error.reason === "LEASE_ENDED") [requestId, sentAt] = [randomUUID(), performance.now()];
      else if (verdictOf(error) !== "again") throw error;
      await pause(attempt, error, signal);
    }
  }
}

/** The broker's clock, so far as the answers tell: ahead of it by at most the time the issue took, never behind, and untouched by changes of this machine's clock. */
export class BrokerClock {
  readonly #offset: number;

  constructor(brokerMs: number, sentAt: number) {
    this.#offset = brokerMs - sentAt;
  }

  now(): number {
    return performance.now() + this.#offset;
  }
}

/**
 * A lease that is kept alive: renewed at the broker's `renew_time` up to `max_expire_time`, then, with `onCredential`, followed by a new one while the old one still works (it is left to end by
 * itself). Close it to give the login back.
 */
export class HeldLease {
  /** Resolves when nothing is held any more; never rejects. */
  readonly ended: Promise<LeaseEnd>;
  readonly #client: Client;
  readonly #path: string;
  readonly #options: LeaseOptions;
  readonly #stop = new AbortController();
  #current: Credential;
  #clock: BrokerClock;
  /** Replaced, and perhaps not over yet. */
  #previous: Credential | undefined;
  #warned = false;
  #hadMs: number;

  constructor(client: Client, path: string, options: LeaseOptions, first: { readonly credential: Credential; readonly clock: BrokerClock }) {
    this.#client = client;
    this.#path = path;
    this.#options = options;
    this.#current = first.credential;
    this.#clock = first.clock;
    this.#hadMs = this.#leftMs;
    const close = (): void => void this.close().catch((error: unknown) => this.#report(error));
    options.signal?.addEventListener("abort", close, { once: true });
    this.ended = this.#keep().finally(() => options.signal?.removeEventListener("abort", close));
  }

  /** The newest credential. */
  get current(): Credential {
    return this.#current;
  }

  /** Stops renewing and revokes what is still held. Throws CallError when the broker could not be asked: the login then ends at its expire_time. */
  async close(): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    const held = [this.#previous, this.#current].filter((each) => each !== undefined);
    for (const result of await Promise.allSettled(held.map((each) => this.#revoke(each)))) if (result.status === "rejected") throw result.reason;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  get #leftMs(): number {
    return timesOf(this.#current.lease).expireAt - this.#clock.now();
  }

  async #keep(): Promise<LeaseEnd> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const { renewAt, expireAt, maxExpireAt } = timesOf(this.#current.lease);
      if (await this.#waitUntil(renewAt)) break;
      if (expireAt < maxExpireAt && (await this.#renew())) continue;
      if (signal.aborted) break;
      if (this.#options.onCredential !== undefined) {
        if (await this.#reissue()) continue;
        if (signal.aborted) break;
      }
      // What could be done was done: tell, and wait for the end.
      await this.#waitUntil(timesOf(this.#current.lease).expireAt);
      if (!signal.aborted) return this.#revokedEarly ? "revoked" : "expired";
    }
    return "closed";
  }

  #revokedEarly = false;

  /** Sleeps until an instant of the broker's clock, warning on the way. True when it was closed meanwhile. */
  async #waitUntil(at: number): Promise<boolean> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const warnAt = timesOf(this.#current.lease).expireAt - this.#warnMs;
      const now = this.#clock.now();
      if (!this.#warned && now >= warnAt) this.#warn();
      if (now >= at || this.#revokedEarly) return false;
      const next = Math.min(at, this.#warned ? at : warnAt);
      await sleep(Math.min(Math.max(next - now, 1), MAX_SLEEP_MS), undefined, { signal, ref: false }).catch(() => {});
    }
    return true;
  }

  get #warnMs(): number {
    return this.#options.warnMs ?? Math.min(this.#hadMs / 5, MAX_WARN_MS);
  }

  /** Tries until it is renewed (true) or can't be, or would come too late. One request_id for all tries. */
  async #renew(): Promise<boolean> {
    const { ttlMs } = this.#options;
    const increment = ttlMs === undefined ? {} : { increment: durationFromMs(ttlMs) };
    const requestId = randomUUID();
    for (let attempt = 0; !this.#stop.signal.aborted; attempt++) {
      try {
        const { lease } = await this.#client.call(LeaseService.method.renewLease, { path: this.#current.leasePath, requestId, ...increment });
        this.#current.renewed(lease!);
        [this.#warned, this.#hadMs] = [false, this.#leftMs];
        return true;
      } catch (error) {
        if (this.#stop.signal.aborted) return false;
        this.#report(error);
        if (!(error instanceof CallError)) return false;
        if (["LEASE_NOT_FOUND", "LEASE_ENDED", "LEASE_NOT_RENEWABLE"].includes(error.reason)) {
          // It stood short of its most, so somebody ended it.
          this.#revokedEarly = true;
          return false;
        }
        // A refused certificate may be renewed while the lease lives.
        if (verdictOf(error) === "final" || this.#leftMs <= 0) return false;
        await this.#pause(attempt, error);
      }
    }
    return false;
  }

  /** Tries until there is another credential (true), as long as the old one lives and beyond: without one the consumer has nothing. */
  async #reissue(): Promise<boolean> {
    const previous = this.#current;
    for (let attempt = 0; !this.#stop.signal.aborted; attempt++) {
      try {
        const next = await issue(this.#client, this.#path, this.#options.ttlMs, this.#stop.signal);
        // Closed while it was under way: `close` did not know of it.
        if (this.#stop.signal.aborted) {
          await this.#revoke(next.credential).catch((error: unknown) => this.#report(error));
          return false;
        }
        [this.#current, this.#clock, this.#previous] = [next.credential, next.clock, previous];
        [this.#warned, this.#revokedEarly, this.#hadMs] = [false, false, this.#leftMs];
        await this.#tell(previous);
        return true;
      } catch (error) {
        if (this.#stop.signal.aborted) return false;
        this.#report(error);
        // Refused: what refuses it (a policy, a quota) may be changed while the old one lives.
        if (this.#leftMs <= 0) return false;
        await this.#pause(attempt, error instanceof CallError ? error : undefined);
      }
    }
    return false;
  }

  async #tell(previous: Credential): Promise<void> {
    try {
      await this.#options.onCredential?.(this.#current, previous);
    } catch (error) {
      this.#report(error);
    }
  }

  #warn(): void {
    this.#warned = true;
    try {
      this.#options.onExpiring?.(this.#current);
    } catch (error) {
      this.#report(error);
    }
  }

  /** As `pause`, but a warning that comes due meanwhile is given. */
  async #pause(attempt: number, error: CallError | undefined): Promise<void> {
    await pause(attempt, error, this.#stop.signal);
    if (!this.#stop.signal.aborted && !this.#warned && this.#leftMs <= this.#warnMs) this.#warn();
  }

  async #revoke({ leasePath }: Credential): Promise<void> {
    try {
      await this.#client.call(LeaseService.method.revokeLease, { path: leasePath, requestId: randomUUID() });
    } catch (error) {
      if (!(error instanceof CallError) || !["LEASE_ENDED", "LEASE_NOT_FOUND"].includes(error.reason)) throw error;
    }
  }

  #report(error: unknown): void {
    try {
      this.#options.onError?.(error);
    } catch {
      // It had its chance.
    }
  }
}
