import type { PolicyDecision } from "../model/policy.ts";
import type { CompiledPolicy, Variant } from "./compile.ts";
import type { Question } from "./condition.ts";
import { allows, decideOn, denies, outcomeOf } from "./decide.ts";
import { nearestBelow } from "./nearest.ts";
import { bitOf, type RuleEntry } from "./rule.ts";
import type { RuleSet } from "./rule-set.ts";
import { walk } from "./walk.ts";

export interface Explanation {
  readonly decision: PolicyDecision;
  readonly decidingRule: ExplainedRule | undefined;
  /** The rules that came nearest to allowing it, best first; empty unless the decision is `none`. */
  readonly nearestRules: readonly ExplainedRule[];
}

export interface ExplainedRule {
  readonly policy: string;
  readonly ruleIndex: number;
  readonly effect: "allow" | "deny";
  /** The path pattern as written. */
  readonly path: string;
  /** `none`: the rule has no condition, or it was not asked. */
  readonly condition: "true" | "false" | "error" | "none";
  /** What kept it from deciding; undefined for the deciding rule. */
  readonly lacked: Lack | undefined;
}

export type Lack =
  | { readonly kind: "condition" }
  | { readonly kind: "capability" }
  /** The path departs from the pattern at this segment, counted from 0; beyond the path's last: the path is too short. */
  | { readonly kind: "path"; readonly segment: number }
  /** The rule is for others. */
  | { readonly kind: "principal" };

const MAX_NEAREST = 5;

/** Explains with the very trie that decides, so it can't tell another story than the decision. */
export function explainOn(set: RuleSet, policies: Iterable<CompiledPolicy>, question: Question): Explanation {
  const bit = bitOf(question.capability);
  const decision = decideOn(set.roots, question);
  const entries = matching(set.variants, question);
  if (decision !== "none") {
    const entry = entries.find((each) =>
      decision === "deny" ? (each.deny & bit) !== 0 && denies(outcomeOf(each, question)) : (each.allow & bit) !== 0 && allows(outcomeOf(each, question)),
    );
    return { decision, decidingRule: entry && explained(entry, decision, question), nearestRules: [] };
  }
  return { decision, decidingRule: undefined, nearestRules: nearest(set, policies, entries, bit, question) };
}

/** From near to far: the condition, the capability, the path, the principal. */
function nearest(set: RuleSet, policies: Iterable<CompiledPolicy>, entries: readonly RuleEntry[], bit: number, question: Question): ExplainedRule[] {
  const found: ExplainedRule[] = [];
  for (const entry of entries) if ((entry.allow & bit) !== 0) found.push(explained(entry, "allow", question, { kind: "condition" }));
  for (const entry of entries) {
    if ((entry.allow & ~bit) !== 0 && (entry.allow & bit) === 0) found.push({ ...explained(entry, "allow", undefined), lacked: { kind: "capability" } });
  }
  if (found.length < MAX_NEAREST) {
    const near = set.variants.flatMap((variant) => nearestBelow(variant.root, question, bit) ?? []);
    near.sort((a, b) => b.segment - a.segment);
    for (const { entry, segment } of near) found.push({ ...explained(entry, "allow", undefined), lacked: { kind: "path", segment } });
  }
  if (found.length < MAX_NEAREST) {
    for (const entry of ofOthers(set, policies, bit, question)) found.push({ ...explained(entry, "allow", undefined), lacked: { kind: "principal" } });
  }
  return found.slice(0, MAX_NEAREST);
}

function* ofOthers(set: RuleSet, policies: Iterable<CompiledPolicy>, bit: number, question: Question): Generator<RuleEntry> {
  const own = new Set(set.variants.map((variant) => variant.policy));
  let count = 0;
  for (const { document, grants } of policies) {
    const variant = grants[0]?.variant;
    if (own.has(document.name) || variant === undefined) continue;
    const entry = matching([variant], question).find((each) => (each.allow & bit) !== 0);
    if (entry === undefined) continue;
    yield entry;
    if (++count === MAX_NEAREST) return;
  }
}

/** The entries whose principal and path match, in the order of policies and rules. */
function matching(variants: readonly Variant[], question: Question): RuleEntry[] {
  const segments = question.path.split("/");
  return variants.flatMap((variant) => {
    const found: RuleEntry[] = [];
    walk(variant.root, segments, 0, question.principal.segments, 0, (cell) => {
      for (const entry of cell.entries) found.push(entry);
    });
    return found.sort((a, b) => a.ruleIndex - b.ruleIndex);
  });
}

function explained(entry: RuleEntry, effect: "allow" | "deny", question: Question | undefined, lacked?: Lack): ExplainedRule {
  const { policy, ruleIndex, path } = entry;
  const condition = entry.condition === undefined || question === undefined ? "none" : outcomeOf(entry, question);
  return { policy, ruleIndex, effect, path, condition, lacked };
}
