import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import { describe, expect, it } from "vitest";
import { EXAMPLES, leaves } from "../../src/cli/examples.ts";
import { EXIT, explain, Interrupted } from "../../src/cli/exit.ts";
import { printable } from "../../src/cli/printable.ts";
import { buildProgram } from "../../src/cli/program.ts";
import { endpointOf } from "../../src/client/settings.ts";

const commands = leaves(buildProgram());
const root = resolve(import.meta.dirname, "../..");

/** The words of the `leasehold` command in a shell line. */
function wordsOf(line: string): string[] {
  const own = /(?:^|[ |])leasehold (.*?)(?: [|>] .*)?$/.exec(line)?.[1] ?? "";
  return [...own.matchAll(/'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2]!);
}

describe("help", () => {
  it("knows every command, each with a description and an example; no example is left without a command", () => {
    expect(commands.map(([name]) => name).sort()).toEqual(Object.keys(EXAMPLES).sort());
    for (const [name, command] of commands) expect([name, command.description()]).not.toEqual([name, ""]);
  });

  it.each(Object.entries(EXAMPLES).flatMap(([name, lines]) => lines.map((line) => [name, line] as const)))(
    "%s: %s is a command line that parses",
    async (name, line) => {
      const program = buildProgram();
      const reached: string[] = [];
      for (const [each, command] of leaves(program)) command.action(() => void reached.push(each));
      const quiet = (command: Command): void => {
        command.configureOutput({ writeErr: () => {} });
        command.commands.forEach(quiet);
      };
      quiet(program);
      await program.parseAsync(wordsOf(line), { from: "user" });
      expect(reached).toEqual([name]);
    },
  );

  it("docs/cli.md names every command and every exit code", () => {
    const docs = readFileSync(resolve(root, "docs/cli.md"), "utf8");
    for (const [name] of commands) for (const word of name.split(" ")) expect(docs).toContain(word);
    for (const code of Object.values(EXIT)) expect(docs).toContain(`| ${code} |`);
  });
});

it("the version that the command says is the broker's", () => {
  const { version } = JSON.parse(readFileSync(resolve(root, "package.json"), "utf8")) as { version: string };
  expect(readFileSync(resolve(root, "src/app.ts"), "utf8")).toContain(`VERSION = "${version}"`);
});

it("lesson 60: a signal's exit code is 128 + its number, and nothing is said", () => {
  const lines: string[] = [];
  expect([new Interrupted("SIGINT"), new Interrupted("SIGTERM")].map((error) => explain(error, (line) => lines.push(line)))).toEqual([130, 143]);
  expect(lines).toEqual([]);
});

it("lesson 59: no error text shows the environment", () => {
  const env = { LEASEHOLD_ADDRESS: "https://canary-address:1", LEASEHOLD_CERT: "/nowhere", PGPASSWORD: "canary-password" };
  const lines: string[] = [];
  try {
    endpointOf({}, { ...env, LEASEHOLD_CONFIG: undefined }, "/");
  } catch (error) {
    explain(error, (line) => lines.push(line));
  }
  expect(lines).toHaveLength(1);
  expect(lines.join()).not.toContain("canary");
});

it("a terminal is sent no control characters that somebody else wrote", () => {
  expect(printable("a\u001b]0;x\u0007b\nc\u202ed")).toBe("a\\u001b]0;x\\u0007b\\nc\\u202ed");
  const lines: string[] = [];
  explain(new Error("bad \u001b[2J"), (line) => lines.push(line));
  expect(lines).toEqual(["error: bad \\u001b[2J"]);
});
