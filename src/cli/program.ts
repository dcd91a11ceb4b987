import { Command, CommanderError } from "commander";
import { LeaseholdError } from "../base/errors.ts";
import { checkConfig, dev, migrateStore, server } from "./serve.ts";

/** Runs one command line; answers its exit code. Never throws, never prints a stack. */
export async function run(argv: readonly string[]): Promise<number> {
  const program = new Command("leasehold").description("A gRPC secret broker: identity by client certificate, everything on lease, every disclosure audited.").exitOverride();
  program
    .command("dev")
    .description("start a complete broker on this machine: PostgreSQL, Redis if there is one, a PKI, a demo")
    .option("--folder <path>", "where it keeps its things", ".leasehold")
    .option("--listen <address>", "host:port", "127.0.0.1:8443")
    .action((options: { folder: string; listen: string }) => dev(options.folder, options.listen));
  program
    .command("server")
    .description("serve, as the configuration says")
    .requiredOption("--config <file>", "YAML; see docs/configuration.md")
    .action((options: { config: string }) => server(options.config));
  program
    .command("migrate")
    .description("bring the store's schema up to date (server does it too)")
    .requiredOption("--config <file>", "YAML; see docs/configuration.md")
    .option("--check", "only say what would be done", false)
    .action((options: { config: string; check: boolean }) => migrateStore(options.config, options.check));
  program
    .command("check-config <file>")
    .description("name every mistake in a configuration")
    .action((file: string) => checkConfig(file));
  try {
    await program.parseAsync([...argv], { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    console.error(`error: ${error instanceof LeaseholdError ? error.message : "unexpected failure"}`);
    if (!(error instanceof LeaseholdError)) console.error(error);
    return 1;
  }
}
