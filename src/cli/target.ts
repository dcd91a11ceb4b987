import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import type { Command } from "commander";
import { OperatorService } from "../gen/leasehold/v1/operator_service_pb.ts";
import { Sensitive } from "../base/sensitive.ts";
import { withClient } from "./context.ts";
import { UsageError } from "./exit.ts";
import { addTargetTest } from "./operator.ts";
import { addTargetScan } from "./reconcile.ts";
import { readStatementSet } from "./statement-set.ts";

const CONNECT_MS = 10_000;

interface BootstrapFlags {
  readonly url?: string;
  readonly instance?: string;
  readonly login: string;
  readonly passwordFile?: string;
  readonly allowGroup?: string[];
  readonly allowLogin?: string[];
  readonly statements?: string[];
  readonly print: boolean;
}

export function addTargetCommands(program: Command): void {
  const target = program.command("target").description("systems on which credentials are made");
  addTargetTest(target);
  addTargetScan(target);
  target
    .command("bootstrap")
    .description("prepare a PostgreSQL database as its superuser: the broker's functions and its own login, which is no superuser")
    .option(
      "--url <url>",
      "superuser's connection to the database; else the PG* environment variables (others on this machine can see a password in a command line: prefer PGPASSFILE)",
    )
    .option("--instance <id>", "the broker's instance (`leasehold info`); else it is asked")
    .option("--login <name>", "the broker's own login there", "leasehold_broker")
    .option(
      "--password-file <file>",
      "of that login; made with a random password (0600) if missing; - reads it from standard input; left out: the password stays as it is",
    )
    .option("--allow-group <role...>", "groups that leases may be members of: the whole list; left out: it stays as it is")
    .option("--allow-login <login...>", "logins of applications whose passwords rotations may set: the whole list; left out: it stays as it is")
    .option(
      "--statements <name=file...>",
      "statements that a role may name, run as superuser when its logins are made (create: [...]) and dropped (drop: [...]); replaces those of that name; other names stay",
    )
    .option("--print", "print the script for psql instead of running it", false)
    .action((options: BootstrapFlags, command: Command) => bootstrap(options, command));
}

async function bootstrap(options: BootstrapFlags, command: Command): Promise<void> {
  const { bootstrapPostgres, bootstrapSql, brokerVerifier, checkStatementSet } = await import("../engines/registry.ts");
  const statementSets = (options.statements ?? []).map(readStatementSet);
  for (const problem of statementSets.flatMap(checkStatementSet)) throw new UsageError(problem);
  const instance =
    options.instance ?? (await withClient(command, async ({ client }) => (await client.call(OperatorService.method.getServerInfo, {})).instance));
  const verifier = options.passwordFile === undefined ? undefined : await brokerVerifier(Sensitive.text(await passwordOf(options.passwordFile)));
  const script = { instance, login: options.login, verifier, allowedGroups: options.allowGroup, allowedLogins: options.allowLogin, statementSets };
  if (options.print) return void process.stdout.write(`${bootstrapSql(script)}\n`);
  const { default: pg } = await import("pg");
  const superuser = new pg.Client({ ...(options.url === undefined ? {} : { connectionString: options.url }), connectionTimeoutMillis: CONNECT_MS });
  superuser.on("error", () => {}); // the query under way fails and says so; unheard, the event would end the process with a stack
  await superuser.connect();
  try {
    await bootstrapPostgres(superuser, script);
    console.log(`${options.login} may work for instance ${instance}; describe the target to the broker with a manifest of kind Target`);
  } finally {
    await superuser.end();
  }
}

async function passwordOf(file: string): Promise<string> {
  if (file !== "-" && !existsSync(file)) writeFileSync(file, `${randomBytes(24).toString("base64url")}\n`, { mode: 0o600, flag: "wx" });
  const password = (file === "-" ? await text(process.stdin) : readFileSync(file, "utf8")).trimEnd();
  if (password.length < 16) throw new UsageError(`${file === "-" ? "standard input" : file} must hold a password of at least 16 characters`);
  return password;
}
