import { isLoopback } from "../../engines/tls.ts";
import type { OutsideConfig } from "../outside.ts";

export interface WebhookConfig extends OutsideConfig {
  readonly url: string;
  /** PEM; undefined: the system's roots. */
  readonly caPem: string | undefined;
  /** Path of the secret whose field `key` signs. */
  readonly signingSecret: string;
}

/** What is wrong with a URL; undefined: nothing. The text must be printable ASCII, so that what is checked is what is used. */
export function urlProblem(text: string): string | undefined {
  if (!/^[\x21-\x7e]{1,2048}$/.test(text) || !URL.canParse(text)) return "must be a URL";
  const url = new URL(text);
  if (url.protocol !== "https:" && url.protocol !== "http:") return "must begin with https://";
  if (url.username !== "" || url.password !== "") return "must not hold a user or password";
  if (url.hash !== "") return "must not have a fragment";
  if (url.protocol === "http:" && !isLoopback(hostOf(url))) return "must begin with https://, unless the host is a loopback address";
  return undefined;
}

/** Without the brackets of IPv6. */
export function hostOf(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, "");
}
