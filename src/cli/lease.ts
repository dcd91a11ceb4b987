import { randomUUID } from "node:crypto";
import type { Command } from "commander";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { CredentialService } from "../gen/leasehold/v1/credential_service_pb.ts";
import { type Lease, Lease_EndCause as EndCause, LeaseSchema, Lease_State as State } from "../gen/leasehold/v1/lease_pb.ts";
import { LeaseService } from "../gen/leasehold/v1/lease_service_pb.ts";
import { parseTime, withClient } from "./context.ts";
import { CheckFailed, UsageError } from "./exit.ts";
import { finishOperation } from "./operation.ts";
import { type Format, nameOf, plainData, printFields, printTable, printValue, when, wholeJsonOf } from "./output.ts";
import { allPages } from "./secret.ts";

export function addLeaseCommands(program: Command): void {
  program
    .command("creds")
    .description("credentials on lease")
    .command("issue <path>")
    .description("make a login, such as credentials/postgres/demo-ro")
    .option("--ttl <time>", "how long; the role's default if left out")
    .action((path: string, options: { ttl?: string }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const ttl = options.ttl === undefined ? {} : { ttl: durationFromMs(parseTime(options.ttl, "--ttl")) };
        const issued = await client.call(CredentialService.method.issueCredential, { path, requestId: randomUUID(), ...ttl });
        const data = plainData(issued.data);
        if (format !== "table") return printValue({ lease: wholeJsonOf(LeaseSchema, issued.lease!), data }, format);
        printFields({
          lease: issued.lease!.path,
          expires: when(issued.lease!.expireTime),
          ...Object.fromEntries(Object.entries(data).map(([key, value]) => [key, typeof value === "string" ? value : value.base64])),
        });
      }),
    );

  const lease = program.command("lease").description("leases: look at them, stretch them, end them");

  lease
    .command("list [prefix]")
    .description("live leases, newest first: your own, and those you may list")
    .option("--principal <spiffe-id>", "only of this principal")
    .option("--state <state...>", "pending, ready, active, revoking, revoked, rolled_back")
    .option("--stalled", "only those whose revocation is stalled", false)
    .action((prefix: string | undefined, options: { principal?: string; state?: string[]; stalled: boolean }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const states = (options.state ?? []).map(stateOf);
        const leases = await allPages(async (pageToken) => {
          const request = { prefix: prefix ?? "", principal: options.principal ?? "", states, stalled: options.stalled, pageSize: 1000, pageToken };
          const page = await client.call(LeaseService.method.listLeases, request);
          return { items: page.leases, next: page.nextPageToken };
        });
        if (format === "table")
          printTable(
            ["lease", "role", "state", "expires", "principal"],
            leases.map((each) => [each.path, each.rolePath, stateText(each), when(each.expireTime), each.principal]),
          );
        else printValue({ leases: leases.map((each) => wholeJsonOf(LeaseSchema, each)) }, format);
      }),
    );

  lease
    .command("get <lease>")
    .description("one lease, such as leases/<id>")
    .action((path: string, _options: object, command: Command) =>
      withClient(command, async ({ client, format }) => show((await client.call(LeaseService.method.getLease, { path: leasePath(path) })).lease!, format)),
    );

  lease
    .command("renew <lease>")
    .description("stretch a lease")
    .option("--increment <time>", "from now; the role's default TTL if left out")
    .action((path: string, options: { increment?: string }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const increment = options.increment === undefined ? {} : { increment: durationFromMs(parseTime(options.increment, "--increment")) };
        const renewed = await client.call(LeaseService.method.renewLease, { path: leasePath(path), requestId: randomUUID(), ...increment });
        show(renewed.lease!, format);
        if (renewed.limitedBy !== "") console.error(`limited by ${renewed.limitedBy}`);
      }),
    );

  lease
    .command("forget <lease>")
    .description("give up a lease whose revocation keeps failing; whether its login still exists is not known then")
    .requiredOption("--reason <text>", "why, for the audit")
    .action((path: string, options: { reason: string }, command: Command) =>
      withClient(command, async ({ client, format }) => {
        const request = { path: leasePath(path), reason: options.reason, requestId: randomUUID() };
        show((await client.call(LeaseService.method.forgetLease, request)).lease!, format);
      }),
    );

  lease
    .command("revoke [lease]")
    .description("end a lease, or all of a folder or a principal")
    .option("--prefix <folder>", "every lease of the role paths below, such as credentials/postgres/")
    .option("--principal <spiffe-id>", "every lease of this principal")
    .option("--wait", "until all of them are being revoked", false)
    .action((path: string | undefined, options: { prefix?: string; principal?: string; wait: boolean }, command: Command) =>
      withClient(command, async (context) => {
        const { client, format } = context;
        if (path !== undefined) {
          const revoked = (await client.call(LeaseService.method.revokeLease, { path: leasePath(path), requestId: randomUUID() })).lease!;
          show(revoked, format);
          if (revoked.state !== State.REVOKED && revoked.state !== State.ROLLED_BACK) throw new CheckFailed();
          return;
        }
        if (options.prefix === undefined && options.principal === undefined) throw new UsageError("name a lease, or give --prefix or --principal");
        const request = { prefix: options.prefix ?? "", principal: options.principal ?? "", requestId: randomUUID() };
        await finishOperation(context, (await client.call(LeaseService.method.revokeLeases, request)).operation!, options.wait);
      }),
    );
}

function show(lease: Lease, format: Format): void {
  if (format !== "table") return printValue(wholeJsonOf(LeaseSchema, lease), format);
  printFields({
    lease: lease.path,
    role: lease.rolePath,
    principal: lease.principal,
    state: stateText(lease),
    username: lease.username,
    issued: when(lease.issueTime),
    renew: when(lease.renewTime),
    expires: when(lease.expireTime),
    "at most": when(lease.maxExpireTime),
    ended: when(lease.endTime),
    cause: lease.endCause === EndCause.UNSPECIFIED ? "" : nameOf(EndCause, lease.endCause),
    problem: lease.revocation?.problem ?? "",
    "next try": when(lease.revocation?.nextAttemptTime),
  });
}

function stateText(lease: Lease): string {
  return nameOf(State, lease.state) + (lease.revocation?.stalled === true ? " (stalled)" : "");
}

function stateOf(text: string): State {
  const state = State[text.toUpperCase() as keyof typeof State];
  if (typeof state !== "number") throw new UsageError("--state must be pending, active, revoking, revoked or rolled_back");
  return state;
}

function leasePath(text: string): string {
  return text.startsWith("leases/") ? text : `leases/${text}`;
}
