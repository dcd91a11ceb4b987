import { Sensitive } from "../base/sensitive.ts";
import { isReason, LeaseholdError } from "../base/errors.ts";
import { newPassword } from "../engines/generate.ts";
import type { PasswordChange, StaticLogins } from "../engines/static-login.ts";
import type { SecretData } from "../model/secret.ts";
import type { PasswordPolicyConfig } from "../model/target.ts";
import type { CandidateStep, CreateStep, RotatorHost } from "./rotator.ts";

// What the rotators of logins on the catalog's targets have in common. Their secrets have the fields `username` and `password`.

export interface Login {
  readonly username: string;
  readonly password: Sensitive;
}

/** The login in a secret's data; undefined when a field is missing. */
export function loginOf(data: SecretData | undefined): Login | undefined {
  const [username, password] = [data?.get("username"), data?.get("password")];
  return username === undefined || password === undefined ? undefined : { username: username.value.revealText(), password: password.value };
}

/**
 * The login that is to be set, one of those that whoever put the rotation could name. Throws TARGET_MISCONFIGURED `no_login`: CURRENT may have been put by hand, by somebody who may write the secret and nothing else, and say
 * anything.
 */
export function loginToSet(data: SecretData, usernames: readonly string[]): Login {
  const login = loginOf(data);
  if (login === undefined || !usernames.includes(login.username)) throw misfit("no_login");
  return login;
}

/** The current data with another login in it. */
export function withLogin(current: SecretData | undefined, username: string, policy: PasswordPolicyConfig | undefined): SecretData {
  return new Map([
    ...(current ?? new Map()),
    ["username", { kind: "text", value: Sensitive.text(username) }],
    ["password", { kind: "text", value: newPassword(policy) }],
  ]);
}

/** What of a step a login is set by. */
type Fenced = Pick<CreateStep<{ readonly target: string }>, "config" | "rotationUid" | "generation" | "deadlineAt">;

/**
 * What the target is told is twice the candidate's generation, and one more to take it back: so a `set` of a given-up candidate that comes late is refused, and a late `discard` of it by the next candidate.
 */
export const SETTING = 0;
export const TAKING_BACK = 1;

/** The logins of a catalog's target, seen by one rotator. */
export class TargetLogins {
  readonly #host: RotatorHost;
  readonly #engine: string;

  constructor(host: RotatorHost, engine: string) {
    this.#host = host;
    this.#engine = engine;
  }

  /** Throws TARGET_UNAVAILABLE, TARGET_MISCONFIGURED. */
  async setPassword(
    step: Fenced,
    phase: typeof SETTING | typeof TAKING_BACK,
    change: Pick<PasswordChange, "login" | "password" | "keep" | "drop">,
  ): Promise<void> {
    const { logins, clockSkewMs } = await this.#open(step.config.target);
    await logins.setPassword({ ...change, rotation: step.rotationUid, generation: step.generation * 2 + phase, deadlineAt: step.deadlineAt + clockSkewMs });
  }

  /** A real login with the step's candidate. */
  async test(
    step: Pick<CandidateStep<{ readonly target: string; readonly database?: string | undefined }>, "config" | "candidate">,
  ): Promise<"works" | "refused"> {
    const login = loginOf(step.candidate);
    if (login === undefined) return "refused";
    const { logins } = await this.#open(step.config.target);
    try {
      await logins.tryLogin(login.username, login.password, step.config.database);
      return "works";
    } catch (error) {
      if (isReason(error, "TARGET_MISCONFIGURED") && error.metadata["problem"] === "authentication_failed") return "refused";
      throw error;
    }
  }

  async #open(name: string): Promise<{ readonly logins: StaticLogins; readonly clockSkewMs: number }> {
    const record = this.#host.catalog.target(name) ?? (await this.#host.catalog.refreshTarget(name));
    if (record === undefined) throw misfit("target_not_found");
    if (record.engine !== this.#engine) throw misfit("wrong_engine");
    const target = await this.#host.targets.open(record.uid);
    if (target.staticLogins === undefined) throw misfit("wrong_engine");
    const { clockSkewMs, inRecovery } = await target.identify();
    // A standby has the logins and takes no change; a login tried there would prove nothing.
    if (inRecovery) throw new LeaseholdError("TARGET_UNAVAILABLE", "target: in_recovery", { metadata: { problem: "in_recovery" } });
    return { logins: target.staticLogins, clockSkewMs };
  }
}

function misfit(problem: string): LeaseholdError {
  return new LeaseholdError("TARGET_MISCONFIGURED", `rotation: ${problem}`, { metadata: { problem } });
}
