import { isSegment, ROOTS } from "../model/path.ts";

/**
 * Patterns are lists of segments, matched segment by segment: never a glob over the joined text (lesson 46).
 * A literal is a plain string; the others are objects.
 */
export type Step = string | Star | Deep | Glob | Capture;

/** `*`: any one segment. */
export interface Star {
  readonly kind: "star";
}
/** `**`, only last: one or more segments. `secrets/a/**` is everything below `secrets/a`, not `secrets/a` itself. */
export interface Deep {
  readonly kind: "deep";
}
/** `payments-*`: one segment of that form; a star in it stands for any characters, or none. */
export interface Glob {
  readonly kind: "glob";
  readonly text: string;
  /** What stands between the stars. */
  readonly parts: readonly string[];
}
/** `{ns}`: in a principal it binds one whole segment, in a path it stands for that value, as a literal. */
export interface Capture {
  readonly kind: "capture";
  readonly name: string;
}

export interface PrincipalPattern {
  readonly trustDomain: string;
  readonly steps: readonly Step[];
}

const SCHEME = "spiffe://";
const STAR: Star = { kind: "star" };
const DEEP: Deep = { kind: "deep" };
const TRUST_DOMAIN = /^[a-z0-9][a-z0-9._-]{0,254}$/;
const CAPTURE = /^\{([a-z][a-z0-9_]{0,31})\}$/;
const GLOB = /^[A-Za-z0-9._*-]+$/;

export const MAX_PRINCIPAL_BYTES = 2048;
export const MAX_PATH_BYTES = 512;
export const MAX_SEGMENTS = 32;
/** Bounds the branches that one decision can follow. */
export const MAX_WILDCARDS = 8;

/** The pattern, or what is wrong with it (a constant text). */
export function parsePrincipalPattern(text: string): PrincipalPattern | string {
  if (text.length > MAX_PRINCIPAL_BYTES) return "longer than 2048 bytes";
  if (!text.startsWith(SCHEME)) return "must start with spiffe://";
  const [trustDomain, ...segments] = text.slice(SCHEME.length).split("/");
  if (trustDomain === undefined || !TRUST_DOMAIN.test(trustDomain)) return "the trust domain must be a literal in lower case";
  const steps = parseSteps(segments);
  if (typeof steps === "string") return steps;
  const names = captureNames(steps);
  return new Set(names).size < names.length ? "a capture is bound twice" : { trustDomain, steps };
}

/** The pattern, or what is wrong with it (a constant text). */
export function parsePathPattern(text: string): readonly Step[] | string {
  if (text.length > MAX_PATH_BYTES) return "longer than 512 bytes";
  const segments = text.split("/");
  if (!(ROOTS as readonly string[]).includes(segments[0]!)) return "the first segment must be a known root, such as secrets";
  if (segments.length < 2) return "must have at least two segments";
  return parseSteps(segments);
}

export function captureNames(steps: readonly Step[]): string[] {
  return steps.flatMap((step) => (typeof step !== "string" && step.kind === "capture" ? [step.name] : []));
}

/** Names and places, in order of place: how a principal pattern binds. */
export function capturePositions(steps: readonly Step[]): readonly (readonly [name: string, position: number])[] {
  return steps.flatMap((step, i) => (typeof step !== "string" && step.kind === "capture" ? [[step.name, i] as const] : []));
}

export function matchesGlob(glob: Glob, segment: string): boolean {
  const { parts } = glob;
  const first = parts[0]!;
  const last = parts[parts.length - 1]!;
  const end = segment.length - last.length;
  if (end < first.length || !segment.startsWith(first) || !segment.endsWith(last)) return false;
  let at = first.length;
  for (let i = 1; i < parts.length - 1; i++) {
    const found = segment.indexOf(parts[i]!, at);
    if (found < 0 || found + parts[i]!.length > end) return false;
    at = found + parts[i]!.length;
  }
  return true;
}

function parseSteps(segments: readonly string[]): readonly Step[] | string {
  if (segments.length === 0) return "must have at least one segment";
  if (segments.length > MAX_SEGMENTS) return "more than 32 segments";
  const steps: Step[] = [...segments];
  let wildcards = 0;
  for (let i = 0; i < segments.length; i++) {
    const step = parseStep(segments[i]!, i === segments.length - 1);
    if (!isStep(step)) return step.problem;
    if (typeof step !== "string" && step.kind !== "capture") wildcards++;
    steps[i] = step;
  }
  return wildcards > MAX_WILDCARDS ? "more than 8 wildcards" : steps;
}

function isStep(step: Step | { readonly problem: string }): step is Step {
  return typeof step === "string" || !("problem" in step);
}

function parseStep(segment: string, last: boolean): Step | { readonly problem: string } {
  if (segment === "*") return STAR;
  if (segment === "**") return last ? DEEP : { problem: "** may only stand last" };
  const name = CAPTURE.exec(segment)?.[1];
  if (name !== undefined) return { kind: "capture", name };
  if (segment.includes("{") || segment.includes("}")) return { problem: "a capture must be one whole segment, {name} in lower case, with nothing beside it" };
  if (!segment.includes("*")) return isSegment(segment) ? segment : { problem: "segments are [A-Za-z0-9._-]+, neither empty nor . nor .." };
  if (segment.includes("**") || !GLOB.test(segment)) return { problem: "a wildcard inside a segment is one * among [A-Za-z0-9._-]" };
  return { kind: "glob", text: segment, parts: segment.split("*") };
}
