import type { PrincipalPattern, Step } from "./pattern.ts";

/** Roots whose second segment names a kind (an engine, what is rotated), so that the third is the first that names somebody's own. */
const KIND_SECOND: ReadonlySet<Step> = new Set<Step>(["credentials", "rotations"]);

/** Anything but one exact identity. */
export function isWildcardPrincipal(pattern: PrincipalPattern): boolean {
  return pattern.steps.some((step) => typeof step !== "string");
}

/**
 * A path that does not say whose: `secrets/*` or `secrets/**` at the second segment, `credentials/postgres/**` up to the third.
 * A glob or a capture there does say it.
 */
export function isBroadPath(steps: readonly Step[]): boolean {
  return steps.slice(1, KIND_SECOND.has(steps[0]!) ? 3 : 2).some((step) => typeof step !== "string" && (step.kind === "star" || step.kind === "deep"));
}
