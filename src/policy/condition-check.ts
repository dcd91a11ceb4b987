import { parse, plan } from "@bufbuild/cel";
import { CONDITION_ENV } from "./condition.ts";
import { ConditionProblem, typeOf, type Expr } from "./condition-types.ts";

/**
 * What a condition may cost is settled when it is written, for nothing stops it once it runs (finding 14: 252 characters of nested
 * `all` held the event loop for 15.6 s). The bounds: text, nodes, no loop in a loop, loops over short lists only, and a cost in
 * steps, where a regular expression counts 500 (some 0.5 ms at worst) and what stands in a loop counts 100 times.
 */
export const MAX_CONDITION_BYTES = 4096;
const MAX_NODES = 200;
const MAX_LIST = 100;
const MAX_COST = 10_000;
const MAX_NESTING = 32;
/** Spares the parser, which takes some 60 µs a token on first sight, what could not be below 200 nodes anyway. */
const MAX_TOKENS = 600;
const TOKEN = /"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\w+|[^\s\w]/g;
const MATCH_COST = 500;
const ZONE_COST = 100;
const LOOP_FACTOR = 100;
const MAX_PATTERN_CHARACTERS = 128;

/** What is wrong with the condition (a constant text), or undefined. */
export function checkCondition(text: string): string | undefined {
  if (Buffer.byteLength(text) > MAX_CONDITION_BYTES) return "longer than 4096 bytes";
  if ((text.match(TOKEN)?.length ?? 0) > MAX_TOKENS) return "more than 600 tokens";
  if (nesting(text) > MAX_NESTING) return "brackets nested deeper than 32";
  let expr: Expr;
  try {
    expr = parse(text).expr;
  } catch {
    return "not a CEL expression";
  }
  try {
    const seen = { nodes: 0, cost: 0 };
    measure(expr, false, seen);
    if (seen.cost > MAX_COST) return "too costly: a regular expression or a time zone inside a loop, or too many of them";
    if (typeOf(expr).name !== "bool") return "must be of type bool";
    plan(CONDITION_ENV, expr);
    return undefined;
  } catch (error) {
    return error instanceof ConditionProblem ? `does not check: ${error.message}` : "not a CEL expression that can be run";
  }
}

interface Seen {
  nodes: number;
  cost: number;
}

function measure(expr: Expr | undefined, looped: boolean, seen: Seen): void {
  if (expr === undefined) return;
  if (++seen.nodes > MAX_NODES) throw new ConditionProblem("more than 200 nodes, macros written out");
  seen.cost += costOf(expr) * (looped ? LOOP_FACTOR : 1);
  const kind = expr.exprKind;
  switch (kind.case) {
    case "selectExpr":
      return measure(kind.value.operand, looped, seen);
    case "callExpr":
      measure(kind.value.target, looped, seen);
      return kind.value.args.forEach((arg) => measure(arg, looped, seen));
    case "listExpr":
      if (kind.value.elements.length > MAX_LIST) throw new ConditionProblem("a list of more than 100 elements");
      return kind.value.elements.forEach((element) => measure(element, looped, seen));
    case "structExpr":
      for (const { keyKind, value } of kind.value.entries) {
        if (keyKind.case === "mapKey") measure(keyKind.value, looped, seen);
        measure(value, looped, seen);
      }
      return;
    case "comprehensionExpr": {
      if (looped) throw new ConditionProblem("a loop within a loop");
      const { iterRange, accuInit, loopCondition, loopStep, result } = kind.value;
      const range = iterRange?.exprKind.case;
      if (range !== "listExpr" && range !== "structExpr" && range !== "selectExpr") {
        throw new ConditionProblem("a loop over something other than a field or a list that is written out");
      }
      // The range counts as looped too: a loop over a loop's result doubles what it carries each time.
      for (const part of [iterRange, accuInit, loopCondition, loopStep, result]) measure(part, true, seen);
      return;
    }
    default: // constants and names hold nothing further
  }
}

function costOf(expr: Expr): number {
  if (expr.exprKind.case !== "callExpr") return 1;
  const { function: name, target, args } = expr.exprKind.value;
  if (name === "matches") {
    checkPattern(target === undefined ? args[1] : args[0]);
    return MATCH_COST;
  }
  return name.startsWith("get") && args.length > 0 ? ZONE_COST : 1;
}

/** RE2 is linear in text times pattern, and a counted repetition is that many copies of the pattern. */
function checkPattern(pattern: Expr | undefined): void {
  const constant = pattern?.exprKind.case === "constExpr" ? pattern.exprKind.value.constantKind : undefined;
  if (constant?.case !== "stringValue") throw new ConditionProblem("a regular expression that is not written out");
  if (constant.value.length > MAX_PATTERN_CHARACTERS) throw new ConditionProblem("a regular expression of more than 128 characters");
  if (constant.value.includes("{")) throw new ConditionProblem("a regular expression with a counted repetition");
}

/** The deepest nesting of brackets, counting those in strings too: an upper bound that holds before the parser, which recurses. */
function nesting(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (const character of text) {
    if ("([{".includes(character)) deepest = Math.max(deepest, ++depth);
    else if (")]}".includes(character)) depth--;
  }
  return deepest;
}
