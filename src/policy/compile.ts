import { LeaseholdError } from "../base/errors.ts";
import type { PolicyDocument } from "../model/policy.ts";
import { Condition } from "./condition.ts";
import { capturePositions, parsePathPattern, parsePrincipalPattern, type PrincipalPattern, type Step } from "./pattern.ts";
import { bitsOf, newRuleCell, type RuleCell, type RuleEntry } from "./rule.ts";
import type { Work } from "./slices.ts";
import { TrieEditor } from "./trie.ts";
import type { TrieStep } from "./trie-node.ts";
import type { RuleNode } from "./walk.ts";

export interface CompiledPolicy {
  readonly document: PolicyDocument;
  /** Who gets which variant. */
  readonly grants: readonly Grant[];
}

export interface Grant {
  /** Trust domain, then the path's segments. */
  readonly principal: readonly TrieStep[];
  readonly variant: Variant;
}

/**
 * A policy's rules for one way of binding captures to SPIFFE segments. Principal patterns that bind alike (or bind nothing) share
 * one, and every caller does: a capture is compared with the caller's own segment while the trie is walked.
 */
export interface Variant {
  readonly policy: string;
  readonly rules: readonly RuleEntry[];
  readonly root: RuleNode;
}

/** Compiles a document that was checked when it was written. Throws INTERNAL, compiling nothing, for one that this version can't read. */
export function* compilePolicy(document: PolicyDocument): Work<CompiledPolicy> {
  const conditions = new Map<string, Condition>();
  const variants = new Map<string, Variant>();
  const grants: Grant[] = [];
  for (const text of document.principals) {
    const pattern = parsed<PrincipalPattern>(parsePrincipalPattern(text), document);
    const captures = capturePositions(pattern.steps);
    const key = JSON.stringify(captures);
    const variant = variants.get(key) ?? (yield* compileVariant(document, captures, conditions));
    variants.set(key, variant);
    grants.push({ principal: [pattern.trustDomain, ...pattern.steps.map(anySegment)], variant });
    yield;
  }
  return { document, grants };
}

function* compileVariant(document: PolicyDocument, captures: RuleEntry["captures"], conditions: Map<string, Condition>): Work<Variant> {
  const rules: RuleEntry[] = [];
  const positions = new Map(captures);
  const editor = new TrieEditor<RuleEntry, RuleCell>(undefined, newRuleCell);
  for (const [ruleIndex, rule] of document.rules.entries()) {
    const allow = bitsOf(rule.allow);
    const deny = bitsOf(rule.deny);
    const condition = rule.when ? (conditions.get(rule.when) ?? new Condition(rule.when)) : undefined;
    if (condition !== undefined) conditions.set(condition.text, condition);
    for (const path of rule.paths) {
      const steps = bindSteps(parsed<readonly Step[]>(parsePathPattern(path), document), positions);
      const entry: RuleEntry = { policy: document.name, ruleIndex, path, steps, allow, deny, condition, captures };
      rules.push(entry);
      editor.insert(steps, entry, allow | deny);
      yield;
    }
  }
  return { policy: document.name, rules, root: editor.root };
}

function bindSteps(steps: readonly Step[], positions: ReadonlyMap<string, number>): readonly TrieStep[] {
  return steps.map((step) => {
    if (typeof step === "string" || step.kind !== "capture") return step;
    const position = positions.get(step.name);
    if (position === undefined) throw new LeaseholdError("INTERNAL", "a stored policy has an unbound capture");
    return { kind: "bound", position };
  });
}

/** In a principal a capture matches any segment; what it bound is read from the caller's segments. */
function anySegment(step: Step): TrieStep {
  return typeof step !== "string" && step.kind === "capture" ? { kind: "star" } : step;
}

function parsed<T extends object>(result: T | string, document: PolicyDocument): T {
  if (typeof result === "string") throw new LeaseholdError("INTERNAL", `the stored policy ${document.name} has a pattern this version does not read: ${result}`);
  return result;
}
