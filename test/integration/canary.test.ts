import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { Client } from "../../src/client/client.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { OperatorService, TlsMode } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { bundle, identity, writeIdentity } from "../support/pki.ts";
import { freshDatabase, type TestDatabase } from "../support/postgres.ts";
import { type Program, startProgram } from "../support/process.ts";
import { freshRedis, type TestRedis } from "../support/redis.ts";
import { tempFolder } from "../support/temp.ts";
import { texts } from "../support/broker.ts";

/** Bytes that nothing but a leak would contain. */
const CANARY = `canary-${randomBytes(12).toString("hex")}`;

describe("canary: no secret leaves by another way than the answer", () => {
  let store: TestDatabase;
  let redis: TestRedis;
  let program: Program;
  let client: Client;
  beforeAll(async () => {
    [store, redis] = await Promise.all([freshDatabase("migrated"), freshRedis()]);
    const folder = tempFolder("canary");
    const server = writeIdentity(folder, "server", await identity("server"));
    const ca = await bundle("acme");
    writeFileSync(join(folder, "ca.pem"), ca);
    const settings = {
      listen: "127.0.0.1:0",
      log: { level: "trace" },
      store: { url: store.url, allow_no_fsync: true },
      redis: { url: redis.url },
      kms: { provider: "file", file: join(folder, "kms.key"), create: true },
      tls: { certificate: server.certificate, key: server.key, trust: [{ trust_domain: "acme.test", bundle: join(folder, "ca.pem") }] },
      administrators: ["spiffe://acme.test/admin"],
    };
    writeFileSync(join(folder, "leasehold.yaml"), stringify(settings));
    const env = { PATH: process.env["PATH"], OTEL_TRACES_EXPORTER: "console", OTEL_TRACES_SAMPLER: "always_on" };
    program = startProgram(process.execPath, [join(import.meta.dirname, "../../src/main.ts"), "server", "--config", join(folder, "leasehold.yaml")], {
      keep: true,
      env,
    });
    const [, address] = await program.says(/"address":"([^"]+)"/);
    const { certificatePem: certificate, keyPem: key } = await identity("admin");
    client = new Client({ address: address!, certificate, key, ca, serverName: "localhost" }, 10_000);
  });
  afterAll(async () => {
    client.close();
    await program.killTree();
    await Promise.all([store.drop(), redis.stop()]);
  });

  it("not into logs, spans, Redis, plain columns or errors", async () => {
    const { method } = SecretService;
    const failures: string[] = [];
    const tolerated = (call: Promise<unknown>): Promise<void> =>
      call.then(
        () => {},
        (error: Error) => void failures.push(`${error.message} ${JSON.stringify(error)} ${JSON.stringify((error as { violations?: unknown }).violations)}`),
      );
    await client.call(method.putSecret, { path: "secrets/c/a", data: texts({ k: CANARY }), requestId: crypto.randomUUID() });
    await client.call(method.getSecret, { path: "secrets/c/a" });
    await client.call(method.rollbackSecret, { path: "secrets/c/a", toVersion: 1n });
    await client.call(method.batchGetSecrets, { requests: [{ path: "secrets/c/a" }] });
    await tolerated(client.call(method.putSecret, { path: "secrets/c/a", data: texts({ k: CANARY }), expectedVersion: 9n }));
    await tolerated(client.call(method.putSecret, { path: "secrets/c/b", data: texts({ k: CANARY.repeat(3000) }) }));
    await tolerated(client.call(method.putSecret, { path: `secrets/../${CANARY}`, data: texts({ k: "v" }) }));
    const target = {
      name: "t",
      engine: { case: "postgres" as const, value: { host: "127.0.0.1", port: 1, database: "d", username: "u", tlsMode: TlsMode.DISABLE } },
      password: { kind: { case: "text" as const, value: CANARY } },
    };
    await client.call(OperatorService.method.putTarget, { target });
    const tested = await client.call(OperatorService.method.testTarget, { path: "targets/t" });
    expect([tested.ok, JSON.stringify(tested)]).toEqual([false, expect.not.stringContaining(CANARY)]);
    const got = await client.call(OperatorService.method.getTarget, { path: "targets/t" });
    expect(JSON.stringify(got, (_key, value: unknown) => (typeof value === "bigint" ? String(value) : value))).not.toContain(CANARY);
    expect(failures).toHaveLength(3);
    expect(failures.join("\n")).not.toContain(CANARY);

    const tables = await store.query<{ name: string }>("select tablename as name from pg_tables where schemaname = 'public'");
    expect(tables.length).toBeGreaterThan(15);
    const hex = Buffer.from(CANARY).toString("hex");
    for (const { name } of tables) {
      const rows = await store.query<{ text: string }>(
        `select t::text as text from "${name}" t where position($1 in t::text) > 0 or position($2 in t::text) > 0`,
        [CANARY, hex],
      );
      expect([name, rows.length]).toEqual([name, 0]);
    }
    expect(await redis.dump()).not.toContain(CANARY);

    program.signal("SIGTERM");
    await program.ended;
    const output = program.stdout() + program.stderr();
    expect(output).toContain("SecretService/GetSecret"); // spans and logs were really written
    expect(output).not.toContain(CANARY);
    expect(output).not.toContain(hex);
  });
});
