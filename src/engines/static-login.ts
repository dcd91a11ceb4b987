import type { Sensitive } from "../base/sensitive.ts";
import type { PreflightCheck } from "./engine.ts";

/** A login that an application has already. The broker sets its password and nothing else, and only where the target's administrator has allowed it by name. */
export interface StaticLogin {
  readonly name: string;
  /** A NOLOGIN role of the target that the login must be a member of, so that what its twin owns is its own too. Only on PostgreSQL. */
  readonly owner?: string | undefined;
}

export interface PasswordChange {
  readonly login: StaticLogin;
  readonly password: Sensitive;
  /** Passwords that stay valid beside it where the server knows several; `undefined`: all that there are. Elsewhere the new one replaces the old. */
  readonly keep: readonly Sensitive[] | undefined;
  /** Passwords that end, `keep` or not. */
  readonly drop?: readonly Sensitive[];
  /** UUID. A login is one rotation's: another's change is refused for two minutes after the last one, `other_rotation`. */
  readonly rotation: string;
  /** Grows with every candidate of the rotation. For two minutes after a change the target refuses an older one: `generation_passed`. */
  readonly generation: number;
  /** The target changes nothing after this instant of its own clock: `deadline_passed`. At most two minutes ahead, so that the fence outlives it. Unix milliseconds. */
  readonly deadlineAt: number;
}

/**
 * Part of a target whose logins can be rotated. Fails with a LeaseholdError: TARGET_UNAVAILABLE (try again, nothing is known; also `other_rotation`), TARGET_MISCONFIGURED with `problem` `login_missing`, `login_not_allowed`,
 * `login_not_a_member`, `role_protected` (too powerful, or the broker's), `generation_passed`, `authentication_failed`.
 */
export interface StaticLogins {
  /** Sets a password; the same change again is the same as once. Never makes a login, never touches its rights or sessions. */
  setPassword(change: PasswordChange): Promise<void>;
  /** A real login with the password, closed at once. @param database where the engine has some and it is not the target's own. */
  tryLogin(login: string, password: Sensitive, database?: string): Promise<void>;
  /** Whether the passwords of these logins may be set; changes nothing. */
  check(logins: readonly StaticLogin[]): Promise<readonly PreflightCheck[]>;
}
