import type { PreflightCheck, Target } from "../../engines/engine.ts";
import type { StaticLogin } from "../../engines/static-login.ts";
import { LeaseholdError } from "../../base/errors.ts";

/** A throw-away login through its whole life, and whether the passwords that rotations set there may be set. */
export async function testTargetNow(
  target: Target<unknown>,
  roleConfig: object | undefined,
  logins: readonly StaticLogin[],
): Promise<readonly PreflightCheck[]> {
  const checks = await target.preflight(roleConfig);
  const connected = checks.find((check) => check.name === "connect")?.ok !== false;
  return connected && logins.length > 0 ? [...checks, ...(await checkLogins(target, logins))] : checks;
}

async function checkLogins({ staticLogins }: Target<unknown>, logins: readonly StaticLogin[]): Promise<readonly PreflightCheck[]> {
  if (staticLogins === undefined)
    return [{ name: "static_logins", ok: false, detail: "rotations name logins of this target, and the broker can't set passwords there" }];
  try {
    return await staticLogins.check(logins);
  } catch (error) {
    if (!(error instanceof LeaseholdError)) throw error;
    const problem = error.metadata["problem"] ?? error.reason;
    return [{ name: "static_logins", ok: false, detail: `the logins that rotations set could not be looked at: ${problem}` }];
  }
}
