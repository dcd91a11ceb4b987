import { Command, CommanderError } from "commander";
import { addApplyCommands } from "./apply.ts";
import { addAuditCommands } from "./audit.ts";
import { addGlobalOptions } from "./context.ts";
import { addDoctorCommand } from "./doctor.ts";
import { EXIT, explain } from "./exit.ts";
import { addLeaseCommands } from "./lease.ts";
import { addOperationCommands } from "./operation.ts";
import { addOperatorCommands } from "./operator.ts";
import { addPolicyCommands } from "./policy.ts";
import { addSecretCommands } from "./secret.ts";
import { addServeCommands } from "./serve.ts";
import { addTargetCommands } from "./target.ts";
import { addWatchCommand } from "./watch.ts";

const EXIT_CODES = `
Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 denied, 5 unavailable, 6 conflict or precondition, 130 interrupted.
In a folder (or below one) where \`npm start\` runs a development broker, it is found by itself.`;

/** Runs one command line; answers its exit code. Never throws, never prints a stack. */
export async function run(argv: readonly string[]): Promise<number> {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(EXIT.ok); // the reader has seen enough
  });
  const program = addGlobalOptions(
    new Command("leasehold").description("A gRPC secret broker: identity by client certificate, everything on lease, every disclosure audited."),
  );
  program.addHelpText("after", EXIT_CODES).exitOverride();
  const adders = [
    addOperatorCommands,
    addSecretCommands,
    addLeaseCommands,
    addWatchCommand,
    addPolicyCommands,
    addApplyCommands,
    addAuditCommands,
    addTargetCommands,
    addOperationCommands,
    addDoctorCommand,
    addServeCommands,
  ];
  for (const add of adders) add(program);
  try {
    await program.parseAsync([...argv], { from: "user" });
    return EXIT.ok;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    return explain(error, (line) => console.error(line));
  }
}
