import type { Principal } from "../model/principal.ts";
import { stepsOf } from "./bind.ts";
import type { Variant } from "./compile.ts";
import { newRuleCell, type RuleCell, type RuleEntry } from "./rule.ts";
import type { Work } from "./slices.ts";
import { TrieEditor } from "./trie.ts";
import type { RuleNode } from "./walk.ts";

/**
 * All rules of the callers who match the same policies. A few variants are walked one after the other; more of them are merged into
 * one trie, in slices and off the hot path. Until that is done a decision walks each: slower, never different.
 */
export const MAX_WALKED = 4;

export class RuleSet {
  readonly key: string;
  readonly variants: readonly Variant[];
  /** Some caller who has this set: whom to ask for its successor after a change. */
  readonly sample: Principal;
  readonly weight: number;
  #roots: readonly RuleNode[];
  #merged = false;

  constructor(key: string, variants: readonly Variant[], sample: Principal) {
    this.key = key;
    this.variants = variants;
    this.sample = sample;
    this.weight = variants.reduce((sum, variant) => sum + variant.rules.length, 0);
    this.#roots = variants.map((variant) => variant.root);
  }

  get roots(): readonly RuleNode[] {
    return this.#roots;
  }

  get needsMerge(): boolean {
    return !this.#merged && this.variants.length > MAX_WALKED;
  }

  /** Merges, starting from the merged trie of `base` where that is the shorter way. */
  *merge(base?: RuleSet): Work<void> {
    const gone = new Set(base?.variants).difference(new Set(this.variants));
    const goneRules = [...gone].reduce((sum, variant) => sum + variant.rules.length, 0);
    const from = base !== undefined && base.#merged && goneRules < this.weight / 2 ? base : undefined;
    const editor = new TrieEditor<RuleEntry, RuleCell>(from?.roots[0], newRuleCell);
    if (from !== undefined) {
      for (const variant of gone) {
        const entries = new Set(variant.rules);
        for (const entry of variant.rules) {
          editor.remove(stepsOf(entry), entries);
          yield;
        }
      }
    }
    for (const variant of new Set(this.variants).difference(new Set(from?.variants))) {
      for (const entry of variant.rules) {
        editor.insert(stepsOf(entry), entry, entry.allow | entry.deny);
        yield;
      }
    }
    this.#roots = [editor.root];
    this.#merged = true;
  }
}
