import { X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
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
 * A certificate authority of our own with a server and two clients, in files below `folder` (0700; keys 0600). What is still good is kept; certificates within a week of their end
 * are made anew, from the same authority. The library that makes certificates (0.2 s to load) is only loaded when one has to be made.
 */
export async function ensureDevPki(folder: string): Promise<DevPki> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const identity = (name: string): Identity => ({ certificate: join(folder, `${name}.crt`), key: join(folder, `${name}.key`) });
  const ca = identity("ca");
  const stale = Object.keys(LEAVES).filter((name) => !isGood(identity(name), RENEW_MS));
  if (!isGood(ca, LEAF_MS) || stale.length > 0) {
    const { issueCertificate, loadIssuer } = await import("./certificates.ts");
    const fresh = !isGood(ca, LEAF_MS);
    if (fresh) write(ca, await issueCertificate({ name: "leasehold development CA", ca: true, uris: [`spiffe://${DEV_TRUST_DOMAIN}`], validForMs: CA_MS }));
    const issuer = await loadIssuer(readFileSync(ca.certificate, "utf8"), readFileSync(ca.key, "utf8"));
    for (const name of fresh ? Object.keys(LEAVES) : stale) write(identity(name), await issueCertificate({ name, issuer, validForMs: LEAF_MS, ...LEAVES[name] }));
  }
  return { ca: ca.certificate, server: identity("server"), clients: { admin: identity("admin"), "demo-app": identity("demo-app") } };
}

function isGood({ certificate, key }: Identity, leftMs: number): boolean {
  if (!existsSync(certificate) || !existsSync(key)) return false;
  try {
    return new X509Certificate(readFileSync(certificate)).validToDate.getTime() - Date.now() > leftMs;
  } catch {
    return false;
  }
}

/** The key first, each by rename: a certificate that is there always has its whole key beside it. */
function write({ certificate, key }: Identity, issued: Issued): void {
  writeFileSync(`${key}.new`, issued.keyPem, { mode: 0o600 });
  writeFileSync(`${certificate}.new`, issued.certificatePem, { mode: 0o644 });
  renameSync(`${key}.new`, key);
  renameSync(`${certificate}.new`, certificate);
}
