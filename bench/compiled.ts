import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const DIST = join(import.meta.dirname, "..", "dist");

/** How the image runs Node (Dockerfile). */
export const NODE_FLAGS: readonly string[] = ["--max-semi-space-size=16"];

/** And what of glibc's malloc it sets (Dockerfile). */
export const MALLOC_ENV: Readonly<Record<string, string>> = { MALLOC_MMAP_THRESHOLD_: "20000", MALLOC_TOP_PAD_: "0", MALLOC_TRIM_THRESHOLD_: "16777216" };

/** `npm run build`, each time: what is measured is what the sources say now. Its output goes to standard error. */
export function build(): void {
  const { status } = spawnSync(process.execPath, [join(import.meta.dirname, "..", "scripts", "build.ts")], { stdio: ["ignore", 2, 2] });
  if (status !== 0) throw new Error("the build failed");
}

export function compiledPath(file: string): string {
  return join(DIST, file);
}

/** Imports a module of the compiled build; the caller names its type from the source. */
export function importCompiled(file: string): Promise<unknown> {
  return import(pathToFileURL(compiledPath(file)).href);
}
