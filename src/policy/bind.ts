import { LeaseholdError } from "../base/errors.ts";
import { parsePathPattern, type Step } from "./pattern.ts";
import type { RuleEntry } from "./rule.ts";
import type { TrieStep } from "./trie-node.ts";

/** The rule's path as the trie takes it: captures bound to the caller's segments. Throws INTERNAL for what can't be read. */
export function stepsOf(entry: RuleEntry): readonly TrieStep[] {
  const steps = parsePathPattern(entry.path);
  if (typeof steps === "string") throw unreadable(entry.policy, steps);
  return steps.some((step) => typeof step !== "string") ? steps.map((step) => bound(step, entry)) : (steps as readonly string[]);
}

/** A document that was checked when it was written and that this version does not understand: nothing is decided without it. */
export function unreadable(policy: string, problem: string): LeaseholdError {
  return new LeaseholdError("INTERNAL", `the stored policy ${policy} has a pattern this version does not read: ${problem}`);
}

function bound(step: Step, entry: RuleEntry): TrieStep {
  if (typeof step === "string" || step.kind !== "capture") return step;
  const capture = entry.captures.find(([name]) => name === step.name);
  if (capture === undefined) throw unreadable(entry.policy, "unbound capture");
  return { kind: "bound", position: capture[1] };
}
