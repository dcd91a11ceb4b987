import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type CertificateRequest, createCrl, type Issued, issueCertificate, KEY_USAGE } from "../../src/dev/certificates.ts";

/** Two trust domains that we trust (acme.test with a second root, beta.test) and one that nobody does. Everything is made on first use and kept. */
export const ACME = "acme.test";
export const BETA = "beta.test";
const DAY = 86_400_000;

export type AuthorityName = "acme" | "acmeIntermediate" | "acme2" | "beta" | "betaIntermediate" | "evil";

const AUTHORITIES: Readonly<Record<AuthorityName, { readonly issuer?: AuthorityName }>> = {
  acme: {},
  acmeIntermediate: { issuer: "acme" },
  acme2: {},
  beta: {},
  betaIntermediate: { issuer: "beta" },
  evil: {},
};

/** A leaf with what it presents and proves, in PEM. */
export interface TestIdentity {
  /** The leaf, then the intermediates that it presents. */
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly issued: Issued;
}

interface Leaf extends Partial<CertificateRequest> {
  readonly by: AuthorityName;
  readonly presents?: readonly AuthorityName[];
}

const at = (domain: string, path: string): string[] => [`spiffe://${domain}/${path}`];
const LOCAL = { dns: ["localhost"], ips: ["127.0.0.1", "::1"], uris: at(ACME, "leasehold") };

/** The issue's "Bad input" list, with the good ones that the bad ones differ from. */
const LEAVES = {
  server: { by: "acme", ...LOCAL },
  serverNext: { by: "acme", ...LOCAL },
  serverExpired: { by: "acme", ...LOCAL, validFromMs: -2 * DAY, validForMs: -DAY },
  app: { by: "acme", uris: at(ACME, "ns/payments/sa/app") },
  otherApp: { by: "acme", uris: at(ACME, "ns/billing/sa/app") },
  admin: { by: "acme", uris: at(ACME, "admin") },
  appOfSecondRoot: { by: "acme2", uris: at(ACME, "ns/payments/sa/app2") },
  appOfIntermediate: { by: "acmeIntermediate", uris: at(ACME, "ns/payments/sa/inter"), presents: ["acmeIntermediate"] },
  intermediateMissing: { by: "acmeIntermediate", uris: at(ACME, "ns/payments/sa/inter") },
  betaApp: { by: "beta", uris: at(BETA, "ns/x/sa/app") },
  betaClaimsAcme: { by: "beta", uris: at(ACME, "admin") },
  foreignCa: { by: "evil", uris: at(ACME, "admin") },
  expired: { by: "acme", uris: at(ACME, "expired"), validFromMs: -2 * DAY, validForMs: -DAY },
  notYetValid: { by: "acme", uris: at(ACME, "not-yet"), validFromMs: DAY, validForMs: 2 * DAY },
  twoUris: { by: "acme", uris: [...at(ACME, "a"), ...at(ACME, "b")] },
  noSan: { by: "acme" },
  dnsOnly: { by: "acme", dns: ["app.acme.test"] },
  httpUri: { by: "acme", uris: ["https://acme.test/app"] },
  caLeaf: { by: "acme", uris: at(ACME, "ca-leaf"), ca: true, usage: KEY_USAGE.digitalSignature | KEY_USAGE.keyCertSign },
  noKeyUsage: { by: "acme", uris: at(ACME, "no-usage"), usage: null },
  noDigitalSignature: { by: "acme", uris: at(ACME, "no-signature"), usage: KEY_USAGE.keyAgreement },
  mayCertSign: { by: "acme", uris: at(ACME, "cert-sign"), usage: KEY_USAGE.digitalSignature | KEY_USAGE.keyCertSign },
  mayCrlSign: { by: "acme", uris: at(ACME, "crl-sign"), usage: KEY_USAGE.digitalSignature | KEY_USAGE.cRLSign },
  serverAuthOnly: { by: "acme", uris: at(ACME, "server-only"), extendedUsage: ["1.3.6.1.5.5.7.3.1"] },
  revoked: { by: "acme", uris: at(ACME, "revoked"), serial: "2001" },
  sameSerialOfBeta: { by: "beta", uris: at(BETA, "same-serial"), serial: "2001" },
} as const satisfies Readonly<Record<string, Leaf>>;

