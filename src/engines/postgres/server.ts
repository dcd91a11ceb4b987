import type { LoginRef } from "../engine.ts";
import { misconfigured } from "./faults.ts";

/** The server all of them were made on. Of different ones none is the one asked: who divides finds out which. Throws TARGET_MISCONFIGURED. */
export function serverOf(items: readonly { readonly login: LoginRef }[]): string | null {
  const [first, ...others] = new Set(items.map((item) => item.login.systemIdentifier));
  if (others.length > 0) throw misconfigured("different_server");
  return first ?? null;
}
