import { readFileSync } from "node:fs";
import type pg from "pg";
import type { Sensitive } from "../../base/sensitive.ts";
import { isInstance } from "../names.ts";
import { DEFAULT_SCRAM_ITERATIONS } from "./config.ts";
import { quoteArray, quoteLiteral } from "./quote.ts";
import { targetError } from "./faults.ts";
import { scramVerifier } from "./scram.ts";
import { checkStatementSet, type StatementSet } from "./statement-set.ts";

/** What `leasehold.version()` answers once these files are installed; raise both together. */
export const BOOTSTRAP_VERSION = 6;

const FILES = [
  "10-schema",
  "20-guards",
  "30-create",
  "35-enable",
  "36-statements",
  "40-end",
  "50-owned",
  "60-setup",
  "70-witness",
  "80-broker-login",
  "90-static-logins",
] as const;

export interface BootstrapOptions {
  readonly instance: string;
  /** The broker's own login, made if it isn't there. */
  readonly login: string;
  /** Of `brokerVerifier`; undefined keeps the login's password, as when upgrading. */
  readonly verifier: string | undefined;
  /** Groups that leases may be members of: the whole list; undefined keeps it. */
  readonly allowedGroups: readonly string[] | undefined;
  /** Logins of applications whose passwords rotations may set: the whole list; undefined keeps it. */
  readonly allowedLogins?: readonly string[] | undefined;
  /** What roles may name; each replaces the one of its name, and others stay. */
  readonly statementSets?: readonly StatementSet[] | undefined;
}

/** The verifier of the broker's own password, so that no script holds the password. */
export function brokerVerifier(password: Sensitive): Promise<string> {
  return scramVerifier(password, DEFAULT_SCRAM_ITERATIONS);
}

/**
 * The script that a superuser runs in each database where leases may own objects, first of all the target's own. One transaction;
 * idempotent; upgrades what an older version installed and refuses to go back. It contains the verifier, if one is given. Throws a RangeError for a statement set that may not be.
 */
export function bootstrapSql(options: BootstrapOptions): string {
  if (!isInstance(options.instance)) throw new RangeError("malformed instance");
  const verifier = options.verifier === undefined ? "NULL" : quoteLiteral(options.verifier);
  const groups = options.allowedGroups === undefined ? "NULL" : quoteArray(options.allowedGroups);
  const sets = options.statementSets ?? [];
  for (const problem of sets.flatMap(checkStatementSet)) throw new RangeError(problem);
  return [
    "BEGIN;",
    "SET LOCAL search_path = pg_catalog, pg_temp;",
    "SET LOCAL standard_conforming_strings = on;",
    "SET LOCAL client_min_messages = warning;",
    // The verifier stands in the text below; keep that out of the server's log and statistics. (Unknown names are harmless.)
    "SET LOCAL auto_explain.log_min_duration = -1;",
    "SET LOCAL pg_stat_statements.track = 'none';",
    "SET LOCAL log_statement = 'none';",
    "SET LOCAL log_min_duration_statement = -1;",
    "SET LOCAL log_duration = off;",
    "SET LOCAL log_min_error_statement = panic;",
    "SET LOCAL log_error_verbosity = terse;",
    `SET LOCAL leasehold.bootstrap_version = '${BOOTSTRAP_VERSION}';`,
    ...FILES.map((file) => readFileSync(new URL(`sql/${file}.sql`, import.meta.url), "utf8")),
    `SELECT leasehold.setup_instance(${quoteLiteral(options.instance)}, ${quoteLiteral(options.login)}, ${verifier}, ${groups});`,
    ...(options.allowedLogins === undefined
      ? []
      : [`SELECT leasehold.setup_static_logins(${quoteLiteral(options.instance)}, ${quoteArray(options.allowedLogins)});`]),
    ...sets.map(
      (set) =>
        `SELECT leasehold.setup_statement_set(${quoteLiteral(options.instance)}, ${quoteLiteral(set.name)}, ${quoteArray(set.create)}, ${quoteArray(set.drop)});`,
    ),
    "COMMIT;",
  ].join("\n");
}

/**
 * Runs the script on a superuser's connection, after the settings that keep it out of the log have been made by statements of their own:
 * a script sent as one message is logged before its first line takes effect. Throws a LeaseholdError TARGET_*, and a RangeError as `bootstrapSql`.
 */
export async function bootstrapPostgres(superuser: pg.ClientBase, options: BootstrapOptions): Promise<void> {
  const script = bootstrapSql(options);
  try {
    await superuser.query("SET log_statement = 'none'");
    await superuser.query("SET log_min_error_statement = panic");
    await superuser.query("SET log_min_duration_statement = -1");
    await superuser.query(script);
  } catch (error) {
    await superuser.query("ROLLBACK").catch(() => {});
    throw targetError(error);
  }
}
