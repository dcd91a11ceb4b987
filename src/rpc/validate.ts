import { create, type DescField, type DescMessage, type DescMethod, isMessage, type Message } from "@bufbuild/protobuf";
import type { Path } from "@bufbuild/protobuf/reflect";
import { type Duration, DurationSchema, type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { createValidator } from "@bufbuild/protovalidate";
import { type FieldViolation, LeaseholdError } from "../base/errors.ts";
import { surelyValid } from "./validate-hot.ts";

/** Throws REQUEST_INVALID naming the fields. */
export type Validate = (request: Message) => void;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const MAX_SECONDS = 315_576_000_000n;
const FIRST_INSTANT = -62_135_596_800n;
const LAST_INSTANT = 253_402_300_799n;

/** Patterns are ours, from the proto files, so the platform's RegExp is safe, and a cached one is ten times faster than RE2 in JavaScript. */
const patterns = new Map<string, RegExp>();
const validator = createValidator({
  regexMatch(pattern, value) {
    let compiled = patterns.get(pattern);
    if (compiled === undefined) patterns.set(pattern, (compiled = new RegExp(pattern, "u")));
    return compiled.test(value);
  },
});

/** The check of a method's requests: the rules of the proto, UUIDs in `request_id`, and times and durations within protobuf's own limits. */
export function validatorOf(method: DescMethod): Validate {
  const schema = method.input;
  const requestId = schema.fields.find((field) => field.name === "request_id");
  const times = timeFields(schema, 3);
  const hot = surelyValid(schema);
  const check = (request: Message): void => {
    if (hot?.(request) === true) return;
    const violations = broken(schema, request);
    if (requestId !== undefined) {
      const value = valueOf(request, requestId);
      if (value !== "" && !(typeof value === "string" && UUID.test(value))) violations.push({ field: "request_id", description: "must be a UUID" });
    }
    for (const path of times) checkTime(request, path, violations);
    if (violations.length > 0) throw new LeaseholdError("REQUEST_INVALID", undefined, { violations });
  };
  broken(schema, create(schema)); // compiles the rules now: a broken one shall not wait for the first call
  return check;
}

/** The proto's rules alone; exported for the proof that the hot validators agree with them. */
export function broken(schema: DescMessage, request: Message): FieldViolation[] {
  const result = validator.validate(schema, request);
  if (result.kind === "valid") return [];
  if (result.kind === "error") throw result.error;
  return result.violations.map((v) => ({ field: pathText(v.field), description: v.message === "" ? v.ruleId : v.message }));
}

/** Keys of maps are the client's text and may be telling: they are left out. */
function pathText(path: Path): string {
  let text = "";
  for (const step of path) {
    if (step.kind === "list_sub") text += `[${step.index}]`;
    else if (step.kind === "map_sub") text += "[…]";
    else text += `${text === "" ? "" : "."}${step.name}`;
  }
  return text;
}

/** Paths of singular fields that lead to a Timestamp or Duration. */
function timeFields(schema: DescMessage, depth: number): DescField[][] {
  const found: DescField[][] = [];
  for (const field of schema.fields) {
    if (field.fieldKind !== "message") continue;
    const name = field.message.typeName;
    if (name === TimestampSchema.typeName || name === DurationSchema.typeName) found.push([field]);
    else if (depth > 0) for (const rest of timeFields(field.message, depth - 1)) found.push([field, ...rest]);
  }
  return found;
}

function checkTime(request: Message, path: readonly DescField[], violations: FieldViolation[]): void {
  let value: unknown = request;
  for (const field of path) {
    if (!isMessage(value)) return;
    value = valueOf(value, field);
  }
  const field = path.map((step) => step.name).join(".");
  if (isMessage(value, TimestampSchema) && !isInstant(value)) violations.push({ field, description: "must be a time between the years 1 and 9999" });
  if (isMessage(value, DurationSchema) && !isLength(value)) violations.push({ field, description: "must be a well-formed duration" });
}

function isInstant({ seconds, nanos }: Timestamp): boolean {
  return seconds >= FIRST_INSTANT && seconds <= LAST_INSTANT && nanos >= 0 && nanos <= 999_999_999;
}

function isLength({ seconds, nanos }: Duration): boolean {
  const signsAgree = seconds === 0n || nanos === 0 || seconds > 0n === nanos > 0;
  return seconds >= -MAX_SECONDS && seconds <= MAX_SECONDS && Math.abs(nanos) <= 999_999_999 && signsAgree;
}

function valueOf(message: Message, field: DescField): unknown {
  const record = message as unknown as Record<string, unknown>;
  if (field.oneof === undefined) return record[field.localName];
  const one = record[field.oneof.localName] as { case: string | undefined; value?: unknown };
  return one.case === field.localName ? one.value : undefined;
}
