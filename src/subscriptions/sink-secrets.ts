import { invalid } from "../base/errors.ts";
import { Sensitive } from "../base/sensitive.ts";
import { open, seal } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { SinkConfig } from "../model/subscription.ts";
import { subscriptionBinding } from "./binding.ts";

/** A webhook's former key signs beside the new one for so long: the receiver changes over in this time. */
const OVERLAP_MS = 24 * 3_600_000;
const MIN_SIGNING_BYTES = 16;
const MAX_SECRET_BYTES = 1024;

interface StoredKey {
  readonly id: number;
  readonly secret: string;
  /** Unix milliseconds; the newest has none. */
  readonly until?: number;
}

/** What is sealed: base64 texts. */
interface Stored {
  readonly signing?: readonly StoredKey[];
  readonly headers?: Readonly<Record<string, string>>;
  readonly password?: string;
}

/** As an operator gives them; what is left out stays. */
export interface SecretsInput {
  readonly signingSecret?: Sensitive | undefined;
  /** By name in lower case; an empty one takes the header away. */
  readonly secretHeaders: Readonly<Record<string, Sensitive>>;
  readonly password?: Sensitive | undefined;
}

/** The secrets of one sink, open. Wiped when its worker ends. */
export class SinkSecrets {
  readonly #stored: Stored;
  readonly #keys: readonly { readonly id: number; readonly secret: Sensitive; readonly until: number }[];
  readonly headers: ReadonlyMap<string, Sensitive>;
  readonly password: Sensitive | undefined;

  constructor(stored: Stored) {
    this.#stored = stored;
    this.#keys = (stored.signing ?? []).map(({ id, secret, until }) => ({ id, secret: sensitive(secret), until: until ?? Number.POSITIVE_INFINITY }));
    this.headers = new Map(Object.entries(stored.headers ?? {}).map(([name, value]) => [name, sensitive(value)]));
    this.password = stored.password === undefined ? undefined : sensitive(stored.password);
  }

  /** Those that sign at a time, the newest first. @param now Unix milliseconds. */
  signingKeys(now: number): { readonly id: number; readonly secret: Sensitive }[] {
    return this.#keys.filter((key) => key.until > now);
  }

  wipe(): void {
    for (const { secret } of this.#keys) secret.wipe();
    for (const value of this.headers.values()) value.wipe();
    this.password?.wipe();
  }

  /**
   * These secrets with a change. Throws REQUEST_INVALID when one is missing. @param moved the sink sends them to another place than before: who may write a subscription must not be able to send its secrets to a server of his own (finding 23).
   */
  changed(config: SinkConfig, input: SecretsInput, moved: boolean, now: number): { readonly secrets: Stored | undefined; readonly signingKey: number } {
    const signingKey = this.#keys[0]?.id ?? 0;
    if (config.kind === "") return { secrets: undefined, signingKey };
    const kept: Stored = moved ? {} : this.#stored;
    if (config.kind === "redis_stream") {
      if (moved && this.password !== undefined && input.password === undefined)
        throw invalid("subscription.redis_stream.password", "is needed again when the connection changes");
      const password = input.password === undefined ? kept.password : textOf(input.password, "subscription.redis_stream.password");
      return { secrets: password === undefined ? undefined : { password }, signingKey };
    }
    if (moved && this.headers.size > 0 && Object.keys(input.secretHeaders).length === 0)
      throw invalid("subscription.webhook.secret_headers", "are needed again when the url or ca_pem changes");
    const { signingSecret } = input;
    if (signingSecret === undefined && kept.signing === undefined)
      throw invalid("subscription.webhook.signing_secret", this.#keys.length === 0 ? "is needed" : "is needed again when the url or ca_pem changes");
    const headers = { ...kept.headers };
    for (const [name, value] of Object.entries(input.secretHeaders)) {
      if (value.reveal().length === 0) delete headers[name];
      else headers[name] = textOf(value, "subscription.webhook.secret_headers");
    }
    if (signingSecret === undefined) return { secrets: { signing: kept.signing!, headers }, signingKey };
    if (signingSecret.reveal().length < MIN_SIGNING_BYTES)
      throw invalid("subscription.webhook.signing_secret", `must have ${MIN_SIGNING_BYTES} to ${MAX_SECRET_BYTES} bytes`);
    const secret = textOf(signingSecret, "subscription.webhook.signing_secret");
    const [newest] = kept.signing ?? [];
    if (newest?.secret === secret) return { secrets: { signing: kept.signing!, headers }, signingKey };
    const former = (kept.signing ?? []).map((key) => ({ ...key, until: key.until ?? now + OVERLAP_MS })).filter((key) => key.until > now);
    return { secrets: { signing: [{ id: signingKey + 1, secret }, ...former], headers }, signingKey: signingKey + 1 };
  }
}

/** Names of the headers that are sealed. */
export function headerNames(secrets: Stored | undefined): string[] {
  return Object.keys(secrets?.headers ?? {}).sort();
}

/** Throws SEALED. */
export function sealSecrets(keyring: Keyring, uid: string, secrets: Stored): Uint8Array {
  const plaintext = Buffer.from(JSON.stringify(secrets), "utf8");
  const sealed = seal(keyring, subscriptionBinding(uid), plaintext);
  plaintext.fill(0);
  return sealed;
}

/** Throws SEALED. @param sealed undefined: there are none. */
export async function openSecrets(keyring: Keyring, uid: string, sealed: Uint8Array | undefined): Promise<SinkSecrets> {
  if (sealed === undefined) return new SinkSecrets({});
  const plaintext = await open(keyring, sealed, subscriptionBinding(uid));
  const stored = JSON.parse(Buffer.from(plaintext).toString("utf8")) as Stored;
  plaintext.fill(0);
  return new SinkSecrets(stored);
}

function sensitive(base64: string): Sensitive {
  return new Sensitive(Buffer.from(base64, "base64"));
}

function textOf(value: Sensitive, field: string): string {
  const bytes = value.reveal();
  if (bytes.length > MAX_SECRET_BYTES * 4) throw invalid(field, "is too long");
  return Buffer.from(bytes).toString("base64");
}
