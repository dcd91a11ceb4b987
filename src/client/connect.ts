import { Client } from "./client.ts";
import { follow, type FollowOptions } from "./follow.ts";
import { HeldLease, issue, type LeaseOptions } from "./lease.ts";
import { endpointOf } from "./settings.ts";
import type { WatchEvent } from "./watch-event.ts";
import { type SecretValue, SecretWatch, type WatchSecretOptions } from "./watch-secret.ts";

/** Where the broker is, and as whom. What is left out is looked for where the command does (docs/cli.md): `LEASEHOLD_*` variables, a context file, a development broker of this folder. */
export interface ConnectOptions {
  /** `host:port`, `unix:/path`, or several replicas: `ipv4:10.0.0.1:8443,10.0.0.2:8443`. */
  readonly address?: string | undefined;
  /** Client certificate: a PEM text, or a file, which is read anew when it changes. So for the key and the CA. */
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
  /** CA that vouches for the broker. */
  readonly ca?: string | undefined;
  /** Name on the broker's certificate, if not the address's. */
  readonly serverName?: string | undefined;
  /** A context of the context file. */
  readonly context?: string | undefined;
  /** A client of the development broker: `admin` or `demo-app`. */
  readonly as?: string | undefined;
  /** For one call, its retries included. Left out: 30 s. */
  readonly timeoutMs?: number | undefined;
}

/** What `watch` takes. */
export type WatchOptions = FollowOptions;

/** A connection to a broker. It connects with the first call; close it when done. */
export class Leasehold extends Client {
  /**
   * The events of these paths, each once and in commit order, over broken connections and restarts of the broker. Where changes are no longer kept it goes on with the difference from what
   * it has told (`event.difference`). Ends with `signal` or `break`; throws CallError when a new connection can't help: PERMISSION_DENIED, a certificate refused for good, an invalid request.
   */
  async *watch(options: WatchOptions): AsyncGenerator<WatchEvent, void> {
    for await (const told of follow(this, options)) if (told.kind === "event") yield told.event;
  }

  /** The value of a secret now, and each version after it: see SecretWatch. */
  watchSecret(path: string, onVersion: (secret: SecretValue) => void | Promise<void>, options?: WatchSecretOptions): SecretWatch {
    return new SecretWatch(this, path, onVersion, options);
  }

  /** A credential on lease that is kept alive until it is closed: see HeldLease. Waits for a broker that is away; throws CallError when another try can't help. */
  async lease(path: string, options: LeaseOptions = {}): Promise<HeldLease> {
    const signal = options.signal ?? new AbortController().signal;
    return new HeldLease(this, path, options, await issue(this, path, options.ttlMs, signal));
  }
}

/** Throws SettingsError when something is missing or can't be read, and what OpenSSL says of a certificate or key that can't be used. */
export function connect(options: ConnectOptions = {}): Leasehold {
  const { certificate, timeoutMs, ...flags } = options;
  const given = Object.fromEntries(Object.entries({ ...flags, cert: certificate }).filter(([, value]) => value !== undefined));
  return new Leasehold(endpointOf(given, process.env, process.cwd()), timeoutMs);
}
