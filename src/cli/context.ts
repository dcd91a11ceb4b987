import type { Command } from "commander";
import { Client } from "../client/client.ts";
import type { Endpoint } from "../client/endpoint.ts";
import { endpointOf, type Flags } from "../client/settings.ts";
import { UsageError } from "./exit.ts";
import type { Format } from "./output.ts";

interface GlobalFlags extends Flags {
  readonly timeout: string;
  readonly output: string;
}

/** What every command that talks to a broker gets. */
export interface Context {
  readonly client: Client;
  readonly format: Format;
  readonly timeoutMs: number;
}

/** Adds the settings that all commands share. */
export function addGlobalOptions(program: Command): Command {
  return program
    .option("--address <host:port>", "the broker (LEASEHOLD_ADDRESS)")
    .option("--cert <file>", "client certificate, PEM (LEASEHOLD_CERT)")
    .option("--key <file>", "its key, PEM (LEASEHOLD_KEY)")
    .option("--ca <file>", "CA that vouches for the broker, PEM (LEASEHOLD_CA)")
    .option("--server-name <name>", "name on the broker's certificate, if not the address's (LEASEHOLD_SERVER_NAME)")
    .option("--context <name>", "a context of the context file (LEASEHOLD_CONFIG, ~/.config/leasehold/config.yaml)")
    .option("--as <client>", "which client of the development broker: admin or demo-app")
    .option("--timeout <time>", "for one call, its retries included, such as 5s or 2m", "30s")
    .option("-o, --output <format>", "table, json or yaml", "table");
}

/** Runs a command with a connection and closes it afterwards. The settings may stand before or after the command's name. */
export async function withClient<T>(command: Command, work: (context: Context) => Promise<T>): Promise<T> {
  const flags = command.optsWithGlobals<GlobalFlags>();
  if (!["table", "json", "yaml"].includes(flags.output)) throw new UsageError("--output must be table, json or yaml");
  const timeoutMs = parseTime(flags.timeout, "--timeout");
  // Node warns on standard error when the broker's address is a bare IP address; there is nothing the user could do.
  process.noDeprecation = true;
  const client = connect(endpointOf(flags, process.env, process.cwd()), timeoutMs);
  try {
    return await work({ client, format: flags.output as Format, timeoutMs });
  } finally {
    client.close();
  }
}

function connect(endpoint: Endpoint, timeoutMs: number): Client {
  try {
    return new Client(endpoint, timeoutMs);
  } catch {
    throw new UsageError("the client certificate, its key or the CA can't be used; `leasehold doctor` looks into it");
  }
}

/** `policies/x` or `x`: both name it. */
export function bareName(text: string, folder: string): string {
  return text.startsWith(`${folder}/`) ? text.slice(folder.length + 1) : text;
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `250ms`, `90s`, `10m`, `1h`, `7d`; answers milliseconds. Throws UsageError that names the option. */
export function parseTime(text: string, option: string): number {
  const match = /^([0-9]{1,9})(ms|s|m|h|d)$/.exec(text);
  if (match === null) throw new UsageError(`${option} must be a length of time such as 90s, 10m or 1h`);
  return Number(match[1]) * UNITS[match[2]!]!;
}

/** A whole number of at least `least`. Throws UsageError that names the option. */
export function parseWhole(text: string, option: string, least = 0): number {
  if (!/^[0-9]{1,15}$/.test(text) || Number(text) < least) throw new UsageError(`${option} must be a whole number of at least ${least}`);
  return Number(text);
}
