import { createHash, X509Certificate } from "node:crypto";
import { LeaseholdError } from "../base/errors.ts";
import { KEY_USAGE, readCertificate } from "./certificate.ts";
import { type Crl, parseCrl } from "./crl.ts";
import { pemBlocks, toPem } from "./pem.ts";
import { type Issuer, Revocations } from "./revocations.ts";

/** Where a trust domain's material is, and what to do when a revocation list is past its next update. Paths are absolute. */
export interface TrustDomainFiles {
  readonly trustDomain: string;
  readonly bundleFile: string;
  readonly crlFile: string | undefined;
  readonly crlExpired: "refuse" | "accept";
}

/** Whose certificates are believed for the SPIFFE ids of one trust domain: immutable, replaced as a whole. */
export interface TrustDomain {
  readonly name: string;
  readonly roots: readonly Issuer[];
  /** The roots again, for a TLS context. */
  readonly caPem: string;
  readonly revocations: Revocations;
  /** Change when the roots, or the lists with their policy, do. */
  readonly rootsDigest: string;
  readonly crlDigest: string;
  /** What an operator should know, though it works. */
  readonly warnings: readonly string[];
}

/**
 * Checks a bundle block by block, and every revocation list. (Handed to a TLS context as it is, a broken or empty bundle is taken in silence, and then
 * every client is refused.) Expired roots are left out with a warning: bundles keep them for a while.
 * @param crl undefined: no revocation list is configured. An empty one is a mistake.
 * Throws REQUEST_INVALID that names the file and what is wrong with it.
 */
export function readTrustDomain(files: TrustDomainFiles, bundle: string, crl: string | undefined, now: number): TrustDomain {
  const warnings: string[] = [];
  const roots = inFile(files.bundleFile, () => readBundle(bundle, now, warnings));
  const lists = crl === undefined ? [] : inFile(files.crlFile ?? "", () => readCrls(crl));
  const revocations = inFile(files.crlFile ?? "", () => new Revocations(lists, roots, files.crlExpired, now));
  for (const name of revocations.uncovered) warnings.push(`${files.trustDomain}: no revocation list of ${name}`);
  if (lists.some((list) => list.nextUpdate !== undefined && list.nextUpdate <= now)) warnings.push(`${files.trustDomain}: a revocation list is out of date`);
  const caPem = roots.map((root) => toPem("CERTIFICATE", root.certificate.raw)).join("");
  return {
    name: files.trustDomain,
    roots,
    caPem,
    revocations,
    rootsDigest: digest(files.trustDomain, caPem),
    crlDigest: digest(files.crlExpired, crl ?? ""),
    warnings,
  };
}

function readBundle(text: string, now: number, warnings: string[]): Issuer[] {
  const roots = new Map<string, Issuer>();
  for (const [i, block] of pemBlocks(text).entries()) {
    const at = `block ${i + 1}`;
    if (block.label !== "CERTIFICATE") throw new Error(`${at} is not a certificate`);
    const root = readRoot(block.der, at);
    const { certificate, fields } = root;
    if (!fields.isCa) throw new Error(`${at} is not a CA's certificate`);
    if (fields.keyUsage !== undefined && !(fields.keyUsage & KEY_USAGE.keyCertSign)) throw new Error(`${at} may not sign certificates`);
    if (certificate.validToDate.getTime() <= now) warnings.push(`${at} of a bundle has expired and is left out`);
    else roots.set(certificate.fingerprint256, root);
  }
  if (roots.size === 0) throw new Error(warnings.length > 0 ? "every certificate has expired" : "has no certificate");
  return [...roots.values()];
}

function readRoot(der: Buffer, at: string): Issuer {
  try {
    const certificate = new X509Certificate(der);
    return { certificate, fields: readCertificate(certificate.raw) };
  } catch (cause) {
    throw new Error(`${at} can't be read as a certificate`, { cause });
  }
}

function readCrls(text: string): Crl[] {
  const lists = pemBlocks(text).map((block, i) => {
    if (block.label !== "X509 CRL" && block.label !== "CRL") throw new Error(`block ${i + 1} is not a revocation list`);
    try {
      return parseCrl(block.der);
    } catch (cause) {
      throw new Error(`block ${i + 1} can't be read as a revocation list (${(cause as Error).message})`, { cause });
    }
  });
  if (lists.length === 0) throw new Error("has no revocation list");
  return lists;
}

function inFile<T>(file: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    const description = (cause as Error).message;
    throw new LeaseholdError("REQUEST_INVALID", `${file}: ${description}`, { violations: [{ field: file, description }], cause });
  }
}

function digest(...parts: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}
