import { lookup } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";
import { promisify } from "node:util";

/** Where sinks may be. Whoever may write a subscription makes the broker connect somewhere: these bound it. */
export interface DestinationRules {
  /** Without TLS elsewhere than on a loopback address. */
  readonly allowPlaintext: boolean;
  /** Host names, or `*.` and a domain; empty: anywhere. */
  readonly hosts: readonly string[];
}

/** No receiver is there, but metadata services of clouds are, and whoever answers to everyone. */
const FORBIDDEN = new BlockList();
FORBIDDEN.addSubnet("0.0.0.0", 8, "ipv4");
FORBIDDEN.addSubnet("169.254.0.0", 16, "ipv4");
FORBIDDEN.addSubnet("224.0.0.0", 3, "ipv4");
FORBIDDEN.addAddress("100.100.100.200", "ipv4");
FORBIDDEN.addAddress("192.0.0.192", "ipv4");
FORBIDDEN.addAddress("::", "ipv6");
FORBIDDEN.addAddress("fd00:ec2::254", "ipv6");
FORBIDDEN.addSubnet("fe80::", 10, "ipv6");
FORBIDDEN.addSubnet("ff00::", 8, "ipv6");
FORBIDDEN.addSubnet("64:ff9b::", 96, "ipv6");

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** Why a host may not be a sink's, as far as its name says; undefined: it may. The address is looked at when the connection is made. */
export function hostProblem(host: string, encrypted: boolean, rules: DestinationRules): string | undefined {
  const name = host.toLowerCase();
  if (rules.hosts.length > 0 && !rules.hosts.some((allowed) => (allowed.startsWith("*.") ? name.endsWith(allowed.slice(1)) : name === allowed)))
    return "is not among the hosts that the broker's configuration allows";
  if (isIP(name) !== 0) return addressProblem(name, encrypted, rules);
  if (!encrypted && !rules.allowPlaintext && name !== "localhost") return "may be reached without TLS on a loopback address alone";
  return undefined;
}

function addressProblem(address: string, encrypted: boolean, rules: DestinationRules): string | undefined {
  const family = isIP(address) === 6 ? "ipv6" : "ipv4";
  if (FORBIDDEN.check(address, family)) return "is an address where no receiver can be";
  if (!encrypted && !rules.allowPlaintext && !LOOPBACK.check(address, family)) return "may be reached without TLS on a loopback address alone";
  return undefined;
}

/** A connection was not tried because of where it would have gone. */
export class DestinationRefused extends Error {
  override readonly name = "DestinationRefused";
}

const resolve = promisify(lookup);

/** The addresses to connect to, at least one: resolved once, and judged, so that no second answer of a name server can lead elsewhere. Throws DestinationRefused, or what the resolver says. */
export async function resolveDestination(host: string, encrypted: boolean, rules: DestinationRules): Promise<string[]> {
  const problem = hostProblem(host, encrypted, rules);
  if (problem !== undefined) throw new DestinationRefused(problem);
  if (isIP(host) !== 0) return [host];
  const addresses = (await resolve(host, { all: true })).map(({ address }) => address);
  for (const address of addresses) {
    const refused = addressProblem(address, encrypted, rules);
    if (refused !== undefined) throw new DestinationRefused(refused);
  }
  return addresses;
}

/** The same, for Node's own connections by name. */
export function guardedLookup(encrypted: boolean, rules: DestinationRules): LookupFunction {
  return (host, options, callback) => {
    resolveDestination(host, encrypted, rules).then(
      (addresses) => {
        const [first] = addresses;
        if (options.all === true)
          callback(
            null,
            addresses.map((address) => ({ address, family: isIP(address) })),
          );
        else callback(null, first!, isIP(first!));
      },
      (error: unknown) => callback(error as NodeJS.ErrnoException, "", 0),
    );
  };
}

const TLS_CODE = /^(ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO$)/;

/** What a failed connection is called, without anything that the other side said. */
export function connectionProblem(error: unknown): string {
  if (error instanceof DestinationRefused) return `the destination ${error.message}`;
  if (error instanceof AggregateError && error.errors.length > 0) return connectionProblem(error.errors[0]); // one for each address
  const given = (error as { code?: unknown } | null)?.code;
  const code = typeof given === "string" ? given : "";
  if (code === "ECONNREFUSED") return "connection refused";
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return "the name can't be resolved";
  if (code === "ETIMEDOUT" || code === "ABORT_ERR") return "timeout";
  if (TLS_CODE.test(code)) return `TLS: ${code}`;
  return "the connection broke";
}
