import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const DIST = join(import.meta.dirname, "..", "dist");

/** How the image runs Node (Dockerfile). */
export const NODE_FLAGS: readonly string[] = ["--max-semi-space-size=16"];

export function assertBuilt(): void {
  if (!existsSync(join(DIST, "app.js"))) throw new Error("run `npm run build` first: the benches measure what ships");
}

export function compiledPath(file: string): string {
  return join(DIST, file);
}

/** Imports a module of the compiled build; the caller names its type from the source. */
export function importCompiled(file: string): Promise<unknown> {
  return import(pathToFileURL(compiledPath(file)).href);
}
