import { X509Certificate } from "node:crypto";
import { chmodSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect, createServer, type TLSSocket } from "node:tls";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { type DevPki, ensureDevPki, type Identity } from "../../src/dev/pki.ts";
import { authority, bundle, crl, identity, LEAF_NAMES, lookAlikeChain } from "../support/pki.ts";
import { tempFolder } from "../support/temp.ts";

const DAY = 86_400_000;
const FILES = ["ca", "server", "admin", "demo-app"].flatMap((name) => [`${name}.crt`, `${name}.key`]).toSorted();

const cert = (folder: string, name: string): X509Certificate => new X509Certificate(readFileSync(join(folder, `${name}.crt`)));
const contents = (folder: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(folder)
      .toSorted()
      .map((name) => [name, readFileSync(join(folder, name), "utf8")]),
  );

describe("the development PKI", () => {
  test("has a CA, a server and two clients with SPIFFE ids; keys are 0600 in a 0700 folder", async () => {
    const folder = join(tempFolder("pki"), "a", "pki");
    await ensureDevPki(folder);
    expect(readdirSync(folder).toSorted()).toEqual(FILES);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    for (const name of FILES.filter((file) => file.endsWith(".key"))) expect(statSync(join(folder, name)).mode & 0o777).toBe(0o600);
    expect(cert(folder, "server").subjectAltName).toBe("URI:spiffe://leasehold.dev/leasehold, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1");
    expect(cert(folder, "admin").subjectAltName).toBe("URI:spiffe://leasehold.dev/admin");
    expect(cert(folder, "demo-app").subjectAltName).toBe("URI:spiffe://leasehold.dev/ns/demo/sa/app");
    const ca = cert(folder, "ca");
    expect(ca.ca).toBe(true);
    for (const name of ["server", "admin", "demo-app"]) {
      expect(cert(folder, name)).toMatchObject({ ca: false });
      expect(cert(folder, name).checkIssued(ca) && cert(folder, name).verify(ca.publicKey)).toBe(true);
      expect(cert(folder, name).publicKey.asymmetricKeyDetails).toMatchObject({ namedCurve: "prime256v1" });
    }
  });

  test("what is good is kept, byte for byte; modes somebody widened are narrowed again", async () => {
    const folder = tempFolder("pki");
    await ensureDevPki(folder);
    const before = contents(folder);
    chmodSync(folder, 0o755);
    chmodSync(join(folder, "admin.key"), 0o644);
    await ensureDevPki(folder);
    expect(contents(folder)).toEqual(before);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(statSync(join(folder, "admin.key")).mode & 0o777).toBe(0o600);
  });

  test("certificates near their end are made anew by the same CA", async () => {
    const folder = tempFolder("pki");
    await ensureDevPki(folder);
    const before = contents(folder);
    await ensureDevPki(folder, Date.now() + 22 * DAY);
    expect(contents(folder)).toEqual(before);
    await ensureDevPki(folder, Date.now() + 24 * DAY);
    const after = contents(folder);
    expect(FILES.filter((name) => after[name] !== before[name])).toEqual(FILES.filter((name) => !name.startsWith("ca.")));
    expect(cert(folder, "admin").validToDate.getTime()).toBeGreaterThan(Date.now() + 50 * DAY);
  });

  test("with a CA near its end, everything is", async () => {
    const folder = tempFolder("pki");
    await ensureDevPki(folder);
    const before = contents(folder);
    await ensureDevPki(folder, Date.now() + 3640 * DAY);
    const after = contents(folder);
    expect(FILES.filter((name) => after[name] === before[name])).toEqual([]);
    expect(cert(folder, "admin").verify(cert(folder, "ca").publicKey)).toBe(true);
  });

  test.each<readonly [string, (folder: string) => void]>([
    ["a key is gone", (folder) => rmSync(join(folder, "admin.key"))],
    ["a certificate is cut short", (folder) => writeFileSync(join(folder, "admin.crt"), readFileSync(join(folder, "admin.crt"), "utf8").slice(0, 200))],
    ["a key is another's", (folder) => writeFileSync(join(folder, "admin.key"), readFileSync(join(folder, "demo-app.key")))],
  ])("when %s, that identity alone is made anew", async (_, damage) => {
    const folder = tempFolder("pki");
    await ensureDevPki(folder);
    const before = contents(folder);
    damage(folder);
    await ensureDevPki(folder);
    const after = contents(folder);
    expect(FILES.filter((name) => after[name] !== before[name])).toEqual(["admin.crt", "admin.key"]);
    expect(cert(folder, "admin").verify(cert(folder, "ca").publicKey)).toBe(true);
  });

  test("certificates of a CA that is gone are made anew", async () => {
    const [folder, other] = [tempFolder("pki"), tempFolder("pki")];
    await Promise.all([ensureDevPki(folder), ensureDevPki(other)]);
    for (const name of ["ca.crt", "ca.key"]) writeFileSync(join(folder, name), readFileSync(join(other, name)));
    await ensureDevPki(folder);
    for (const name of ["server", "admin", "demo-app"]) expect(cert(folder, name).verify(cert(folder, "ca").publicKey)).toBe(true);
  });

  test("its server and clients understand each other over TLS 1.3", async () => {
    const pki = await ensureDevPki(tempFolder("pki"));
    const { authorized, peer } = await handshake(pki, pki.clients["demo-app"]);
    expect({ authorized, name: peer.subjectAltName }).toEqual({ authorized: true, name: "URI:spiffe://leasehold.dev/ns/demo/sa/app" });
  });
});

