// oxlint-disable-next-line import/no-unassigned-import -- @peculiar/x509 throws without it
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import { BasicConstraintsExtension, PemConverter, SubjectAlternativeNameExtension, X509CertificateGenerator } from "@peculiar/x509";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { TlsConfig } from "../../src/engines/postgres/config.ts";
import { postgres } from "../../src/engines/postgres/definition.ts";
import { startCluster, type Cluster } from "../conformance/engine-clusters.ts";
import { bootstrapCluster, INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { OPTIONS } from "../conformance/engine.ts";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const NAME = "db.acme.test";

let cluster: Cluster;
let target: Awaited<ReturnType<typeof bootstrapCluster>>;
let ca: string;
let otherCa: string;

beforeAll(async () => {
  const authority = await createAuthority();
  ca = authority.pem;
  otherCa = (await createAuthority()).pem;
  const files = { "server.crt": authority.leaf, "server.key": authority.leafKey };
  cluster = await startCluster("18");
  await cluster.restart(files, { ssl: "on" });
  target = await bootstrapCluster(cluster);
}, 60_000);
afterAll(() => cluster?.stop());

test("verify-full works with the right CA and the right name", async () => {
  expect(await attempt({ mode: "verify-full", caPem: ca, serverName: NAME })).toBe("ok");
});

test.each([
  ["another CA", (): TlsConfig => ({ mode: "verify-full", caPem: otherCa, serverName: NAME })],
  ["the system's roots", (): TlsConfig => ({ mode: "verify-full", serverName: NAME })],
  ["another name", (): TlsConfig => ({ mode: "verify-full", caPem: ca, serverName: "db.evil.test" })],
  ["its own address, which the certificate doesn't have", (): TlsConfig => ({ mode: "verify-full", caPem: ca })],
  ["a CA file that isn't there", (): TlsConfig => ({ mode: "verify-full", caFile: "/nonexistent/ca.pem" })],
])("lesson 18: a CA does not switch checking off: refused with %s", async (_what, tls) => {
  expect(await attempt(tls())).toBe("tls");
});

async function attempt(tls: TlsConfig): Promise<string> {
  const opened = postgres.open({ ...target.config, tls }, target.password, { ...OPTIONS, instance: INSTANCE });
  try {
    await opened.identify();
    return "ok";
  } catch (error) {
    return String((error as { metadata?: { problem?: string } }).metadata?.problem);
  } finally {
    await opened.close();
  }
}

async function createAuthority(): Promise<{ pem: string; leaf: string; leafKey: string }> {
  const dates = { notBefore: new Date(Date.now() - 60_000), notAfter: new Date(Date.now() + 3_600_000) };
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const root = await X509CertificateGenerator.createSelfSigned({
    ...dates,
    name: "CN=root",
    keys,
    signingAlgorithm: ALGORITHM,
    extensions: [new BasicConstraintsExtension(true, undefined, true)],
  });
  const leafKeys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const leaf = await X509CertificateGenerator.create({
    ...dates,
    subject: `CN=${NAME}`,
    issuer: root.subject,
    publicKey: leafKeys.publicKey,
    signingKey: keys.privateKey,
    signingAlgorithm: ALGORITHM,
    extensions: [new SubjectAlternativeNameExtension([{ type: "dns", value: NAME }])],
  });
  const leafKey = PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", leafKeys.privateKey), "PRIVATE KEY");
  return { pem: root.toString("pem"), leaf: leaf.toString("pem"), leafKey };
}
