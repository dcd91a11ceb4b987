import { beforeAll, describe, expect, test } from "vitest";
import { createCrl, type Issued, issueCertificate, KEY_USAGE } from "../../src/dev/certificates.ts";
import { pemBlocks, toPem } from "../../src/identity/pem.ts";
import { readTrustDomain } from "../../src/identity/trust-domain.ts";

const DAY = 86_400_000;
const NOW = Date.now();
let root: Issued;
let second: Issued;

beforeAll(async () => {
  root = await issueCertificate({ name: "root", ca: true, validForMs: DAY });
  second = await issueCertificate({ name: "second", ca: true, validForMs: DAY });
});

describe("a trust bundle", () => {
  test("is every CA certificate in it, comments and repetitions aside", () => {
    const domain = read(`# acme\n${root.certificatePem}\nsome text\n${second.certificatePem}${root.certificatePem}`);
    expect(domain.roots.map((one) => one.certificate.subject)).toEqual(["CN=root", "CN=second"]);
    expect(pemBlocks(domain.caPem)).toHaveLength(2);
  });

  test.each<[string, () => string | Promise<string>, string]>([
    ["nothing", () => "", "has no certificate"],
    ["no block", () => "garbage", "has no certificate"],
    ["half a block at its end", () => root.certificatePem + second.certificatePem.slice(0, 200), "block 2 is damaged"],
    ["a block without its begin", () => `${root.certificatePem}-----END CERTIFICATE-----\n`, "block 2 is damaged"],
    ["a block of other bytes", () => root.certificatePem + toPem("CERTIFICATE", Buffer.from("not a certificate")), "block 2 can't be read as a certificate"],
    ["a private key", () => root.certificatePem + root.keyPem, "block 2 is not a certificate"],
    ["a leaf", async () => (await issueCertificate({ name: "leaf", issuer: root, validForMs: DAY })).certificatePem, "block 1 is not a CA's certificate"],
    [
      "a CA that may not sign",
      async () => (await issueCertificate({ name: "x", ca: true, usage: KEY_USAGE.cRLSign, validForMs: DAY })).certificatePem,
      "block 1 may not sign certificates",
    ],
    [
      "expired roots alone",
      async () => (await issueCertificate({ name: "x", ca: true, validFromMs: -2 * DAY, validForMs: -DAY })).certificatePem,
      "every certificate has expired",
    ],
  ])("with %s is refused, and the file named", async (_name, bundle, fault) => {
    const text = await bundle();
    expect(() => read(text)).toThrow(`bundle.pem: ${fault}`);
  });

  test("keeps its good roots when another has expired, and says so", async () => {
    const old = await issueCertificate({ name: "old", ca: true, validFromMs: -2 * DAY, validForMs: -DAY });
    const domain = read(old.certificatePem + root.certificatePem);
    expect(domain.roots.map((one) => one.certificate.subject)).toEqual(["CN=root"]);
    expect(domain.warnings).toEqual(["block 1 of a bundle has expired and is left out"]);
  });
});

describe("a revocation list", () => {
  test.each<[string, () => string | Promise<string>, string]>([
    ["nothing (CVE-2022-41316, lesson 40)", () => "", "has no revocation list"],
    ["a certificate", () => root.certificatePem, "block 1 is not a revocation list"],
    ["other bytes", () => toPem("X509 CRL", Buffer.from("3003020101", "hex")), "block 1 can't be read as a revocation list"],
    [
      "a list that its CA did not sign",
      async () => createCrl({ issuer: { x509: root.x509, keys: second.keys }, serials: [], nextUpdateMs: DAY }),
      "list 1 is not signed by the CA it names",
    ],
  ])("file with %s is refused", async (_name, crl, fault) => {
    const text = await crl();
    expect(() => read(root.certificatePem, text)).toThrow(`crl.pem: ${fault}`);
  });

  test("whose bytes were changed is refused, wherever they were", async () => {
    const [block] = pemBlocks(await createCrl({ issuer: root, serials: ["0a"], nextUpdateMs: DAY }));
    const { der } = block!;
    expect(der.length).toBeGreaterThan(100);
    for (let at = 0; at < der.length; at++) {
      const changed = Buffer.from(der);
      changed[at]! ^= 0x01;
      const domain = attempt(() => read(root.certificatePem, toPem("X509 CRL", changed)));
      // A changed issuer makes it another CA's list: it then counts for nobody here.
      if (domain !== undefined) expect(domain.warnings).toContain("acme.test: no revocation list of CN=root");
    }
  });

  test("takes both labels and several lists", async () => {
    const [one, two] = [await createCrl({ issuer: root, serials: [], nextUpdateMs: DAY }), await createCrl({ issuer: second, serials: [], nextUpdateMs: DAY })];
    expect(read(root.certificatePem + second.certificatePem, one + two.replaceAll("X509 CRL", "CRL")).warnings).toEqual([]);
  });

  test("changes its digest alone", async () => {
    const one = read(root.certificatePem, await createCrl({ issuer: root, serials: [], nextUpdateMs: DAY }));
    const two = read(root.certificatePem, await createCrl({ issuer: root, serials: ["01"], nextUpdateMs: DAY }));
    expect(two.rootsDigest).toBe(one.rootsDigest);
    expect(two.crlDigest).not.toBe(one.crlDigest);
  });
});

function read(bundle: string, crl?: string) {
  const files = { trustDomain: "acme.test", bundleFile: "bundle.pem", crlFile: crl === undefined ? undefined : "crl.pem", crlExpired: "refuse" as const };
  return readTrustDomain(files, bundle, crl, NOW);
}

function attempt<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch {
    return undefined;
  }
}
