import type { Command } from "commander";
import { AuditRecordSchema, AuditService, VerifyAuditResponseSchema } from "../gen/leasehold/v1/audit_service_pb.ts";
import { parseWhole, withClient } from "./context.ts";
import { CheckFailed, interruption } from "./exit.ts";
import { jsonOf, printLine, printStreamed, printValue, when, wholeJsonOf } from "./output.ts";

export function addAuditCommands(program: Command): void {
  const audit = program.command("audit").description("what was done, by whom, provably");

  audit
    .command("tail")
    .description("the newest records")
    .option("-f, --follow", "go on as they come", false)
    .option("--last <n>", "how many first", "20")
    .option("--principal <spiffe-id>", "only of this principal")
    .option("--path <path>", "only of this path, or of a folder such as 'secrets/**'")
    .action((options: { follow: boolean; last: string; principal?: string; path?: string }, command: Command) =>
      withClient(command, async ({ client, format, timeoutMs }) => {
        const stop = interruption();
        const request = { last: parseWhole(options.last, "--last"), noFollow: !options.follow, principal: options.principal ?? "", path: options.path ?? "" };
        for await (const { records } of client.stream(AuditService.method.tailAudit, request, stop.signal, options.follow ? undefined : timeoutMs)) {
          for (const record of records) {
            if (format !== "table") printStreamed(jsonOf(AuditRecordSchema, record), format);
            else
              printLine([
                when(record.time),
                record.outcome,
                record.action,
                record.path || "-",
                record.principal,
                record.cause,
                record.count > 1n ? `×${record.count}` : "",
              ]);
          }
        }
        stop.signal.throwIfAborted();
      }),
    );

  audit
    .command("verify")
    .description("check every chain against its hashes and signed heads; exits with 1 when something is not as it was written")
    .option("--chain <chain>", "only this one")
    .action((options: { chain?: string }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const verified = await client.call(AuditService.method.verifyAudit, { chain: options.chain ?? "" });
        if (format !== "table") printValue(wholeJsonOf(VerifyAuditResponseSchema, verified), format);
        else {
          console.log(`${verified.ok ? "ok" : "NOT as it was written"}: ${verified.records} records in ${verified.chains} chains`);
          if (verified.unsignedTail > 0n) console.log(`${verified.unsignedTail} of them after the last signed head`);
          for (const problem of verified.problems) printLine([`  ${problem.kind}`, `${problem.chain} ${problem.sequence}`, problem.detail]);
        }
        if (!verified.ok) throw new CheckFailed();
      }),
    );
}
