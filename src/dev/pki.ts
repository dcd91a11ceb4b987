import { createPrivateKey, X509Certificate } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CertificateRequest, Issued } from "./certificates.ts";

export const DEV_TRUST_DOMAIN = "leasehold.dev";
const DAY = 86_400_000;
const CA_MS = 10 * 365 * DAY;
const LEAF_MS = 30 * DAY;
const RENEW_MS = 7 * DAY;

/** Files of one identity. */
export interface Identity {
  readonly certificate: string;
  readonly key: string;
}

export interface DevPki {
  readonly ca: string;
  readonly server: Identity;
  readonly clients: Readonly<Record<"admin" | "demo-app", Identity>>;
}

const LEAVES: Readonly<Record<string, Partial<CertificateRequest>>> = {
  server: { uris: [`spiffe://${DEV_TRUST_DOMAIN}/leasehold`], dns: ["localhost"], ips: ["127.0.0.1", "::1"] },
  admin: { uris: [`spiffe://${DEV_TRUST_DOMAIN}/admin`] },
  "demo-app": { uris: [`spiffe://${DEV_TRUST_DOMAIN}/ns/demo/sa/app`] },
};

/**
 * A certificate authority of our own with a server and two clients, in files below `folder` (0700; keys 0600). What is still good is kept; certificates within a week of their end,
 * cut short by a crash or not of this authority are made anew, from the same authority. The library that makes certificates (0.2 s to load) is only loaded when one has to be made.
 * @param now milliseconds since the epoch: what is good then.
 */
export async function ensureDevPki(folder: string, now = Date.now()): Promise<DevPki> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  chmodSync(folder, 0o700);
  const identity = (name: string): Identity => ({ certificate: join(folder, `${name}.crt`), key: join(folder, `${name}.key`) });
  const ca = identity("ca");
  if (read(ca, now + LEAF_MS) === undefined) {
    const { issueCertificate } = await import("./certificates.ts");
    write(
      ca,
      await issueCertificate({ name: "leasehold development CA", ca: true, uris: [`spiffe://${DEV_TRUST_DOMAIN}`], validForMs: CA_MS + now - Date.now() }),
    );
  }
  const authority = new X509Certificate(readFileSync(ca.certificate));
  const stale = Object.keys(LEAVES).filter((name) => !read(identity(name), now + RENEW_MS)?.verify(authority.publicKey));
  if (stale.length > 0) {
    const { issueCertificate, loadIssuer } = await import("./certificates.ts");
    const issuer = await loadIssuer(readFileSync(ca.certificate, "utf8"), readFileSync(ca.key, "utf8"));
    for (const name of stale) write(identity(name), await issueCertificate({ name, issuer, validForMs: LEAF_MS + now - Date.now(), ...LEAVES[name] }));
  }
  for (const name of ["ca", ...Object.keys(LEAVES)]) chmodSync(identity(name).key, 0o600);
  return { ca: ca.certificate, server: identity("server"), clients: { admin: identity("admin"), "demo-app": identity("demo-app") } };
}

/** The certificate, if both files are whole, belong together and it is still valid at `until`. */
function read({ certificate, key }: Identity, until: number): X509Certificate | undefined {
  try {
    const found = new X509Certificate(readFileSync(certificate));
    return found.checkPrivateKey(createPrivateKey(readFileSync(key))) && found.validToDate.getTime() > until ? found : undefined;
  } catch {
    return undefined;
  }
}

/** Each file appears whole, by rename. A crash between the two leaves a pair that does not match, which the next start makes anew. */
function write({ certificate, key }: Identity, issued: Issued): void {
  const unique = `.${process.pid}.new`;
  for (const [path, text, mode] of [
    [key, issued.keyPem, 0o600],
    [certificate, issued.certificatePem, 0o644],
  ] as const) {
    rmSync(path + unique, { force: true });
    writeFileSync(path + unique, text, { mode, flag: "wx" });
    renameSync(path + unique, path);
  }
}
