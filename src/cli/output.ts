import { type DescMessage, type JsonValue, type MessageShape, toJson } from "@bufbuild/protobuf";
import { stringify } from "yaml";
import { printable } from "./printable.ts";
import type { Value } from "../gen/leasehold/v1/value_pb.ts";

export type Format = "table" | "json" | "yaml";

/** For programs: JSON or YAML of what the API answered. */
export function printValue(value: unknown, format: "json" | "yaml"): void {
  console.log(format === "json" ? JSON.stringify(value, undefined, 2) : stringify(value).trimEnd());
}

/** For people: aligned columns under their heads. */
export function printTable(heads: readonly string[], rows: readonly (readonly string[])[]): void {
  const all = [heads.map((head) => head.toUpperCase()), ...rows.map((row) => row.map(printable))];
  const widths = heads.map((_, column) => Math.max(...all.map((row) => (row[column] ?? "").length)));
  for (const row of all)
    console.log(
      row
        .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column]!)))
        .join("  ")
        .trimEnd(),
    );
}

/** For people: one thing, a field a line. Empty fields are left out. */
export function printFields(fields: Readonly<Record<string, string>>): void {
  const shown = Object.entries(fields).filter(([, value]) => value !== "");
  const width = Math.max(0, ...shown.map(([name]) => name.length));
  for (const [name, value] of shown) console.log(`${name.padEnd(width)}  ${printable(value)}`);
}

/** For people: a line of a stream, its parts two spaces apart. Empty parts are left out. */
export function printLine(parts: readonly string[]): void {
  console.log(
    parts
      .filter((part) => part !== "")
      .map(printable)
      .join("  "),
  );
}

/** For programs: one of many, as they come: a JSON object a line, or a YAML document. */
export function printStreamed(value: unknown, format: "json" | "yaml"): void {
  console.log(format === "json" ? JSON.stringify(value) : `---\n${stringify(value).trimEnd()}`);
}

/** A message as proto3 JSON, without what is empty. */
export function jsonOf<D extends DescMessage>(schema: D, message: MessageShape<D>): JsonValue {
  return toJson(schema, message);
}

/** With what is empty (no list, 0, false), so that a script finds every name each time. */
export function wholeJsonOf<D extends DescMessage>(schema: D, message: MessageShape<D>): JsonValue {
  return toJson(schema, message, { alwaysEmitImplicit: true });
}

/** Values as scripts want them: text as it is, bytes as `{"base64": ...}`. */
export function plainData(data: Readonly<Record<string, Value>>): Record<string, string | { base64: string }> {
  return Object.fromEntries(
    Object.entries(data).map(([name, { kind }]) => [name, kind.case === "bytes" ? { base64: Buffer.from(kind.value).toString("base64") } : (kind.value ?? "")]),
  );
}

/** A proto timestamp for people: local precision of seconds, UTC. */
export function when(time: { readonly seconds: bigint; readonly nanos: number } | undefined): string {
  return time === undefined ? "" : `${new Date(Number(time.seconds) * 1000 + time.nanos / 1e6).toISOString().slice(0, 19)}Z`;
}

/** An enum's value by its name, in lower case. */
export function nameOf(values: Readonly<Record<string, number>>, value: number): string {
  return (Object.keys(values).find((name) => values[name] === value) ?? String(value)).toLowerCase();
}
