// `npm run build`: src/ → dist/, with the files that the code reads beside itself (SQL, Lua), which tsc leaves behind.
import { spawnSync } from "node:child_process";
import { cpSync, globSync, rmSync } from "node:fs";
import { join } from "node:path";

const ASSETS = ["store/migrations/*.sql", "engines/*/sql/*.sql", "**/*.lua"];

process.chdir(join(import.meta.dirname, ".."));
rmSync("dist", { recursive: true, force: true });
const compiled = spawnSync(join("node_modules", ".bin", "tsc"), ["-p", "tsconfig.build.json"], { stdio: "inherit" });
for (const file of globSync(ASSETS, { cwd: "src" })) cpSync(join("src", file), join("dist", file));
process.exitCode = compiled.status ?? 1;
