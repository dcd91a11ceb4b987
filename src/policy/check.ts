import type { FieldViolation } from "../base/errors.ts";
import { CAPABILITIES } from "../model/capability.ts";
import { isSegment } from "../model/path.ts";
import type { PolicyDocument, PolicyRule } from "../model/policy.ts";
import { isBroadPath, isWildcardPrincipal } from "./broad.ts";
import { checkCondition } from "./condition-check.ts";
import { captureNames, capturePositions, parsePathPattern, parsePrincipalPattern, type PrincipalPattern, type Step } from "./pattern.ts";
import type { Work } from "./slices.ts";

const MAX_NAME = 128;
const MAX_PRINCIPALS = 1000;
const MAX_RULES = 5000;
const MAX_PATHS_OF_RULE = 1000;
/** A policy is replaced whole; this many are compiled without a pause of the garbage collector above some 10 ms. */
const MAX_PATHS = 5000;
/** Each is asked whenever its path and capability match. */
const MAX_CONDITIONAL_RULES = 1000;
/** Ways of binding captures; each is a copy of the rules. */
const MAX_BINDINGS = 8;
const MAX_DESCRIPTION_BYTES = 1024;
/** More would not fit an error's 7 KiB, and nobody reads them. */
const MAX_VIOLATIONS = 50;
const CAPABILITY_NAMES: ReadonlySet<string> = new Set([...CAPABILITIES, "*"]);

/** Everything that is wrong with a document, by its field (`rules[2].paths[0]`); the texts are constants and echo nothing. */
export function* checkPolicy(document: PolicyDocument): Work<FieldViolation[]> {
  const found: FieldViolation[] = [];
  const report = (field: string, description: string): void => {
    if (found.length < MAX_VIOLATIONS) found.push({ field, description });
  };
  if (document.name.length > MAX_NAME || !isSegment(document.name)) report("name", "must be one path segment of at most 128 characters");
  const principals = yield* checkPrincipals(document, report);
  if (document.rules.length === 0) report("rules", "at least one");
  if (document.rules.length > MAX_RULES) report("rules", "more than 5000");
  const paths = document.rules.reduce((sum, rule) => sum + rule.paths.length, 0);
  if (paths > MAX_PATHS) report("rules", "more than 5000 paths in all");
  if (document.rules.filter((rule) => rule.when).length > MAX_CONDITIONAL_RULES) report("rules", "more than 1000 rules with a condition");
  if (found.length > 0 && (document.rules.length > MAX_RULES || paths > MAX_PATHS)) return found;
  const conditions = new Map<string, string | undefined>();
  for (const [i, rule] of document.rules.entries()) {
    yield* checkRule(rule, `rules[${i}]`, document, principals, conditions, report);
    if (found.length >= MAX_VIOLATIONS) break;
    yield;
  }
  return found;
}

type Report = (field: string, description: string) => void;

interface Principals {
  /** Names that every pattern binds. */
  readonly bound: ReadonlySet<string>;
  readonly wildcard: boolean;
}

function* checkPrincipals(document: PolicyDocument, report: Report): Work<Principals> {
  const patterns: PrincipalPattern[] = [];
  if (document.principals.length === 0) report("principals", "at least one");
  if (document.principals.length > MAX_PRINCIPALS) report("principals", "more than 1000");
  for (const [i, text] of document.principals.slice(0, MAX_PRINCIPALS).entries()) {
    const pattern = parsePrincipalPattern(text);
    if (typeof pattern === "string") report(`principals[${i}]`, pattern);
    else patterns.push(pattern);
    yield;
  }
  const names = patterns.map((pattern) => new Set(captureNames(pattern.steps)));
  const bindings = new Set(patterns.map(({ steps }) => JSON.stringify(capturePositions(steps))));
  if (bindings.size > MAX_BINDINGS) report("principals", "captures stand in more than 8 different places: write several policies");
  const bound = names.reduce((all, each) => all.intersection(each), names[0] ?? new Set<string>());
  return { bound, wildcard: patterns.some(isWildcardPrincipal) };
}

function* checkRule(
  rule: PolicyRule,
  field: string,
  document: PolicyDocument,
  principals: Principals,
  conditions: Map<string, string | undefined>,
  report: Report,
): Work<void> {
  if (rule.paths.length === 0) report(`${field}.paths`, "at least one");
  if (rule.paths.length > MAX_PATHS_OF_RULE) report(`${field}.paths`, "more than 1000");
  if (rule.allow.length + rule.deny.length === 0) report(field, "must allow or deny something");
  checkCapabilities(rule.allow, `${field}.allow`, report);
  checkCapabilities(rule.deny, `${field}.deny`, report);
  if (Buffer.byteLength(rule.description ?? "") > MAX_DESCRIPTION_BYTES) report(`${field}.description`, "longer than 1024 bytes");
  for (const [i, text] of rule.paths.slice(0, MAX_PATHS_OF_RULE).entries()) {
    const steps = parsePathPattern(text);
    if (typeof steps === "string") report(`${field}.paths[${i}]`, steps);
    else checkPath(steps, `${field}.paths[${i}]`, rule, document, principals, report);
    yield;
  }
  if (!rule.when) return;
  if (!conditions.has(rule.when)) conditions.set(rule.when, checkCondition(rule.when));
  const problem = conditions.get(rule.when);
  if (problem !== undefined) report(`${field}.when`, problem);
}

function checkPath(steps: readonly Step[], field: string, rule: PolicyRule, document: PolicyDocument, principals: Principals, report: Report): void {
  if (captureNames(steps).some((name) => !principals.bound.has(name))) report(field, "a capture that not every principal of the policy binds");
  if (!document.allowBroad && principals.wildcard && rule.allow.length > 0 && isBroadPath(steps)) {
    report(field, "a wildcard principal with a wildcard path: set allow_broad if that is meant");
  }
}

function checkCapabilities(names: readonly string[], field: string, report: Report): void {
  for (const [i, name] of names.entries()) if (!CAPABILITY_NAMES.has(name)) report(`${field}[${i}]`, "not a capability");
  if (new Set(names).size < names.length) report(field, "names a capability twice");
}
