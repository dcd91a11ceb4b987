import { LeaseholdError } from "../base/errors.ts";
import type { EngineAbilities, PreflightCheck } from "./engine.ts";
import { problemOf } from "./own-login.ts";
import { isLoopback, type ServerConfig } from "./tls.ts";

/** A failed check, in words for the operator; no secret. */
export class Complaint extends Error {}

/** Preflight's lines, in the order they were checked. */
export class Checklist {
  readonly checks: PreflightCheck[] = [];
  readonly #advice: Readonly<Record<string, string>>;

  /** @param advice what to do about each `problem` of this engine. */
  constructor(advice: Readonly<Record<string, string>>) {
    this.#advice = advice;
  }

  /** Answers whether it passed. Never throws. */
  async check(name: string, run: () => Promise<string> | string): Promise<boolean> {
    try {
      this.checks.push({ name, ok: true, detail: await run() });
      return true;
    } catch (error) {
      this.checks.push({ name, ok: false, detail: error instanceof Complaint ? error.message : this.#adviceFor(error) });
      return false;
    }
  }

  #adviceFor(error: unknown): string {
    if (!(error instanceof LeaseholdError)) return "failed";
    const problem = problemOf(error);
    if (problem === undefined) return "the server could not be reached, or did not answer in time";
    return this.#advice[problem] ?? problem;
  }
}

export function checkTls({ host, tls }: ServerConfig): string {
  if (tls.mode === "verify-full") return "verified";
  if (!isLoopback(host)) throw new Complaint("TLS is disabled and the server is on another host: set tls_mode to TLS_MODE_VERIFY_FULL");
  return "disabled, on the loopback address";
}

const MISSING: Readonly<Record<Exclude<keyof EngineAbilities, "warmPool" | "loginRotation">, string>> = {
  serverExpiry: "the server ends no login by itself, so a lease lives until the broker takes it away: max_ttl is at most 24 h",
  sessionKill: "the server can't end sessions: one that is open outlives its lease",
  fencing: "a creation that was held up between this broker and the server may still happen a moment after its deadline; the ledger's last look finds it",
  hashedPassword: "the server is sent the password itself, not a hash: keep its statement log off",
  enumerable: "logins can't be listed on the server",
};

/** What the engine can't do, for `target test` (attack.md finding 24): a fact to know, not a fault. */
export function limits(abilities: EngineAbilities): readonly PreflightCheck[] {
  return (Object.keys(MISSING) as (keyof typeof MISSING)[])
    .filter((ability) => !abilities[ability])
    .map((ability) => ({ name: `without_${ability.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`, ok: true, detail: MISSING[ability] }));
}
