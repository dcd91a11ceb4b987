import type { PathScope } from "./path.ts";

/** Paths from `from` (inclusive) to `to` (exclusive), bytewise: what an index scan can do. */
export interface PathRange {
  readonly from: string;
  readonly to: string;
}

/**
 * A scope as a range. Within canonical paths nothing sorts between `p` and `p!` but `p` itself (`!` is below every character a path may
 * have), and everything below the folder `p/` lies before `p0` (`0` follows `/`).
 */
export function rangeOf(scope: PathScope): PathRange {
  if (scope.exact) return { from: scope.prefix, to: `${scope.prefix}!` };
  return { from: scope.prefix, to: `${scope.prefix.slice(0, -1)}0` };
}

/** The parts of `wanted` that lie in any of `allowed`, sorted and merged. */
export function intersectRanges(wanted: PathRange, allowed: readonly PathRange[]): PathRange[] {
  const parts = allowed
    .map((range) => ({ from: later(range.from, wanted.from), to: earlier(range.to, wanted.to) }))
    .filter((range) => range.from < range.to)
    .sort((a, b) => (a.from < b.from ? -1 : 1));
  const merged: PathRange[] = [];
  for (const part of parts) {
    const last = merged.at(-1);
    if (last !== undefined && part.from <= last.to) merged[merged.length - 1] = { from: last.from, to: later(last.to, part.to) };
    else merged.push(part);
  }
  return merged;
}

// Canonical paths are ASCII, so JavaScript's order of strings is the bytewise order of collate "C".
function later(a: string, b: string): string {
  return a > b ? a : b;
}

function earlier(a: string, b: string): string {
  return a < b ? a : b;
}
