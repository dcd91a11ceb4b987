/** Statements that a superuser installs by name, for roles to name (docs/adr/0013). */
export interface StatementSet {
  readonly name: string;
  /** Run for each login after it was made, in its transaction. Each element is one statement and is never split; `{{name}}` and `{{name_literal}}` are filled in. */
  readonly create: readonly string[];
  /** Run before each login is dropped, in that transaction, when it can't log in any more and its sessions have ended. */
  readonly drop: readonly string[];
}

const NAME = /^[a-z0-9][a-z0-9_-]{0,62}$/;
const MAX_STATEMENTS = 64;
const MAX_LENGTH = 10_000;

export function isStatementSetName(value: string): boolean {
  return NAME.test(value);
}

/** What is wrong with a set, in words without its text; `check_statement()` on the target asks the same again. */
export function checkStatementSet({ name, create, drop }: StatementSet): readonly string[] {
  if (!isStatementSetName(name)) return ["a statement set's name is 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or a digit"];
  return [...phase(name, "create", create), ...phase(name, "drop", drop)];
}

function phase(set: string, name: string, statements: readonly string[]): readonly string[] {
  if (statements.length > MAX_STATEMENTS) return [`statement set ${set}: ${name} has more than ${MAX_STATEMENTS} statements`];
  return statements.flatMap((statement, i) => {
    const wrong = problemOf(statement);
    return wrong === undefined ? [] : [`statement set ${set}: ${name}[${i}] ${wrong}`];
  });
}

function problemOf(statement: string): string | undefined {
  if (statement.trim() === "") return "is empty";
  if (statement.length > MAX_LENGTH) return `is longer than ${MAX_LENGTH} characters`;
  if (statement.includes("\0") || !statement.isWellFormed()) return "holds NUL or half a character";
  if (statement.replaceAll("{{name}}", " ").replaceAll("{{name_literal}}", " ").includes("{{")) return "has {{ that is neither {{name}} nor {{name_literal}}";
  if (/^\s*(set|reset)\b(?!\s+local\b)/i.test(statement)) return "sets what would stay in the broker's session: use SET LOCAL";
  return undefined;
}
