import { X509Certificate } from "node:crypto";
import { beforeAll, describe, expect, test } from "vitest";
import { type CertificateRequest, createCrl, type Issued, issueCertificate, KEY_USAGE } from "../../src/dev/certificates.ts";
import { identifyPeer, type Peer } from "../../src/identity/peer.ts";
import { parseSpiffeId } from "../../src/identity/spiffe-id.ts";
import { readTrustDomain, type TrustDomain } from "../../src/identity/trust-domain.ts";

const DAY = 86_400_000;
const APP = "spiffe://acme.test/ns/payments/sa/app";
const NOW = Date.now();

let root: Issued;
let other: Issued;
let acme: TrustDomain;

beforeAll(async () => {
  root = await ca("acme root");
  other = await ca("other root");
  acme = domain([root]);
});

describe("a client's certificate", () => {
  test("is its SPIFFE id", async () => {
    const leaf = await issue({ uris: [APP] });
    expect(identify([leaf])).toEqual({
      principal: { id: APP, trustDomain: "acme.test", segments: ["ns", "payments", "sa", "app"] },
      notAfter: pem(leaf).validToDate.getTime(),
    });
  });

  test("beside a DNS name, with one URI", async () => {
    expect(identify([await issue({ uris: [APP], dns: ["app.acme.test"] })])).toMatchObject({ principal: { id: APP } });
  });

  const WRONG: Record<string, [Partial<CertificateRequest>, string]> = {
    "no URI name": [{}, "NO_SPIFFE_ID"],
    "a DNS name alone": [{ dns: ["app.acme.test"] }, "NO_SPIFFE_ID"],
    "two URI names": [{ uris: [APP, "spiffe://acme.test/b"] }, "SEVERAL_SPIFFE_IDS"],
    "a URI of another scheme": [{ uris: ["https://acme.test/app"] }, "BAD_SPIFFE_ID"],
    "an upper-case trust domain": [{ uris: ["spiffe://ACME.test/app"] }, "BAD_SPIFFE_ID"],
    "a trust domain alone": [{ uris: ["spiffe://acme.test"] }, "BAD_SPIFFE_ID"],
    "another trust domain's name": [{ uris: ["spiffe://beta.test/app"] }, "OTHER_TRUST_DOMAIN"],
    "CA:TRUE with digitalSignature": [{ uris: [APP], ca: true, usage: KEY_USAGE.digitalSignature }, "CA_LEAF"],
    "CA:TRUE with everything": [{ uris: [APP], ca: true, usage: KEY_USAGE.digitalSignature | KEY_USAGE.keyCertSign }, "CA_LEAF"],
    "no key usage": [{ uris: [APP], usage: null }, "KEY_USAGE"],
    "no digitalSignature": [{ uris: [APP], usage: KEY_USAGE.keyAgreement }, "KEY_USAGE"],
    "keyCertSign beside digitalSignature": [{ uris: [APP], usage: KEY_USAGE.digitalSignature | KEY_USAGE.keyCertSign }, "KEY_USAGE"],
    "cRLSign beside digitalSignature": [{ uris: [APP], usage: KEY_USAGE.digitalSignature | KEY_USAGE.cRLSign }, "KEY_USAGE"],
    "serverAuth alone": [{ uris: [APP], extendedUsage: ["1.3.6.1.5.5.7.3.1"] }, "EXTENDED_KEY_USAGE"],
    "a past end": [{ uris: [APP], validFromMs: -2 * DAY, validForMs: -DAY }, "EXPIRED"],
    "a future begin": [{ uris: [APP], validFromMs: DAY, validForMs: 2 * DAY }, "NOT_YET_VALID"],
  };
  test.each(Object.entries(WRONG))("with %s is refused (lesson 39)", async (_name, [request, refusal]) => {
    expect(identify([await issue(request)])).toEqual({ refusal });
  });

  test("that OpenSSL found no path for is refused, though we find one", async () => {
    expect(identify([await issue({ uris: [APP] })], { authorized: false })).toEqual({ refusal: "UNTRUSTED" });
  });

  test("that is absent is refused", () => {
    expect(identifyPeer({ chain: [], authorized: false, domain: acme }, NOW)).toEqual({ refusal: "NO_CERTIFICATE" });
  });

  test("of a trust domain that is configured no more is refused", async () => {
    expect(identify([await issue({ uris: [APP] })], { domain: undefined })).toEqual({ refusal: "OTHER_TRUST_DOMAIN" });
  });
});

