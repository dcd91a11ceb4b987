import { matchesGlob } from "./pattern.ts";
import type { RuleCell } from "./rule.ts";
import type { TrieNode } from "./trie-node.ts";

export type RuleNode = TrieNode<RuleCell>;

/**
 * Hands every cell whose pattern matches to `take`. `own` are the caller's SPIFFE segments. With `bit`, branches that never held
 * a rule about that capability are left out; 0 visits them all.
 */
export function walk(node: RuleNode, segments: readonly string[], from: number, own: readonly string[], bit: number, take: (cell: RuleCell) => void): void {
  for (let at = from; (node.reach & bit) === bit; at++) {
    const segment = segments[at];
    if (segment === undefined) {
      if (node.here !== undefined) take(node.here);
      return;
    }
    const { wild } = node;
    if (wild !== undefined) {
      if (wild.below !== undefined) take(wild.below);
      if (wild.star !== undefined) walk(wild.star, segments, at + 1, own, bit, take);
      if (wild.bounds.size > 0) for (const [position, child] of wild.bounds) if (own[position] === segment) walk(child, segments, at + 1, own, bit, take);
      if (wild.globs.size > 0) for (const [glob, child] of wild.globs.values()) if (matchesGlob(glob, segment)) walk(child, segments, at + 1, own, bit, take);
    }
    const next = node.literal(segment);
    if (next === undefined) return;
    node = next;
  }
}

/** The children that a segment leads to, for those who walk level by level. */
export function childrenFor(node: RuleNode, segment: string, own: readonly string[]): RuleNode[] {
  const literal = node.literal(segment);
  const found = literal === undefined ? [] : [literal];
  const { wild } = node;
  if (wild === undefined) return found;
  for (const [position, child] of wild.bounds) if (own[position] === segment) found.push(child);
  for (const [glob, child] of wild.globs.values()) if (matchesGlob(glob, segment)) found.push(child);
  if (wild.star !== undefined) found.push(wild.star);
  return found;
}
