import type { PasswordPolicyConfig } from "../../model/target.ts";
import { policyViolations, targetViolations } from "../checks.ts";
import type { RotatorDefinition } from "../rotator.ts";
import { loginOf, loginToSet, SETTING, TAKING_BACK, TargetLogins, withLogin } from "../target-logins.ts";

export interface RedisAclConfig {
  readonly target: string;
  readonly username: string;
  /** End the previous password at once. */
  readonly dropPrevious: boolean;
  readonly passwordPolicy: PasswordPolicyConfig | undefined;
}

/**
 * A Redis user may have several passwords: the candidate is added to those there are, and only at the end what is neither CURRENT nor PREVIOUS is taken away. So the value that applications have works at every moment, and the one before
 * until the next rotation's end.
 */
export const redisAcl: RotatorDefinition<RedisAclConfig> = {
  name: "redis_acl",
  abilities: { candidateFromOutside: false, overlap: true, fencing: true, startsFromNothing: true, touchesOutside: true },
  check: ({ target, username, passwordPolicy }) => [
    ...targetViolations(target),
    ...(/^[\x21-\x7e]{1,128}$/.test(username) ? [] : [{ field: "username", description: "must be 1 to 128 printable ASCII characters" }]),
    ...policyViolations(passwordPolicy),
  ],
  target: ({ target }) => target,
  logins: ({ username }) => [{ name: username }],
  needs: ({ target }) => [{ capability: "operate", path: `targets/${target}` }],
  open(host) {
    const logins = new TargetLogins(host, "redis");
    return {
      create: async ({ config, current }) => ({ data: withLogin(current, config.username, config.passwordPolicy) }),
      async set(step) {
        const login = loginToSet(step.candidate, [step.config.username]);
        await logins.setPassword(step, SETTING, { login: { name: login.username }, password: login.password, keep: undefined });
      },
      test: (step) => logins.test(step),
      async finish(step) {
        const [login, previous] = [loginToSet(step.candidate, [step.config.username]), loginOf(step.previous)];
        // Before the first rotation the ledger did not know what applications log in with: it lives until the next one.
        if (previous?.username !== login.username) return;
        const keep = step.config.dropPrevious ? [] : [previous.password];
        await logins.setPassword(step, SETTING, { login: { name: login.username }, password: login.password, keep });
      },
      async discard(step) {
        const [current, candidate] = [loginOf(step.current), loginOf(step.candidate)];
        if (candidate?.username !== step.config.username || current?.username !== candidate.username) return;
        await logins.setPassword(step, TAKING_BACK, {
          login: { name: current.username },
          password: current.password,
          keep: undefined,
          drop: [candidate.password],
        });
      },
    };
  },
};
