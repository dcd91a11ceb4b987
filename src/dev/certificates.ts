// oxlint-disable-next-line import/no-unassigned-import -- @peculiar/x509 throws without it (finding C6)
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";

x509.cryptoProvider.set(webcrypto as never);

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
const USAGE = x509.KeyUsageFlags;

/** Key usages by name, for those who make certificates that are wrong on purpose. */
export const KEY_USAGE = {
  digitalSignature: USAGE.digitalSignature,
  keyCertSign: USAGE.keyCertSign,
  cRLSign: USAGE.cRLSign,
  keyAgreement: USAGE.keyAgreement,
} as const;

export interface Issued {
  readonly certificatePem: string;
  /** PKCS#8. */
  readonly keyPem: string;
  readonly notAfter: Date;
  readonly serial: string;
  readonly x509: x509.X509Certificate;
  readonly keys: webcrypto.CryptoKeyPair;
}

export interface CertificateRequest {
  readonly name: string;
  /** Self-signed without. */
  readonly issuer?: Pick<Issued, "x509" | "keys"> | undefined;
  readonly uris?: readonly string[];
  readonly dns?: readonly string[];
  readonly ips?: readonly string[];
  readonly ca?: boolean;
  /** Key usage bits; null leaves the extension out. */
  readonly usage?: number | null;
  readonly extendedUsage?: readonly string[];
  /** Milliseconds from now. */
  readonly validFromMs?: number;
  readonly validForMs: number;
  /** Hexadecimal. */
  readonly serial?: string;
  /** New ones without. Given, the certificate is one more for a key that has one. */
  readonly keys?: webcrypto.CryptoKeyPair;
}

export async function issueCertificate(request: CertificateRequest): Promise<Issued> {
  const keys = request.keys ?? (await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]));
  const ca = request.ca ?? false;
  const usage = request.usage === undefined ? (ca ? USAGE.keyCertSign | USAGE.cRLSign : USAGE.digitalSignature) : request.usage;
  const names = [
    ...(request.uris ?? []).map((value) => ({ type: "url" as const, value })),
    ...(request.dns ?? []).map((value) => ({ type: "dns" as const, value })),
    ...(request.ips ?? []).map((value) => ({ type: "ip" as const, value })),
  ];
  const now = Date.now();
  const notAfter = new Date(now + request.validForMs);
  const common = {
    serialNumber: request.serial ?? randomSerial(),
    notBefore: new Date(now + (request.validFromMs ?? -60_000)),
    notAfter,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(ca, undefined, true),
      ...(usage === null ? [] : [new x509.KeyUsagesExtension(usage, true)]),
      ...(ca ? [] : [new x509.ExtendedKeyUsageExtension([...(request.extendedUsage ?? [SERVER_AUTH, CLIENT_AUTH])])]),
      ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names)]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ...(request.issuer === undefined ? [] : [await x509.AuthorityKeyIdentifierExtension.create(request.issuer.keys.publicKey)]),
    ],
  };
  const certificate =
    request.issuer === undefined
      ? await x509.X509CertificateGenerator.createSelfSigned({ ...common, name: `CN=${request.name}`, keys })
      : await x509.X509CertificateGenerator.create({
          ...common,
          subject: `CN=${request.name}`,
          issuer: request.issuer.x509.subject,
          publicKey: keys.publicKey,
          signingKey: request.issuer.keys.privateKey,
        });
  return {
    certificatePem: `${certificate.toString("pem")}\n`,
    keyPem: await keyPem(keys.privateKey),
    notAfter,
    serial: certificate.serialNumber,
    x509: certificate,
    keys,
  };
}

/** An issuer as it was written to disk. */
export async function loadIssuer(certificatePem: string, pem: string): Promise<Pick<Issued, "x509" | "keys">> {
  const der = Buffer.from(pem.replaceAll(/-----[A-Z ]+-----|\s/g, ""), "base64");
  const privateKey = await webcrypto.subtle.importKey("pkcs8", der, ALGORITHM, true, ["sign"]);
  const certificate = new x509.X509Certificate(certificatePem);
  const publicKey = await certificate.publicKey.export(ALGORITHM, ["verify"]);
  return { x509: certificate, keys: { privateKey, publicKey: publicKey as webcrypto.CryptoKey } };
}

export interface CrlRequest {
  readonly issuer: Pick<Issued, "x509" | "keys">;
  readonly serials: readonly string[];
  /** Milliseconds from now. */
  readonly nextUpdateMs: number;
}

/** A certificate revocation list in PEM, under the label that OpenSSL and Node know. */
export async function createCrl(request: CrlRequest): Promise<string> {
  const crl = await x509.X509CrlGenerator.create({
    issuer: request.issuer.x509.subject,
    thisUpdate: new Date(Date.now() - 60_000),
    nextUpdate: new Date(Date.now() + request.nextUpdateMs),
    entries: request.serials.map((serialNumber) => ({ serialNumber, revocationDate: new Date() })),
    signingAlgorithm: ALGORITHM,
    signingKey: request.issuer.keys.privateKey,
  });
  return `${crl.toString("pem").replaceAll(" CRL-", " X509 CRL-").replaceAll("X509 X509", "X509")}\n`;
}

async function keyPem(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", key));
  const lines = der
    .toString("base64")
    .replaceAll(/(.{64})/g, "$1\n")
    .trim();
  return `-----BEGIN PRIVATE KEY-----\n${lines}\n-----END PRIVATE KEY-----\n`;
}

/** 127 random bits: positive, as RFC 5280 wants. */
function randomSerial(): string {
  const bytes = Buffer.from(webcrypto.getRandomValues(new Uint8Array(16)));
  bytes[0] = (bytes[0]! & 0x7f) | 0x40;
  return bytes.toString("hex");
}
