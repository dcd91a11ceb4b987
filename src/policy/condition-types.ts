import { CelScalar, listType, mapType, objectType, type CelType, type parse } from "@bufbuild/cel";
import { DurationSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { CONDITION_ENV } from "./condition.ts";

/**
 * Works out the type of a condition. The library's own checker knows constants and names only (0.6.1), but it publishes the
 * signature of every function, so what is left is to resolve overloads. Types we can't know are `dyn`, which fits everything.
 */
export type Expr = ReturnType<typeof parse>["expr"];

/** A constant text: why the condition is refused. */
export class ConditionProblem extends Error {}

const { BOOL, BYTES, DOUBLE, DYN, INT, NULL, STRING, UINT } = CelScalar;
const DURATION = objectType(DurationSchema);
const TIMESTAMP = objectType(TimestampSchema);
const NUMBERS = new Set(["int", "uint", "double"]);

/** What conditions see; src/policy/README.md says the same in words. */
const FIELDS: Readonly<Record<string, ReadonlyMap<string, CelType>>> = {
  request: new Map<string, CelType>([
    ["path", STRING],
    ["capability", STRING],
    ["ttl", DURATION],
    ["method", STRING],
    ["version", INT],
  ]),
  principal: new Map<string, CelType>([
    ["id", STRING],
    ["trust_domain", STRING],
    ["segments", listType(STRING)],
    ["captures", mapType(STRING, STRING)],
  ]),
};
const GLOBALS = new Map<string, CelType>([
  ["request", mapType(STRING, DYN)],
  ["principal", mapType(STRING, DYN)],
  ["now", TIMESTAMP],
]);

/** The type of `expr`. Throws ConditionProblem. */
export function typeOf(expr: Expr | undefined, scope: ReadonlyMap<string, CelType> = GLOBALS): CelType {
  const kind = expr?.exprKind;
  switch (kind?.case) {
    case "constExpr":
      return constantType(kind.value.constantKind.case);
    case "identExpr":
      return scope.get(kind.value.name) ?? fail("it names something that does not exist");
    case "selectExpr":
      return selectType(kind.value.operand, kind.value.field, kind.value.testOnly, scope);
    case "callExpr": {
      const { target, args } = kind.value;
      return callType(
        kind.value.function,
        target && typeOf(target, scope),
        args.map((arg) => typeOf(arg, scope)),
      );
    }
    case "listExpr":
      return listType(common(kind.value.elements.map((element) => typeOf(element, scope))));
    case "structExpr": {
      if (kind.value.messageName !== "") return fail("it builds a message");
      const entries = kind.value.entries;
      for (const { keyKind } of entries) if (keyKind.case === "mapKey") typeOf(keyKind.value, scope);
      return mapType(DYN, common(entries.map((entry) => typeOf(entry.value, scope))));
    }
    case "comprehensionExpr": {
      const { iterRange, iterVar, accuVar, accuInit, loopStep, loopCondition, result } = kind.value;
      const inner = new Map(scope);
      inner.set(accuVar, typeOf(accuInit, scope));
      inner.set(iterVar, elementType(typeOf(iterRange, scope)));
      typeOf(loopCondition, inner);
      typeOf(loopStep, inner);
      return typeOf(result, inner);
    }
    default:
      return fail("it is not a complete expression");
  }
}

function selectType(operand: Expr | undefined, field: string, testOnly: boolean, scope: ReadonlyMap<string, CelType>): CelType {
  const type = typeOf(operand, scope);
  const name = operand?.exprKind.case === "identExpr" ? operand.exprKind.value.name : "";
  const fields = scope.get(name) === GLOBALS.get(name) && Object.hasOwn(FIELDS, name) ? FIELDS[name] : undefined;
  if (fields !== undefined && !fields.has(field)) return fail("it reads a field that request or principal does not have");
  if (type.kind !== "map" && type !== DYN) return fail("it reads a field of something that has none");
  if (testOnly) return BOOL;
  return fields?.get(field) ?? (type.kind === "map" ? type.value : DYN);
}

function callType(name: string, target: CelType | undefined, args: readonly CelType[]): CelType {
  const [a = DYN, b = DYN, c = DYN] = args;
  switch (name) {
    case "_&&_":
    case "_||_":
      return args.every((arg) => fits(arg, BOOL)) ? BOOL : fail("an operand of && or || is no bool");
    case "@not_strictly_false":
      return BOOL;
    case "_?_:_":
      return fits(a, BOOL) ? common([b, c]) : fail("the condition of ?: is no bool");
    case "_[_]":
      return a.kind === "list" ? a.element : a.kind === "map" ? a.value : a === DYN ? DYN : fail("it indexes something that is no list or map");
    case "_==_":
    case "_!=_":
      return fits(a, b) || (NUMBERS.has(a.name) && NUMBERS.has(b.name)) ? BOOL : fail("it compares different types");
  }
  const group = CONDITION_ENV.funcs.find(name) ?? fail("it calls a function that does not exist");
  const results = [...group]
    .filter((f) => (f.target === undefined) === (target === undefined) && f.arguments.length === args.length)
    .filter((f) => (target === undefined || fits(target, f.target ?? DYN)) && f.arguments.every((type, i) => fits(args[i] ?? DYN, type)))
    .map((f) => f.result);
  return results.length === 0 ? fail("no function fits the types of its arguments") : common(results);
}

/** True when a value of one type may be one of the other. */
function fits(a: CelType, b: CelType): boolean {
  if (a === DYN || b === DYN) return true;
  if (a.kind === "list" && b.kind === "list") return fits(a.element, b.element);
  if (a.kind === "map" && b.kind === "map") return fits(a.key, b.key) && fits(a.value, b.value);
  return a.kind === b.kind && a.name === b.name;
}

function common(types: readonly CelType[]): CelType {
  const [first, ...rest] = types;
  return first !== undefined && rest.every((type) => type.kind === first.kind && type.toString() === first.toString()) ? first : DYN;
}

function elementType(range: CelType): CelType {
  if (range.kind === "list") return range.element;
  if (range.kind === "map") return range.key;
  return range === DYN ? DYN : fail("it loops over something that is no list or map");
}

function constantType(kind: string | undefined): CelType {
  switch (kind) {
    case "boolValue":
      return BOOL;
    case "bytesValue":
      return BYTES;
    case "doubleValue":
      return DOUBLE;
    case "int64Value":
      return INT;
    case "nullValue":
      return NULL;
    case "stringValue":
      return STRING;
    case "uint64Value":
      return UINT;
    default:
      return fail("it has a constant of an unknown kind");
  }
}

function fail(problem: string): never {
  throw new ConditionProblem(problem);
}
