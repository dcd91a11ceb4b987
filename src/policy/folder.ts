import type { RuleCell } from "./rule.ts";
import { childrenFor, type RuleNode } from "./walk.ts";

/** True when everything below the folder (its segments, without the last slash) is allowed by an unconditional `**` and no rule could deny any of it. */
export function isFolderAllowed(roots: readonly RuleNode[], folder: readonly string[], own: readonly string[], bit: number): boolean {
  let nodes = [...roots];
  let allowed = false;
  for (const segment of [...folder, undefined]) {
    for (const { wild } of nodes) {
      if (mayDeny(wild?.below, bit)) return false;
      allowed ||= wild?.below !== undefined && (wild.below.allow & bit) !== 0;
    }
    if (segment !== undefined) nodes = nodes.flatMap((node) => childrenFor(node, segment, own));
  }
  return allowed && nodes.every((node) => !deniesDeeper(node, bit));
}

/** Any deny strictly below this node. Captures count whatever they are bound to: fail closed. */
function deniesDeeper(node: RuleNode, bit: number): boolean {
  if (mayDeny(node.wild?.below, bit)) return true;
  for (const [, child] of node.literals()) if (deniesFrom(child, bit)) return true;
  for (const child of node.wild?.children() ?? []) if (deniesFrom(child, bit)) return true;
  return false;
}

function deniesFrom(node: RuleNode, bit: number): boolean {
  return (node.reach & bit) !== 0 && (mayDeny(node.here, bit) || deniesDeeper(node, bit));
}

function mayDeny(cell: RuleCell | undefined, bit: number): boolean {
  return cell !== undefined && ((cell.deny & bit) !== 0 || cell.conditional.some((entry) => (entry.deny & bit) !== 0));
}
