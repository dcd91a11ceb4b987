import type { PasswordPolicyConfig } from "../../model/target.ts";
import { policyViolations, roleNameViolations, targetViolations } from "../checks.ts";
import type { RotatorDefinition } from "../rotator.ts";
import { loginOf, loginToSet, SETTING, TAKING_BACK, TargetLogins, withLogin } from "../target-logins.ts";

export interface PostgresSingleUserConfig {
  readonly target: string;
  readonly username: string;
  /** Where it is tried; undefined: the target's own. */
  readonly database: string | undefined;
  readonly passwordPolicy: PasswordPolicyConfig | undefined;
}

/** One login gets a new password: between `set` and the move of CURRENT, the value that applications have does not log in. Sessions that are open go on. */
export const postgresSingleUser: RotatorDefinition<PostgresSingleUserConfig> = {
  name: "postgres_single_user",
  abilities: { candidateFromOutside: false, overlap: false, fencing: true, startsFromNothing: true, touchesOutside: true },
  check: ({ target, username, database, passwordPolicy }) => [
    ...targetViolations(target),
    ...roleNameViolations("username", username),
    ...(database === undefined ? [] : roleNameViolations("database", database)),
    ...policyViolations(passwordPolicy),
  ],
  target: ({ target }) => target,
  logins: ({ username }) => [{ name: username }],
  needs: ({ target }) => [{ capability: "operate", path: `targets/${target}` }],
  open(host) {
    const logins = new TargetLogins(host, "postgres");
    return {
      create: async ({ config, current }) => ({ data: withLogin(current, config.username, config.passwordPolicy) }),
      async set(step) {
        const login = loginToSet(step.candidate, [step.config.username]);
        await logins.setPassword(step, SETTING, { login: { name: login.username }, password: login.password, keep: undefined });
      },
      test: (step) => logins.test(step),
      /** Whoever has CURRENT gets in again. */
      async discard(step) {
        const [current, candidate] = [loginOf(step.current), loginOf(step.candidate)];
        if (candidate?.username !== step.config.username || current?.username !== candidate.username) return;
        await logins.setPassword(step, TAKING_BACK, { login: { name: current.username }, password: current.password, keep: undefined });
      },
    };
  },
};
