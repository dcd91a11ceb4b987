import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Redis } from "ioredis";
import { freePort } from "../../src/dev/free-port.ts";
import { authority, identity, type LeafName, writeIdentity } from "./pki.ts";
import type { TestRedis } from "./redis.ts";
import { tempFolder } from "./temp.ts";

/** Lets a server be reached over TLS too, with the certificate of this leaf (`localhost`, 127.0.0.1). Answers the port, and what changes the certificate. */
export async function withTls(
  redis: TestRedis,
  leaf: LeafName = "server",
): Promise<{ readonly port: number; readonly caPem: string; show(leaf: LeafName): Promise<void> }> {
  const folder = tempFolder("redis-tls");
  const port = await freePort();
  const ca = join(folder, "ca.pem");
  const { certificatePem: caPem } = await authority("acme");
  writeFileSync(ca, caPem);
  const filesOf = async (name: LeafName): Promise<string[]> => {
    const { certificate, key } = writeIdentity(folder, name, await identity(name));
    return ["tls-cert-file", certificate, "tls-key-file", key];
  };
  const admin = new Redis(redis.url, { lazyConnect: true, retryStrategy: () => null });
  const configure = async (...settings: string[]): Promise<void> => {
    await admin.connect();
    try {
      await admin.call("CONFIG", "SET", ...settings);
    } finally {
      admin.disconnect();
    }
  };
  await configure(...(await filesOf(leaf)), "tls-ca-cert-file", ca, "tls-auth-clients", "no", "tls-port", String(port));
  return { port, caPem, show: async (name) => configure(...(await filesOf(name))) };
}