describe("the certificates that tests are made of", () => {
  test("every one can be made, each with its key", async () => {
    for (const one of await Promise.all(LEAF_NAMES.map(identity))) {
      expect(new X509Certificate(one.certificatePem).subject).toContain("CN=");
      expect(one.keyPem).toMatch(/^-----BEGIN PRIVATE KEY-----\n/);
    }
    expect((await bundle("acme", "acme2")).match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
  });

  test("a CRL has the label that OpenSSL knows", async () => {
    const text = await crl("acme", ["2001"]);
    expect(text).toMatch(/^-----BEGIN X509 CRL-----\n[^-]+\n-----END X509 CRL-----\n$/);
  });

  test("finding 7: the look-alike names acme's root as its issuer, has beta's intermediate's name and key, and no signature of acme's", async () => {
    const { certificatePem } = await lookAlikeChain();
    const [leaf, lookAlike] = certificatePem.split(/(?=-----BEGIN)/).map((pem) => new X509Certificate(pem));
    const acme = new X509Certificate((await authority("acme")).certificatePem);
    const beta = new X509Certificate((await authority("betaIntermediate")).certificatePem);
    expect(lookAlike!.issuer).toBe(acme.subject);
    expect(lookAlike!.verify(acme.publicKey)).toBe(false);
    expect(lookAlike!.subject).toBe(beta.subject);
    expect(lookAlike!.publicKey.equals(beta.publicKey)).toBe(true);
    expect(leaf!.verify(lookAlike!.publicKey)).toBe(true);
    expect(lookAlike!.validToDate.getTime()).toBeLessThan(Date.now());
  });
});

async function handshake(pki: DevPki, client: Identity): Promise<{ authorized: boolean; peer: X509Certificate }> {
  const read = ({ certificate, key }: Identity): { cert: Buffer; key: Buffer } => ({ cert: readFileSync(certificate), key: readFileSync(key) });
  const ca = readFileSync(pki.ca);
  const server = createServer({ ...read(pki.server), ca, requestCert: true, rejectUnauthorized: false, minVersion: "TLSv1.3" });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const accepted = new Promise<TLSSocket>((resolve) => server.once("secureConnection", resolve));
  const socket = connect({ ...read(client), ca, host: "127.0.0.1", port: (server.address() as AddressInfo).port, servername: "localhost" });
  onTestFinished(() => void socket.destroy());
  await new Promise<void>((resolve, reject) => {
    socket.once("secureConnect", resolve);
    socket.once("error", reject);
  });
  const there = await accepted;
  return { authorized: there.authorized, peer: there.getPeerX509Certificate()! };
}
