import type { Question } from "./condition.ts";
import type { RuleCell, RuleEntry } from "./rule.ts";
import { childrenFor, type RuleNode } from "./walk.ts";

export interface NearMiss {
  readonly entry: RuleEntry;
  /** How many segments of the path agree with its pattern. */
  readonly segment: number;
}

/** Looks at no more nodes than this: an explanation is worth some milliseconds and no more. */
const MAX_VISITED = 2000;

/** The rule that allows the capability and agrees with the path for the most segments; undefined when none agrees even in its root. */
export function nearestBelow(root: RuleNode, question: Question, bit: number): NearMiss | undefined {
  const segments = question.path.split("/");
  const own = question.principal.segments;
  let level: RuleNode[] = [root];
  let best: NearMiss | undefined;
  const budget = { left: MAX_VISITED };
  for (let at = 0; level.length > 0 && at <= segments.length; at++) {
    if (at > 0) {
      const entry = firstAllowing(level, bit, budget);
      if (entry !== undefined) best = { entry, segment: at };
    }
    const segment = segments[at];
    if (segment === undefined) break;
    level = level.flatMap((node) => childrenFor(node, segment, own)).filter((node) => (node.reach & bit) !== 0);
    level.length = Math.min(level.length, 16);
  }
  return best;
}

/** Some entry at or below these nodes that allows the capability. */
function firstAllowing(nodes: Iterable<RuleNode>, bit: number, budget: { left: number }): RuleEntry | undefined {
  for (const node of nodes) {
    if (budget.left-- <= 0) return undefined;
    if ((node.reach & bit) === 0) continue;
    const entry = allowing(node.here, bit) ?? allowing(node.wild?.below, bit) ?? firstAllowing(childrenOf(node), bit, budget);
    if (entry !== undefined) return entry;
  }
  return undefined;
}

function* childrenOf(node: RuleNode): Generator<RuleNode> {
  yield* node.wild?.children() ?? [];
  for (const [, child] of node.literals()) yield child;
}

function allowing(cell: RuleCell | undefined, bit: number): RuleEntry | undefined {
  return cell?.entries.find((entry) => (entry.allow & bit) !== 0);
}
