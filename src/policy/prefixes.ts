import type { PathScope } from "../model/path.ts";
import type { RuleCell } from "./rule.ts";
import type { RuleNode } from "./walk.ts";

/** More scopes than this become the folder above them: SQL gets a bounded list, and decides every row anew anyway. */
const MAX_SCOPES_OF_FOLDER = 64;

/**
 * Scopes outside of which no rule could allow the capability. An over-approximation: denies, conditions and what stands behind a
 * wildcard are left to the decision on each row.
 */
export function prefixesOf(roots: readonly RuleNode[], own: readonly string[], bit: number): PathScope[] {
  const byFolder = new Map<string, PathScope>();
  // Root names are few and none is a wildcard, so the list never becomes "everything".
  const names = new Set(roots.flatMap((root) => [...root.literals()].map(([name]) => name)));
  for (const name of names) {
    const nodes = roots.flatMap((root) => root.literal(name) ?? []);
    for (const scope of scopesBelow(nodes, name, own, bit)) byFolder.set(scope.prefix, scope);
  }
  return [...byFolder.values()].filter((scope) => !isCovered(scope, byFolder)).toSorted((a, b) => (a.prefix < b.prefix ? -1 : 1));
}

/** Scopes at `path` and below; the nodes are those that the path leads to. */
function scopesBelow(nodes: readonly RuleNode[], path: string, own: readonly string[], bit: number): PathScope[] {
  const able = nodes.filter((node) => (node.reach & bit) !== 0);
  if (able.length === 0) return [];
  const folder: PathScope = { prefix: `${path}/`, exact: false };
  const scopes: PathScope[] = able.some((node) => grants(node.here, bit)) ? [{ prefix: path, exact: true }] : [];
  if (able.some((node) => hasWildcard(node, bit))) return [...scopes, folder];
  const children = new Map<string, RuleNode[]>();
  for (const node of able) {
    for (const [segment, child] of childrenOf(node, own)) {
      if (!reaches(child, bit)) continue;
      const same = children.get(segment);
      if (same !== undefined) same.push(child);
      else children.set(segment, [child]);
      if (children.size > MAX_SCOPES_OF_FOLDER) return [...scopes, folder];
    }
  }
  const deeper: PathScope[] = [];
  for (const [segment, same] of children) {
    deeper.push(...scopesBelow(same, `${path}/${segment}`, own, bit));
    if (deeper.length > MAX_SCOPES_OF_FOLDER) return [...scopes, folder];
  }
  return [...scopes, ...deeper];
}

function* childrenOf(node: RuleNode, own: readonly string[]): Generator<readonly [string, RuleNode]> {
  yield* node.literals();
  for (const [position, child] of node.wild?.bounds ?? []) {
    const segment = own[position];
    if (segment !== undefined) yield [segment, child];
  }
}

function grants(cell: RuleCell | undefined, bit: number): boolean {
  return cell !== undefined && ((cell.allow & bit) !== 0 || cell.conditional.some((entry) => (entry.allow & bit) !== 0));
}

function reaches(node: RuleNode | undefined, bit: number): boolean {
  return node !== undefined && (node.reach & bit) !== 0;
}

function hasWildcard({ wild }: RuleNode, bit: number): boolean {
  if (wild === undefined) return false;
  return grants(wild.below, bit) || reaches(wild.star, bit) || [...wild.globs.values()].some(([, child]) => reaches(child, bit));
}

/** True when a folder above it is in the list too. */
function isCovered(scope: PathScope, all: ReadonlyMap<string, PathScope>): boolean {
  for (let slash = scope.prefix.indexOf("/"); slash >= 0 && slash < scope.prefix.length - 1; slash = scope.prefix.indexOf("/", slash + 1)) {
    if (all.has(scope.prefix.slice(0, slash + 1))) return true;
  }
  return false;
}