export type LeafName = keyof typeof LEAVES;
export const LEAF_NAMES = Object.keys(LEAVES) as readonly LeafName[];

const authorities = new Map<AuthorityName, Promise<Issued>>();
const leaves = new Map<LeafName, Promise<TestIdentity>>();

export function authority(name: AuthorityName): Promise<Issued> {
  return once(authorities, name, async () => {
    const { issuer } = AUTHORITIES[name];
    return issueCertificate({ name, ca: true, issuer: issuer === undefined ? undefined : await authority(issuer), validForMs: 30 * DAY });
  });
}

export function identity(name: LeafName): Promise<TestIdentity> {
  return once(leaves, name, () => issueLeaf(name, LEAVES[name]));
}

/** One of the test's own making, such as a certificate that ends in two seconds. */
export async function issueLeaf(name: string, leaf: Leaf): Promise<TestIdentity> {
  const { by, presents = [], ...request } = leaf;
  const issued = await issueCertificate({ validForMs: 30 * DAY, name, issuer: await authority(by), ...request });
  return present(issued, await Promise.all(presents.map(authority)));
}

/**
 * The chain of attack finding 7: a client of beta.test that names itself acme's admin and adds an expired certificate with the name and key of
 * its own intermediate, whose issuer is said to be acme's root and whose signature is not acme's. Node 20 shows it as a chain to acme.
 */
export async function lookAlikeChain(): Promise<TestIdentity> {
  const [acme, beta, evil] = await Promise.all([authority("acme"), authority("betaIntermediate"), authority("evil")]);
  const leaf = await issueCertificate({ name: "look-alike", issuer: beta, uris: at(ACME, "admin"), validForMs: 30 * DAY });
  const lookAlike = await issueCertificate({
    name: "betaIntermediate",
    ca: true,
    keys: beta.keys,
    issuer: { x509: acme.x509, keys: { privateKey: evil.keys.privateKey, publicKey: acme.keys.publicKey } },
    validFromMs: -2 * DAY,
    validForMs: -DAY,
  });
  return present(leaf, [lookAlike, beta]);
}

/** Bundle of roots, as a trust domain's `ca` file. */
export async function bundle(...names: readonly AuthorityName[]): Promise<string> {
  return (await Promise.all(names.map(authority))).map((root) => root.certificatePem).join("");
}

/** A CRL of that authority, valid for a day (or, with `nextUpdateMs` below 0, out of date), in PEM. */
export async function crl(by: AuthorityName, serials: readonly string[] = [], nextUpdateMs = DAY): Promise<string> {
  return createCrl({ issuer: await authority(by), serials, nextUpdateMs });
}

/** `<name>.crt` and `<name>.key` (0600) in `folder`; writing again replaces them, as a renewal does. */
export function writeIdentity(
  folder: string,
  name: string,
  { certificatePem, keyPem }: Pick<TestIdentity, "certificatePem" | "keyPem">,
): { readonly certificate: string; readonly key: string } {
  const files = { certificate: join(folder, `${name}.crt`), key: join(folder, `${name}.key`) };
  writeFileSync(files.certificate, certificatePem);
  writeFileSync(files.key, keyPem, { mode: 0o600 });
  return files;
}

function present(issued: Issued, chain: readonly Issued[]): TestIdentity {
  return { certificatePem: [issued, ...chain].map((one) => one.certificatePem).join(""), keyPem: issued.keyPem, issued };
}

function once<K, V>(cache: Map<K, Promise<V>>, key: K, make: () => Promise<V>): Promise<V> {
  let value = cache.get(key);
  if (value === undefined) cache.set(key, (value = make()));
  return value;
}
