import type { PasswordPolicyConfig } from "../../model/target.ts";
import { policyViolations, roleNameViolations, targetViolations } from "../checks.ts";
import type { RotatorDefinition } from "../rotator.ts";
import { loginOf, loginToSet, SETTING, TargetLogins, withLogin } from "../target-logins.ts";

export interface PostgresAlternatingUsersConfig {
  readonly target: string;
  /** Two, different. */
  readonly usernames: readonly string[];
  /** NOLOGIN; both are its members. */
  readonly owner: string;
  /** Where they are tried; undefined: the target's own. */
  readonly database: string | undefined;
  readonly passwordPolicy: PasswordPolicyConfig | undefined;
}

/**
 * Two logins take turns: a rotation sets the password of the one that is not CURRENT's, and touches CURRENT's never. So CURRENT works at every moment, and PREVIOUS from one rotation's end to the next one's `set`: a client may hold
 * a value for a whole period. A candidate that was given up needs no taking back.
 */
export const postgresAlternatingUsers: RotatorDefinition<PostgresAlternatingUsersConfig> = {
  name: "postgres_alternating_users",
  abilities: { candidateFromOutside: false, overlap: true, fencing: true, startsFromNothing: true, touchesOutside: true },
  check: ({ target, usernames, owner, database, passwordPolicy }) => [
    ...targetViolations(target),
    ...usernames.flatMap((name, i) => roleNameViolations(`usernames[${i}]`, name)),
    ...(usernames.length === 2 && usernames[0] !== usernames[1] ? [] : [{ field: "usernames", description: "must be two different logins" }]),
    ...roleNameViolations("owner", owner),
    ...(usernames.includes(owner) ? [{ field: "owner", description: "must be a role that is none of the two" }] : []),
    ...(database === undefined ? [] : roleNameViolations("database", database)),
    ...policyViolations(passwordPolicy),
  ],
  target: ({ target }) => target,
  logins: ({ usernames, owner }) => usernames.map((name) => ({ name, owner })),
  needs: ({ target }) => [{ capability: "operate", path: `targets/${target}` }],
  open(host) {
    const logins = new TargetLogins(host, "postgres");
    return {
      async create({ config, current }) {
        const [first, second] = config.usernames;
        const turn = loginOf(current)?.username === first ? second : first;
        return { data: withLogin(current, turn!, config.passwordPolicy) };
      },
      async set(step) {
        const login = loginToSet(step.candidate, step.config.usernames);
        await logins.setPassword(step, SETTING, { login: { name: login.username, owner: step.config.owner }, password: login.password, keep: undefined });
      },
      test: (step) => logins.test(step),
    };
  },
};