describe("the path", () => {
  test("goes over an intermediate, and ends with its first certificate", async () => {
    const between = await ca("between", root, 10_000_000);
    const leaf = await issue({ uris: [APP], issuer: between });
    expect(identify([leaf, between])).toMatchObject({ principal: { id: APP }, notAfter: pem(between).validToDate.getTime() });
    expect(identify([leaf])).toEqual({ refusal: "UNTRUSTED" });
  });

  test("of another CA is refused", async () => {
    expect(identify([await issue({ uris: [APP], issuer: other })])).toEqual({ refusal: "UNTRUSTED" });
    expect(identify([await issue({ uris: [APP], issuer: other }), other])).toEqual({ refusal: "UNTRUSTED" });
  });

  test("finding 7: an unsigned look-alike of the intermediate that names our root is no path", async () => {
    // Names and key identifiers are our root's; the signature is another key's.
    const forger = { x509: root.x509, keys: { publicKey: root.keys.publicKey, privateKey: other.keys.privateKey } };
    const lookAlike = await issueCertificate({ name: "Inter X", ca: true, issuer: forger, validForMs: DAY });
    expect(pem(lookAlike).checkIssued(pem(root))).toBe(true);
    const leaf = await issue({ uris: [APP], issuer: lookAlike });
    expect(identify([leaf, lookAlike, root])).toEqual({ refusal: "UNTRUSTED" });
    const real = await ca("Inter X", other);
    expect(identify([await issue({ uris: [APP], issuer: real }), real, lookAlike, root])).toEqual({ refusal: "UNTRUSTED" });
    // And a leaf that says our root made it.
    expect(identify([await issue({ uris: [APP], issuer: forger })])).toEqual({ refusal: "UNTRUSTED" });
  });

  test("over an expired intermediate is refused, as is one over a leaf", async () => {
    const old = await ca("old", root, -DAY, -2 * DAY);
    expect(identify([await issue({ uris: [APP], issuer: old }), old])).toEqual({ refusal: "EXPIRED" });
    const leaf = await issue({ uris: [APP] });
    expect(identify([await issue({ uris: [APP], issuer: leaf }), leaf])).toEqual({ refusal: "UNTRUSTED" });
  });

  test("may end at any certificate of the bundle, and at a renewed root of the same name", async () => {
    const between = await ca("between", root);
    const renewed = await ca("acme root");
    expect(identify([await issue({ uris: [APP], issuer: between })], { domain: domain([between]) })).toMatchObject({ principal: { id: APP } });
    expect(identify([await issue({ uris: [APP], issuer: renewed })], { domain: domain([root, renewed]) })).toMatchObject({ principal: { id: APP } });
  });
});

