import { expect, it, test } from "vitest";
import { UsageError } from "../../src/cli/exit.ts";
import { parseStatementLists, readStatementSet } from "../../src/cli/statement-set.ts";
import { bootstrapSql } from "../../src/engines/postgres/bootstrap.ts";
import { checkStatementSet } from "../../src/engines/postgres/statement-set.ts";

it("a file's lists are the statements as they are written, never split", () => {
  const lists = parseStatementLists("create:\n  - GRANT SELECT ON a.b TO {{name}}\n  - |\n    DO $$ BEGIN PERFORM 1; PERFORM 'it''s'; END $$\n", "set.yaml");
  expect(lists).toEqual({ create: ["GRANT SELECT ON a.b TO {{name}}", "DO $$ BEGIN PERFORM 1; PERFORM 'it''s'; END $$\n"], drop: [] });
  const sql = bootstrapSql({ instance: "abc", login: "b", verifier: undefined, allowedGroups: undefined, statementSets: [{ name: "direct", ...lists }] });
  expect(sql).toContain(
    "setup_statement_set('abc', 'direct', ARRAY['GRANT SELECT ON a.b TO {{name}}', 'DO $$ BEGIN PERFORM 1; PERFORM ''it''''s''; END $$\n']::text[], ARRAY[]::text[]);",
  );
});

test.each([
  ["created: [SELECT secret]", "only the lists"],
  ["create: SELECT secret", "must be a list"],
  ["create: [1, secret]", "must be a list"],
  ["- SELECT secret", "must have"],
  ["", "must have"],
  ["create: [secret", "not YAML"],
])("%j is refused, and nothing of it is said", (text, words) => {
  let error: unknown;
  try {
    parseStatementLists(text, "set.yaml");
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(UsageError);
  expect((error as Error).message).toContain(words);
  expect((error as Error).message).not.toContain("secret");
});

test.each(["direct", "direct=", "=file", "direct=/nonexistent/x"])("the flag %s is refused", (flag) => {
  expect(() => readStatementSet(flag)).toThrow(UsageError);
});

test.each([
  ["Direct", "SELECT 1", "name"],
  ["direct", " ", "create[0] is empty"],
  ["direct", "SELECT '{{password}}'", "neither {{name}} nor {{name_literal}}"],
  ["direct", "reset all", "SET LOCAL"],
  ["direct", "SELECT '\0'", "NUL"],
  ["direct", "x".repeat(10_001), "longer"],
])("a set %s with %j is refused where and why", (name, statement, words) => {
  expect(checkStatementSet({ name, create: [statement], drop: [] })).toEqual([expect.stringContaining(words)]);
  expect(checkStatementSet({ name, create: [], drop: Array.from({ length: 65 }, () => statement) })).toHaveLength(1);
});

it("what a set may hold", () => {
  const create = ["SET LOCAL search_path = app", "ALTER ROLE {{name}} SET search_path = app", "SELECT app.reset({{name_literal}})"];
  expect(checkStatementSet({ name: "a-1_b", create, drop: [] })).toEqual([]);
});
