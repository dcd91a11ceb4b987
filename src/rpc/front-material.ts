import { constants, createHash, createPrivateKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls";
import { LeaseholdError } from "../base/errors.ts";
import { readCertificate, SERVER_AUTH } from "../identity/certificate.ts";
import { pemBlocks } from "../identity/pem.ts";
import { readTrustDomain, type TrustDomain, type TrustDomainFiles } from "../identity/trust-domain.ts";

export interface FrontFiles {
  /** The server's certificate, its intermediates after it. */
  readonly certificateFile: string;
  readonly keyFile: string;
  /** At least one. The first is whose context a connection gets that asks for no other. */
  readonly trust: readonly TrustDomainFiles[];
}

/** One good set of everything the front reads from files; replaced as a whole or not at all. */
export interface Material {
  readonly domains: ReadonlyMap<string, TrustDomain>;
  readonly defaultDomain: TrustDomain;
  /** One TLS context per trust domain (ADR 0003), by name. */
  readonly contexts: ReadonlyMap<string, SecureContext>;
  /** For `tls.createServer` and `setSecureContext`, which forgets whatever is not said again: the default domain's context, whole. */
  readonly options: SecureContextOptions;
  /** When the server's certificate ends, Unix milliseconds. */
  readonly notAfter: number;
  readonly pairDigest: string;
  readonly rootsDigest: string;
  readonly crlDigest: string;
  readonly warnings: readonly string[];
}

/** Every file that the front reads. */
export function filesOf({ certificateFile, keyFile, trust }: FrontFiles): string[] {
  return [certificateFile, keyFile, ...trust.flatMap((domain) => [domain.bundleFile, ...(domain.crlFile === undefined ? [] : [domain.crlFile])])];
}

/** What is in the files, by path. */
export type FileTexts = ReadonlyMap<string, string>;

/** Throws REQUEST_INVALID that names a file that can't be read. */
export async function readFiles(files: FrontFiles): Promise<FileTexts> {
  return new Map(await Promise.all(filesOf(files).map(async (file): Promise<[string, string]> => [file, await read(file)])));
}

/** Reads and checks all files, as the start does: see `checkMaterial`. */
export async function loadMaterial(files: FrontFiles, now: number): Promise<Material> {
  return checkMaterial(files, await readFiles(files), now);
}

/**
 * Checks all files. OpenSSL takes an expired certificate and a broken or empty bundle in silence (tried), so the checks are ours: the key is the
 * certificate's, dates, chain, every CA block, every list. Throws REQUEST_INVALID that names file and fault, and never what is in a file.
 */
export function checkMaterial(files: FrontFiles, texts: FileTexts, now: number): Material {
  const text = (file: string): string => texts.get(file) ?? "";
  const [certificate, key] = [text(files.certificateFile), text(files.keyFile)];
  const trust = files.trust.map((domain) =>
    readTrustDomain(domain, text(domain.bundleFile), domain.crlFile === undefined ? undefined : text(domain.crlFile), now),
  );
  const [defaultDomain] = trust;
  if (defaultDomain === undefined) throw new LeaseholdError("REQUEST_INVALID", "no trust domain is configured");
  const notAfter = checkPair(files, certificate, key, now);
  const optionsFor = (domain: TrustDomain): SecureContextOptions => contextOptions(certificate, key, domain);
  return {
    domains: new Map(trust.map((domain) => [domain.name, domain])),
    defaultDomain,
    contexts: new Map(trust.map((domain) => [domain.name, build(files, optionsFor(domain))])),
    options: optionsFor(defaultDomain),
    notAfter,
    pairDigest: digest([certificate, key]),
    rootsDigest: digest(trust.map((domain) => domain.rootsDigest)),
    crlDigest: digest(trust.map((domain) => domain.crlDigest)),
    warnings: trust.flatMap((domain) => domain.warnings),
  };
}

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, "latin1");
  } catch (cause) {
    throw wrong(file, `can't be read (${(cause as NodeJS.ErrnoException).code ?? "unknown"})`, cause);
  }
}

/** Answers when the certificate ends. */
function checkPair({ certificateFile, keyFile }: FrontFiles, certificate: string, key: string, now: number): number {
  const chain = readChain(certificateFile, certificate);
  const leaf = chain[0]!;
  const usages = readCertificate(leaf.raw).extendedKeyUsage;
  if (usages !== undefined && !usages.includes(SERVER_AUTH)) throw wrong(certificateFile, "extended key usage lacks serverAuth");
  for (const [i, link] of chain.entries()) {
    if (link.validToDate.getTime() <= now) throw wrong(certificateFile, `certificate ${i + 1} has expired`);
    if (link.validFromDate.getTime() > now) throw wrong(certificateFile, `certificate ${i + 1} is not yet valid`);
    const above = chain[i + 1];
    if (above !== undefined && !(link.checkIssued(above) && link.verify(above.publicKey)))
      throw wrong(certificateFile, `certificate ${i + 1} is not issued by the one after it`);
  }
  let belongs: boolean;
  try {
    belongs = leaf.checkPrivateKey(createPrivateKey(key));
  } catch {
    // The cause may quote the input.
    throw wrong(keyFile, "can't be read as an unencrypted private key");
  }
  if (!belongs) throw wrong(keyFile, "is not the key of the certificate");
  return Math.min(...chain.map((link) => link.validToDate.getTime()));
}

function readChain(file: string, text: string): X509Certificate[] {
  let chain: X509Certificate[];
  try {
    chain = pemBlocks(text).map(({ der }) => new X509Certificate(der));
  } catch (cause) {
    throw wrong(file, "can't be read as certificates", cause);
  }
  if (chain.length === 0) throw wrong(file, "has no certificate");
  return chain;
}

function contextOptions(cert: string, key: string, domain: TrustDomain): SecureContextOptions {
  return {
    cert,
    key,
    ca: domain.caPem,
    minVersion: "TLSv1.3",
    // A resumed session outlives its certificate (finding 13).
    secureOptions: constants.SSL_OP_NO_TICKET,
    // A bundle's certificates are all trust anchors, self-signed or not.
    allowPartialTrustChain: true,
  };
}

function build(files: FrontFiles, options: SecureContextOptions): SecureContext {
  try {
    return createSecureContext(options);
  } catch (cause) {
    throw wrong(files.certificateFile, "makes no TLS context", cause);
  }
}

function wrong(file: string, description: string, cause?: unknown): LeaseholdError {
  return new LeaseholdError("REQUEST_INVALID", `${file}: ${description}`, { violations: [{ field: file, description }], cause });
}

function digest(parts: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}
