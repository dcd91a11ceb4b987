import type { Violation } from "../engine.ts";
import { checkServer, type ServerConfig } from "../tls.ts";
import { ruleProblem, unguarded } from "./rules.ts";

/** Where a Redis or Valkey target is, and as whom the broker goes there. The password is kept apart. */
export interface RedisTargetConfig extends ServerConfig {
  /** ACL users of applications whose passwords rotations may set; undefined: none. */
  readonly allowLogins?: readonly string[] | undefined;
}

export interface RedisRoleConfig {
  /** Tokens of ACL SETUSER, in order. See rules.ts for what they may be. */
  readonly rules: readonly string[];
}

const MAX_RULES = 64;

export function checkTargetConfig(config: RedisTargetConfig): readonly Violation[] {
  const { allowLogins = [], username } = config;
  return [
    ...checkServer(config, 128),
    ...allowLogins.flatMap((name, index) => (isStatic(name, username) ? [] : [{ field: `allow_logins[${index}]`, description: NOT_STATIC }])),
  ];
}

const NOT_STATIC = "must be 1 to 128 printable ASCII characters, and not the broker's own user, `default`, or one that begins with lh_ or leasehold_";

function isStatic(name: string, broker: string): boolean {
  return /^[\x21-\x7e]{1,128}$/.test(name) && name !== broker && name !== "default" && !/^(lh|leasehold)_/.test(name);
}

export function checkRoleConfig(config: RedisRoleConfig): readonly Violation[] {
  const { rules } = config;
  if (rules.length === 0 || rules.length > MAX_RULES) return [{ field: "rules", description: `must have 1 to ${MAX_RULES} rules` }];
  const violations = rules.flatMap((rule, index) => {
    const description = ruleProblem(rule);
    return description === undefined ? [] : [{ field: `rules[${index}]`, description }];
  });
  const index = unguarded(rules);
  return index === undefined
    ? violations
    : [...violations, { field: `rules[${index}]`, description: "holds commands of administrators: must be followed by -@admin and -@dangerous" }];
}
