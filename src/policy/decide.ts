import type { PolicyDecision } from "../model/policy.ts";
import type { Outcome, Question } from "./condition.ts";
import { bitOf, type RuleCell, type RuleEntry } from "./rule.ts";
import { type RuleNode, walk } from "./walk.ts";

// One decision at a time: deciding is synchronous and calls nothing that could decide again. Kept here, not made anew, for speed.
let allow = 0;
let deny = 0;
const conditional: RuleEntry[] = [];

/** Deny wins wherever it stands; allows add up; nothing said is `none`. */
export function decideOn(roots: readonly RuleNode[], question: Question): PolicyDecision {
  const bit = bitOf(question.capability);
  if (bit === 0) return "none";
  allow = 0;
  deny = 0;
  conditional.length = 0;
  const segments = question.path.split("/");
  for (let i = 0; i < roots.length; i++) walk(roots[i]!, segments, 0, question.principal.segments, bit, take);
  if ((deny & bit) !== 0) return "deny";
  if (conditional.length === 0) return (allow & bit) !== 0 ? "allow" : "none";
  return decideConditions(conditional.splice(0), question, bit, (allow & bit) !== 0);
}

function take(cell: RuleCell): void {
  allow |= cell.allow;
  deny |= cell.deny;
  for (let i = 0; i < cell.conditional.length; i++) conditional.push(cell.conditional[i]!);
}

function decideConditions(entries: readonly RuleEntry[], question: Question, bit: number, allowed: boolean): PolicyDecision {
  for (const entry of entries) if ((entry.deny & bit) !== 0 && denies(outcomeOf(entry, question))) return "deny";
  if (allowed) return "allow";
  return entries.some((entry) => (entry.allow & bit) !== 0 && allows(outcomeOf(entry, question))) ? "allow" : "none";
}

/** An allow needs a plain true. */
export function allows(outcome: Outcome): boolean {
  return outcome === "true";
}

/** A deny is lifted by a plain false only: a condition that errors denies. */
export function denies(outcome: Outcome): boolean {
  return outcome !== "false";
}

export function outcomeOf(entry: RuleEntry, question: Question): Outcome {
  return entry.condition?.evaluate(question, entry.captures) ?? "true";
}
