import { X509Certificate } from "node:crypto";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { type Issued, issueCertificate } from "../../src/dev/certificates.ts";
import { readCertificate } from "../../src/identity/certificate.ts";
import { parseCrl } from "../../src/identity/crl.ts";
import { DerError, derItems, timeOf } from "../../src/identity/der.ts";

let root: Issued;
let der: Buffer;

beforeAll(async () => {
  root = await issueCertificate({ name: "root", ca: true, validForMs: 86_400_000 });
  const leaf = await issueCertificate({ name: "leaf", issuer: root, uris: ["spiffe://acme.test/a"], serial: "00ab", validForMs: 86_400_000 });
  der = new X509Certificate(leaf.certificatePem).raw;
});

describe("the DER reader", () => {
  test.each([
    ["no length", "30"],
    ["an indefinite length", "3080020101"],
    ["a long form that is not needed", "308103020101"],
    ["a length with leading zeros", `30820003020101`],
    ["a length of five octets", "308500000000030201"],
    ["a length that ends early", "3082"],
    ["content that ends early", "3005020101"],
    ["a tag of several octets", "1f8101"],
  ])("refuses %s", (_name, hex) => {
    expect(() => [...derItems(Buffer.from(hex, "hex"))]).toThrow(DerError);
  });

  test("reads inside its bounds or throws DerError, whatever it gets", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        for (const read of [readCertificate, parseCrl]) expect(() => read(bytes)).toThrow(DerError);
      }),
    );
  });

  test("a certificate with any one byte changed is read or refused, never another error", () => {
    for (let at = 0; at < der.length; at++) {
      for (const bit of [0x01, 0x80]) {
        const changed = Buffer.from(der);
        changed[at]! ^= bit;
        try {
          readCertificate(changed);
        } catch (error) {
          expect(error).toBeInstanceOf(DerError);
        }
      }
    }
  });

  test("sees what node:crypto does not: CA:TRUE without the right to sign, and the key usage", async () => {
    const odd = await issueCertificate({ name: "odd", ca: true, usage: 1, validForMs: 1000 });
    const certificate = new X509Certificate(odd.certificatePem);
    expect(certificate.ca).toBe(false);
    expect(readCertificate(certificate.raw)).toMatchObject({ isCa: true, keyUsage: 0x80 });
    expect(readCertificate(der)).toMatchObject({ isCa: false, keyUsage: 0x80, serial: "AB", uris: ["spiffe://acme.test/a"] });
  });

  test("refuses an extension that is there twice", () => {
    // keyUsage (55 1d 0f) becomes a second basicConstraints (55 1d 13).
    const changed = Buffer.from(der);
    changed[changed.indexOf(Buffer.from("551d0f", "hex")) + 2] = 0x13;
    expect(() => readCertificate(changed)).toThrow("twice");
  });

  test("takes the two forms of a time, and no other", () => {
    const time = (tag: number, text: string) => () => timeOf({ tag, body: Buffer.from(text), raw: Buffer.alloc(0) });
    expect(time(0x17, "491231235959Z")()).toBe(Date.UTC(2049, 11, 31, 23, 59, 59));
    expect(time(0x17, "500101000000Z")()).toBe(Date.UTC(1950, 0, 1));
    expect(time(0x18, "20500101000000Z")()).toBe(Date.UTC(2050, 0, 1));
    for (const [tag, text] of [
      [0x17, "4912312359Z"],
      [0x17, "490231000000Z"],
      [0x17, "491231240000Z"],
      [0x18, "20500101000000+0100"],
    ] as const)
      expect(time(tag, text)).toThrow(DerError);
  });
});
