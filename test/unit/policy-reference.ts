import type { Capability } from "../../src/model/capability.ts";
import type { PolicyDecision, PolicyDocument } from "../../src/model/policy.ts";
import type { Principal } from "../../src/model/principal.ts";

/** The engine's meaning, written as plainly as possible and sharing no code with it: every rule of every policy, one after the other. */
export interface Asked {
  readonly principal: Principal;
  readonly capability: Capability;
  readonly path: string;
  readonly ttlMs?: number | undefined;
}

/** Conditions that the reference knows, as predicates; undefined is an error. */
export const CONDITIONS: Readonly<Record<string, (asked: Asked, captures: Record<string, string>) => boolean | undefined>> = {
  'request.ttl <= duration("1h")': ({ ttlMs }) => (ttlMs === undefined ? undefined : ttlMs <= 3_600_000),
  'request.capability == "read"': ({ capability }) => capability === "read",
  'principal.captures.ns == "a"': (_, captures) => (captures["ns"] === undefined ? undefined : captures["ns"] === "a"),
  "principal.segments[2] == principal.segments[1]": ({ principal }) =>
    principal.segments.length < 3 ? undefined : principal.segments[2] === principal.segments[1],
};

export function referenceDecision(policies: readonly PolicyDocument[], asked: Asked): PolicyDecision {
  let allowed = false;
  for (const policy of policies) {
    for (const pattern of policy.principals) {
      const captures: Record<string, string> = {};
      if (!matches(pattern.replace("spiffe://", "").split("/"), [asked.principal.trustDomain, ...asked.principal.segments], captures, true)) continue;
      for (const rule of policy.rules) {
        const speaks = rule.paths.some((path) => matches(path.split("/"), asked.path.split("/"), captures, false));
        if (!speaks) continue;
        const outcome = rule.when ? CONDITIONS[rule.when]!(asked, captures) : true;
        if (has(rule.deny, asked.capability) && outcome !== false) return "deny";
        if (has(rule.allow, asked.capability) && outcome === true) allowed = true;
      }
    }
  }
  return allowed ? "allow" : "none";
}

function has(names: readonly string[], capability: string): boolean {
  return names.includes("*") || names.includes(capability);
}

function matches(pattern: readonly string[], segments: readonly string[], captures: Record<string, string>, bind: boolean): boolean {
  const [first, ...rest] = pattern;
  const [segment, ...others] = segments;
  if (first === undefined) return segment === undefined;
  if (segment === undefined) return false;
  if (first === "**") return true;
  if (first.startsWith("{")) {
    const name = first.slice(1, -1);
    if (bind) captures[name] = segment;
    else if (captures[name] !== segment) return false;
  } else if (!wild(first, segment)) {
    return false;
  }
  return matches(rest, others, captures, bind);
}

function wild(pattern: string, text: string): boolean {
  if (pattern === "") return text === "";
  if (pattern[0] === "*") return wild(pattern.slice(1), text) || (text !== "" && wild(pattern, text.slice(1)));
  return text !== "" && pattern[0] === text[0] && wild(pattern.slice(1), text.slice(1));
}
