import { Command, CommanderError } from "commander";
import { addApplyCommands } from "./apply.ts";
import { addAuditCommands } from "./audit.ts";
import { addGlobalOptions } from "./context.ts";
import { addDoctorCommand } from "./doctor.ts";
import { addExamples } from "./examples.ts";
import { EXIT, explain } from "./exit.ts";
import { addLeaseCommands } from "./lease.ts";
import { addOperationCommands } from "./operation.ts";
import { addOperatorCommands } from "./operator.ts";
import { addPolicyCommands } from "./policy.ts";
import { addReconcileCommands } from "./reconcile.ts";
import { addRotationCommands } from "./rotation.ts";
import { addSecretCommands } from "./secret.ts";
import { addServeCommands } from "./serve.ts";
import { addTargetCommands } from "./target.ts";
import { addWatchCommand } from "./watch.ts";

const EXIT_CODES = `
Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 denied, 5 unavailable, 6 conflict or precondition, 130 interrupted.
In a folder (or below one) where \`npm start\` runs a development broker, it is found by itself.`;

/** Runs one command line; answers its exit code. Never throws, never prints a stack. */
export async function run(argv: readonly string[]): Promise<number> {
  for (const stream of [process.stdout, process.stderr])
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") process.exit(EXIT.ok); // the reader has seen enough
    });
  try {
    await buildProgram().parseAsync([...argv], { from: "user" });
    return EXIT.ok;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    return explain(error, (line) => console.error(line));
  }
}

export function buildProgram(): Command {
  const program = addGlobalOptions(
    new Command("leasehold").description("A gRPC secret broker: identity by client certificate, everything on lease, every disclosure audited."),
  );
  program
    .addHelpText("after", EXIT_CODES)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(withoutValues(text)) });
  const adders = [
    addOperatorCommands,
    addSecretCommands,
    addLeaseCommands,
    addRotationCommands,
    addWatchCommand,
    addPolicyCommands,
    addApplyCommands,
    addAuditCommands,
    addTargetCommands,
    addReconcileCommands,
    addOperationCommands,
    addDoctorCommand,
    addServeCommands,
  ];
  for (const add of adders) add(program);
  addExamples(program);
  return program;
}

/** Commander repeats an argument that it doesn't know; `--password=...` given where it does not belong must not reach a CI log by that. */
export function withoutValues(text: string): string {
  return text.replace(/(--?[A-Za-z][\w-]*)=[^]*?(?='?\n|'?$)/g, "$1=...");
}
