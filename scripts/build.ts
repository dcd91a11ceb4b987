// `npm run build`: src/ → dist/, with the files that the code reads beside itself (SQL, Lua), which tsc leaves behind. `node scripts/build.ts FOLDER`: there instead.
import { spawnSync } from "node:child_process";
import { cpSync, globSync, rmSync } from "node:fs";
import { join } from "node:path";

const ASSETS = ["store/migrations/*.sql", "engines/*/sql/*.sql", "**/*.lua"];

process.chdir(join(import.meta.dirname, ".."));
const out = process.argv[2] ?? "dist";
rmSync(out, { recursive: true, force: true });
const compile = (project: string): number => spawnSync(join("node_modules", ".bin", "tsc"), ["-p", project, "--outDir", out], { stdio: "inherit" }).status ?? 1;
// Types are for those who import the client; the rest of the broker is no library.
const failed = compile("tsconfig.build.json") || compile("tsconfig.client.json");
for (const file of globSync(ASSETS, { cwd: "src" })) cpSync(join("src", file), join(out, file));
process.exitCode = failed;
