import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inject } from "vitest";

const NAME = /^leasehold-run-(\d+)-/;

/** A folder for one test run, named after its process; those of runs that were killed are removed here. */
export function runFolder(): string {
  for (const name of readdirSync(tmpdir())) {
    const pid = Number(NAME.exec(name)?.[1]);
    if (pid > 0 && !isAlive(pid)) rmSync(join(tmpdir(), name), { recursive: true, force: true, maxRetries: 5 });
  }
  return mkdtempSync(join(tmpdir(), `leasehold-run-${process.pid}-`));
}

/** A new folder (0700) of the calling test, removed at the end of the run. Not for unit tests. */
export function tempFolder(name: string): string {
  return mkdtempSync(join(inject("runFolder"), `${name}-`));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
