import { X509Certificate, createPrivateKey } from "node:crypto";
import { connect } from "node:tls";
import type { Command } from "commander";
import { IdentityService } from "../gen/leasehold/v1/identity_service_pb.ts";
import { Client } from "../client/client.ts";
import { type Endpoint, pemsOf } from "../client/endpoint.ts";
import { CallError } from "../client/errors.ts";
import { endpointOf, type Flags } from "../client/settings.ts";
import { CheckFailed, transport } from "./exit.ts";

/** One thing looked at: a broker that refuses a certificate can't say why in the handshake, so this looks from the client's side. */
interface Finding {
  readonly name: string;
  readonly problem: string | undefined;
}

const CONNECT_MS = 5000;

/** What Node's codes mean for who reads them. */
const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there (ECONNREFUSED)",
  ENOTFOUND: "the name is unknown (ENOTFOUND)",
  ECONNRESET: "the other side ended the handshake (ECONNRESET): it may refuse this certificate, or not speak TLS",
  CERT_HAS_EXPIRED: "the broker's certificate has ended",
  ERR_TLS_CERT_ALTNAME_INVALID: "the broker's certificate is for another name: see --server-name",
  DEPTH_ZERO_SELF_SIGNED_CERT: "the broker's certificate is not by the CA given with --ca (self-signed)",
  SELF_SIGNED_CERT_IN_CHAIN: "the broker's certificate is not by the CA given with --ca",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "the broker's certificate is not by the CA given with --ca",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "the broker's certificate is not by the CA given with --ca",
  CERT_SIGNATURE_FAILURE: "the broker's certificate is not by the CA given with --ca",
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: "it does not speak TLS 1.3",
  ERR_SSL_WRONG_VERSION_NUMBER: "it does not speak TLS",
  ERR_SSL_PACKET_LENGTH_TOO_LONG: "it does not speak TLS",
};

export function addDoctorCommand(program: Command): void {
  program
    .command("doctor")
    .description("look into trouble with the connection: certificate, key, broker")
    .action(async (_options: object, command: Command) => {
      const given = endpointOf(command.optsWithGlobals<Flags>(), process.env, process.cwd());
      const endpoint = { ...given, ...pemsOf(given) };
      const findings = [...checkCertificate(endpoint), checkCa(endpoint.ca)];
      // With a pair that is none there is nothing to connect with.
      if (isGood(findings)) findings.push(await checkServer(endpoint));
      if (isGood(findings)) findings.push(await checkCall(endpoint));
      for (const { name, problem } of findings)
        console.log(`${problem === undefined ? "ok    " : "FAILED"} ${name}${problem === undefined ? "" : `: ${problem}`}`);
      if (!isGood(findings)) throw new CheckFailed();
    });
}

function isGood(findings: readonly Finding[]): boolean {
  return findings.every((finding) => finding.problem === undefined);
}

export function checkCertificate(endpoint: Pick<Endpoint, "certificate" | "key">, now = new Date()): Finding[] {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(endpoint.certificate);
  } catch {
    return [{ name: "client certificate", problem: "is not a PEM certificate" }];
  }
  const names = (certificate.subjectAltName ?? "").split(", ").filter((name) => name.startsWith("URI:"));
  return [
    {
      name: "client certificate's dates",
      problem:
        now > certificate.validToDate
          ? `it ended at ${certificate.validTo}`
          : now < certificate.validFromDate
            ? `it begins at ${certificate.validFrom}`
            : undefined,
    },
    {
      name: "client certificate's SPIFFE id",
      problem: names.length === 1 && names[0]!.startsWith("URI:spiffe://") ? undefined : "it must have exactly one URI name, spiffe://...",
    },
    { name: "client certificate's kind", problem: certificate.ca ? "it is a CA's" : undefined },
    { name: "client key", problem: belongs(certificate, endpoint.key) ? undefined : "it is not the certificate's" },
  ];
}

/** The CA that this client trusts, which says nothing about the CAs that the broker trusts. */
export function checkCa(ca: string): Finding {
  const blocks = ca.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    const ended = blocks.map((block) => new X509Certificate(block)).filter((each) => each.validToDate < new Date());
    const problem =
      blocks.length === 0 ? "the file holds no PEM certificate" : ended.length > 0 ? `a certificate in it ended at ${ended[0]!.validTo}` : undefined;
    return { name: "CA for the broker", problem };
  } catch {
    return { name: "CA for the broker", problem: "the file holds a broken certificate" };
  }
}

function belongs(certificate: X509Certificate, key: string): boolean {
  try {
    return certificate.checkPrivateKey(createPrivateKey(key));
  } catch {
    return false;
  }
}

function checkServer(endpoint: Endpoint): Promise<Finding> {
  const name = "broker's certificate and protocol";
  return new Promise((resolve) => {
    const at = endpoint.address.lastIndexOf(":");
    const host = endpoint.address.slice(0, at).replace(/^\[(.*)\]$/, "$1");
    const where = endpoint.address.startsWith("unix:")
      ? { path: endpoint.address.slice("unix:".length) }
      : { host, port: Number(endpoint.address.slice(at + 1)) };
    const socket = connect({
      ...where,
      ca: endpoint.ca,
      cert: endpoint.certificate,
      key: endpoint.key,
      servername: endpoint.serverName ?? (/^[0-9.:]+$/.test(host) ? "" : host),
      ALPNProtocols: ["h2"],
      minVersion: "TLSv1.3",
      timeout: CONNECT_MS,
    });
    const done = (problem: string | undefined): void => {
      socket.destroy();
      resolve({ name, problem });
    };
    socket.once("secureConnect", () => done(socket.alpnProtocol === "h2" ? undefined : "it does not speak HTTP/2"));
    socket.once("timeout", () => done("no answer"));
    socket.once("error", (error: NodeJS.ErrnoException) => done(WORDS[error.code ?? ""] ?? error.code ?? "the handshake failed"));
  });
}

async function checkCall(endpoint: Endpoint): Promise<Finding> {
  const client = new Client(endpoint, CONNECT_MS);
  try {
    const { principal } = await client.call(IdentityService.method.whoAmI, {});
    return { name: `a call, as ${principal}`, problem: undefined };
  } catch (error) {
    if (!(error instanceof CallError)) return { name: "a call", problem: "failed" };
    const text = error.reason === "" ? transport(error) : [error.reason, error.metadata["certificate"], error.message].filter(Boolean).join(": ");
    return {
      name: "a call",
      problem: `${text}; everything above is ok, so the broker does not trust this certificate's CA, or has revoked it; its own log says which`,
    };
  } finally {
    client.close();
  }
}
