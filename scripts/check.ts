// The one gate, `npm run check`: generated code is current, API lint and compatibility, format, lint, types, dead code, unit tests.
// Every step runs even if an earlier one failed, so that one run shows everything.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const steps: [name: string, run: () => boolean][] = [
  ["api lint", () => run("buf", "lint")],
  ["api format", () => run("buf", "format", "--diff", "--exit-code", "proto")],
  ["api compatible with the last commit", compatible],
  ["generated code is current", generatedIsCurrent],
  ["format", () => run("oxfmt", "--check", "src", "test", "bench", "scripts", "examples")],
  ["lint", () => run("oxlint", "--type-aware", "--deny-warnings")],
  ["types", () => run("tsc", "-p", "tsconfig.json")],
  ["dead code", () => run("knip")],
  ["unit tests", () => run("vitest", "run", "--project", "unit")],
];

const failed = steps.filter(([name, step]) => {
  const startedAt = performance.now();
  const ok = step();
  console.log(`${ok ? "ok    " : "FAILED"} ${name} (${((performance.now() - startedAt) / 1000).toFixed(1)} s)`);
  return !ok;
});
process.exitCode = failed.length === 0 ? 0 : 1;

function run(program: string, ...args: string[]): boolean {
  const result = spawnSync(join("node_modules", ".bin", program), args, { encoding: "utf8" });
  if (result.status !== 0) console.log(result.stdout, result.stderr, result.error?.message ?? "");
  return result.status === 0;
}

/** Buf compares with what the newest commit has, out of the local repository; a tree without git has nothing to compare with. */
function compatible(): boolean {
  if (!existsSync(".git") || spawnSync("git", ["cat-file", "-e", "HEAD:buf.yaml"]).status !== 0) return true;
  return run("buf", "breaking", "--against", ".git#ref=HEAD");
}

function generatedIsCurrent(): boolean {
  const kept = mkdtempSync(join(tmpdir(), "leasehold-gen-"));
  try {
    cpSync("src/gen", kept, { recursive: true });
    if (!run("buf", "generate")) return false;
    const difference = spawnSync("diff", ["-r", kept, "src/gen"], { encoding: "utf8" });
    if (difference.status !== 0) console.log(difference.stdout.slice(0, 4000), "run `npm run generate` and commit the result");
    return difference.status === 0;
  } finally {
    rmSync(kept, { recursive: true, force: true });
  }
}
