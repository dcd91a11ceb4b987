import type { PolicyDocument } from "../model/policy.ts";
import { stepsOf, unreadable } from "./bind.ts";
import { Condition } from "./condition.ts";
import { capturePositions, parsePrincipalPattern, type Step } from "./pattern.ts";
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
    const pattern = parsePrincipalPattern(text);
    if (typeof pattern === "string") throw unreadable(document.name, pattern);
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
  const editor = new TrieEditor<RuleEntry, RuleCell>(undefined, newRuleCell);
  for (const [ruleIndex, rule] of document.rules.entries()) {
    const allow = bitsOf(rule.allow);
    const deny = bitsOf(rule.deny);
    const condition = rule.when ? (conditions.get(rule.when) ?? new Condition(rule.when)) : undefined;
    if (condition !== undefined) conditions.set(condition.text, condition);
    for (const path of rule.paths) {
      const entry: RuleEntry = { policy: document.name, ruleIndex, path, allow, deny, condition, captures };
      rules.push(entry);
      editor.insert(stepsOf(entry), entry, allow | deny);
      yield;
    }
  }
  return { policy: document.name, rules, root: editor.root };
}

/** In a principal a capture matches any segment; what it bound is read from the caller's segments. */
function anySegment(step: Step): TrieStep {
  return typeof step !== "string" && step.kind === "capture" ? { kind: "star" } : step;
}
