import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { UsageError } from "./exit.ts";

interface StatementLists {
  readonly name: string;
  readonly create: readonly string[];
  readonly drop: readonly string[];
}

/** The statement set of `NAME=FILE`. Throws UsageError. */
export function readStatementSet(flag: string): StatementLists {
  const at = flag.indexOf("=");
  if (at < 1 || at === flag.length - 1) throw new UsageError("--statements is written NAME=FILE");
  const [name, file] = [flag.slice(0, at), flag.slice(at + 1)];
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new UsageError(`${file} can't be read (${(error as NodeJS.ErrnoException).code ?? "unknown"})`);
  }
  return { name, ...parseStatementLists(text, file) };
}

/** YAML with lists of statements: `create`, `drop`, or both. Throws UsageError, without the text: it may be anything, by mistake. */
export function parseStatementLists(text: string, source: string): Omit<StatementLists, "name"> {
  let value: unknown;
  try {
    value = parse(text, { maxAliasCount: 10 });
  } catch {
    throw new UsageError(`${source} is not YAML`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new UsageError(`${source} must have the list create, the list drop, or both`);
  const lists = value as Readonly<Record<string, unknown>>;
  if (Object.keys(lists).some((key) => key !== "create" && key !== "drop")) throw new UsageError(`${source} has only the lists create and drop`);
  return { create: list(source, "create", lists["create"]), drop: list(source, "drop", lists["drop"]) };
}

function list(source: string, key: string, value: unknown): readonly string[] {
  if (value === undefined) return [];
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string"))
    throw new UsageError(`${source}: ${key} must be a list of statements, each a text`);
  return value;
}
