import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startApp, type App } from "../../src/app.ts";
import { Client } from "../../src/client/client.ts";
import { CallError } from "../../src/client/errors.ts";
import { parseConfig } from "../../src/config.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { AuditService } from "../../src/gen/leasehold/v1/audit_service_pb.ts";
import { stringify } from "yaml";
import { join } from "node:path";
import { writeFileSync } from "node:fs";
import { bundle, identity, writeIdentity } from "../support/pki.ts";
import { freshCluster, type TestCluster } from "../support/postgres.ts";
import { tempFolder } from "../support/temp.ts";
import { texts } from "../support/broker.ts";
import { until } from "../support/until.ts";

describe("the store goes away and comes back", () => {
  let cluster: TestCluster;
  let app: App;
  let client: Client;
  beforeAll(async () => {
    cluster = await freshCluster();
    const folder = tempFolder("outage");
    const server = writeIdentity(folder, "server", await identity("server"));
    const ca = await bundle("acme");
    writeFileSync(join(folder, "ca.pem"), ca);
    const settings = {
      listen: "127.0.0.1:0",
      log: { level: "silent" },
      store: { url: cluster.url("postgres"), allow_no_fsync: true, connect_timeout: "500ms" },
      kms: { provider: "file", file: join(folder, "kms.key"), create: true },
      audit: { timeout: "500ms" },
      tls: { certificate: server.certificate, key: server.key, trust: [{ trust_domain: "acme.test", bundle: join(folder, "ca.pem") }] },
      administrators: ["spiffe://acme.test/admin"],
    };
    app = await startApp(parseConfig(stringify(settings), {}, folder), {});
    const { certificatePem: certificate, keyPem: key } = await identity("admin");
    client = new Client({ address: app.address, certificate, key, ca, serverName: "localhost" }, 1500);
  });
  afterAll(async () => {
    client.close();
    await app.stop();
    await cluster.remove();
  });

  const put = (path: string, value: string) => client.call(SecretService.method.putSecret, { path, data: texts({ k: value }), requestId: crypto.randomUUID() });
  const get = (path: string) => client.call(SecretService.method.getSecret, { path });

  it("lesson 50: nothing is disclosed that can't be audited, and it goes on by itself", async () => {
    await put("secrets/o/cached", "v");
    await get("secrets/o/cached");
    await cluster.stop();
    const failure = await get("secrets/o/cached").then(
      () => "disclosed",
      (error: CallError) => error.reason,
    );
    expect(["AUDIT_UNAVAILABLE", "STORE_UNAVAILABLE"]).toContain(failure);
    await cluster.start();
    await until("reads work again", () =>
      get("secrets/o/cached").then(
        () => true,
        () => false,
      ),
    );
  });

  it("no acknowledged write is lost, and none is done twice, over restarts under load", async () => {
    const acknowledged: string[] = [];
    let writing = true;
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      for (let i = 0; writing; i++) {
        const path = `secrets/o/w${writer}/${i}`;
        await put(path, String(i)).then(
          () => acknowledged.push(path),
          (error: unknown) => {
            if (!(error instanceof CallError)) throw error;
          },
        );
      }
    });
    for (let round = 0; round < 3; round++) {
      const before = acknowledged.length;
      await until("some writes", () => acknowledged.length > before + 20);
      if (round % 2 === 0) await cluster.stop();
      else await cluster.kill();
      await cluster.start();
    }
    const before = acknowledged.length;
    await until("writes again", () => acknowledged.length > before + 20);
    writing = false;
    await Promise.all(writers);
    const rows = await cluster.query<{ path: string; latest_version: string }>("select path, latest_version from secret where path like 'secrets/o/w%'");
    const stored = new Map(rows.map((row) => [row.path, Number(row.latest_version)]));
    expect(acknowledged.filter((path) => stored.get(path) !== 1)).toEqual([]);
    expect([...stored.values()].every((version) => version === 1)).toBe(true);
    const [gaps] = await cluster.query<{ gaps: string }>("select max(revision) - min(revision) + 1 - count(*) as gaps from change_log");
    expect(Number(gaps!.gaps)).toBe(0);
    const verified = await client.call(AuditService.method.verifyAudit, {});
    expect(verified.problems).toEqual([]);
  });
});