describe("revocation", () => {
  test("refuses what its own CA revoked, and only that (lesson 40: the same serial of another CA passes)", async () => {
    const crl = await createCrl({ issuer: root, serials: ["2001"], nextUpdateMs: DAY });
    const both = domain([root, other], crl);
    expect(both.warnings).toEqual(["acme.test: no revocation list of CN=other root"]);
    expect(identify([await issue({ uris: [APP], serial: "2001" })], { domain: both })).toEqual({ refusal: "REVOKED" });
    expect(identify([await issue({ uris: [APP], serial: "2002" })], { domain: both })).toMatchObject({ principal: { id: APP } });
    expect(identify([await issue({ uris: [APP], serial: "2001", issuer: other })], { domain: both })).toMatchObject({ principal: { id: APP } });
  });

  test("tells two CAs of one name apart by their keys", async () => {
    const twin = await ca("acme root");
    const both = domain([root, twin], await createCrl({ issuer: root, serials: ["2001"], nextUpdateMs: DAY }));
    expect(identify([await issue({ uris: [APP], serial: "2001", issuer: twin })], { domain: both })).toMatchObject({ principal: { id: APP } });
    expect(identify([await issue({ uris: [APP], serial: "2001" })], { domain: both })).toEqual({ refusal: "REVOKED" });
  });

  test("reaches intermediates and, by an intermediate's own list, what is below it", async () => {
    const between = await ca("between", root);
    const leaf = await issue({ uris: [APP], issuer: between, serial: "3001" });
    const byRoot = domain([root], await createCrl({ issuer: root, serials: [between.serial], nextUpdateMs: DAY }));
    expect(identify([leaf, between], { domain: byRoot })).toEqual({ refusal: "REVOKED" });
    const byBetween = domain([root], await createCrl({ issuer: between, serials: ["3001"], nextUpdateMs: DAY }));
    expect(identify([leaf, between], { domain: byBetween })).toEqual({ refusal: "REVOKED" });
  });

  test("by a list that bears an intermediate's name without its signature refuses (fail closed)", async () => {
    const between = await ca("between", root);
    const forged = domain([root], await createCrl({ issuer: await ca("between"), serials: [], nextUpdateMs: DAY }));
    expect(identify([await issue({ uris: [APP], issuer: between }), between], { domain: forged })).toEqual({ refusal: "CRL_INVALID" });
  });

  test("by a list that is out of date: as the trust domain wants it", async () => {
    const crl = await createCrl({ issuer: root, serials: ["2001"], nextUpdateMs: -50_000 });
    const leaf = await issue({ uris: [APP] });
    expect(identify([leaf], { domain: domain([root], crl, "refuse") })).toEqual({ refusal: "CRL_EXPIRED" });
    expect(identify([leaf], { domain: domain([root], crl, "accept") })).toMatchObject({ principal: { id: APP } });
    expect(identify([await issue({ uris: [APP], serial: "2001" })], { domain: domain([root], crl, "accept") })).toEqual({ refusal: "REVOKED" });
  });
});

describe("a SPIFFE id", () => {
  test.each(["spiffe://acme.test/a", "spiffe://a-b_c.test/A.b-c_d/..x/...", "spiffe://acme.test/ns/payments/sa/app"])("%s", (uri) => {
    expect(parseSpiffeId(uri)?.id).toBe(uri);
  });

  test.each([
    "spiffe://acme.test",
    "spiffe://acme.test/",
    "spiffe://acme.test/a/",
    "spiffe://acme.test//a",
    "spiffe://acme.test/a/../b",
    "spiffe://acme.test/./a",
    "spiffe://acme.test/a%2fb",
    "spiffe://acme.test/a b",
    "spiffe://acme.test/a\n",
    "spiffe://acme.test/a?q",
    "spiffe://acme.test/a#f",
    "spiffe://acme.test:1/a",
    "spiffe://u@acme.test/a",
    "spiffe://Acme.test/a",
    "SPIFFE://acme.test/a",
    "spiffe:///a",
    "spiffe://acme.test/\u00e9",
    `spiffe://${"a".repeat(256)}/a`,
    `spiffe://acme.test/${"a".repeat(2048)}`,
  ])("%j is none (lesson 47: refused, never repaired)", (uri) => {
    expect(parseSpiffeId(uri)).toBeUndefined();
  });
});

function identify(chain: readonly Issued[], peer: Partial<Peer> = {}) {
  return identifyPeer({ chain: chain.map(pem), authorized: true, domain: acme, ...peer }, NOW);
}

function issue(request: Partial<CertificateRequest>): Promise<Issued> {
  return issueCertificate({ name: "leaf", issuer: root, validForMs: DAY, ...request });
}

function ca(name: string, issuer?: Issued, validForMs = 30 * DAY, validFromMs = -60_000): Promise<Issued> {
  return issueCertificate({ name, ca: true, issuer, validForMs, validFromMs });
}

function pem(issued: Issued): X509Certificate {
  return new X509Certificate(issued.certificatePem);
}

function domain(roots: readonly Issued[], crl?: string, crlExpired: "refuse" | "accept" = "refuse"): TrustDomain {
  const files = { trustDomain: "acme.test", bundleFile: "bundle.pem", crlFile: crl && "crl.pem", crlExpired };
  return readTrustDomain(files, roots.map((one) => one.certificatePem).join(""), crl, NOW);
}
