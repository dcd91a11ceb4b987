import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CallError, connect, type Leasehold, PolicyService, SecretService, type SecretValue, type WatchEvent } from "../../src/client/index.ts";
import { IdentityService } from "../../src/gen/leasehold/v1/identity_service_pb.ts";
import { allowApp, testWorld, type TestBroker, type TestWorld, texts } from "../support/broker.ts";
import { OracleLog } from "../support/oracle-log.ts";
import { identity, writeIdentity } from "../support/pki.ts";
import { type SwitchedLine, switchedLine } from "../support/switched-line.ts";
import { until } from "../support/until.ts";

describe("leasehold/client, against a broker that goes away and comes back", () => {
  let world: TestWorld;
  let line: SwitchedLine;
  let broker: TestBroker;
  let client: Leasehold;
  let log: OracleLog;
  const files = { ca: "" };

  const start = async (): Promise<void> => {
    broker = await world.start({ settings: { drain: "100ms" } });
    line.lead(Number(broker.address.split(":").at(-1)));
  };
  const connected = (certificate: string, key: string): Leasehold =>
    connect({ address: `127.0.0.1:${line.port}`, certificate, key, ca: files.ca, serverName: "localhost" });

  beforeAll(async () => {
    world = await testWorld();
    line = await switchedLine();
    await start();
    log = await OracleLog.open(world.store);
    files.ca = join(world.folder, "ca.pem");
    const { certificate, key } = writeIdentity(world.folder, "admin", await identity("admin"));
    client = connected(certificate, key);
  });
  afterAll(async () => {
    client.close();
    await log.close();
    await world.close();
    line.close();
  });

  // By the broker's own port: a call, unlike a watch, fails at once while no connection can be had.
  const put = (path: string, value: string) => broker.as("admin").call(SecretService.method.putSecret, { path, data: texts({ k: value }) });
  const collect = (paths: string[], options: object = {}) => {
    const stop = new AbortController();
    const events: WatchEvent[] = [];
    const ended = (async () => {
      for await (const event of client.watch({ paths, ...options, signal: stop.signal })) events.push(event);
    })();
    return { events, ended, stop: () => (stop.abort(), ended), seen: () => events.map((event) => `${event.path}@${event.version}`) };
  };

  it("tells each event once over a cut line and a restart", async () => {
    await put("secrets/once/a", "1");
    const watch = collect(["secrets/once/**"], { snapshot: true });
    await until("the snapshot", () => watch.events.length === 1);
    line.cut();
    await put("secrets/once/a", "2");
    await broker.stop();
    line.cut();
    await start();
    await put("secrets/once/b", "1");
    await until("all of it", () => watch.events.length >= 3);
    expect(watch.seen()).toEqual(["secrets/once/a@1", "secrets/once/a@2", "secrets/once/b@1"]);
    await watch.stop();
  });

  it("lesson 36: what was pruned while it was away comes as the difference", async () => {
    for (const name of ["kept", "changed", "removed"]) await put(`secrets/gap/${name}`, "1");
    const watch = collect(["secrets/gap/**"], { snapshot: true });
    await until("the snapshot", () => watch.events.length === 3);
    line.lead(undefined);
    line.cut();
    const direct = broker.as("admin");
    await direct.call(SecretService.method.putSecret, { path: "secrets/gap/changed", data: texts({ k: "2" }) });
    await direct.call(SecretService.method.putSecret, { path: "secrets/gap/created", data: texts({ k: "1" }) });
    await direct.call(SecretService.method.deleteSecret, { path: "secrets/gap/removed" });
    await log.prune(0);
    // A process that was there remembers the latest changes; a new one has only the log.
    await broker.stop();
    await start();
    await until("the difference", () => watch.events.length === 6);
    const told = watch.events.slice(3).map(({ path, difference, removed }) => [path, difference, removed]);
    expect(told).toEqual([
      ["secrets/gap/changed", "changed", false],
      ["secrets/gap/created", "created", false],
      ["secrets/gap/removed", "removed", true],
    ]);
    await watch.stop();
  });

  it("ends with PERMISSION_DENIED and with an invalid request", async () => {
    await allowApp(broker, "watch");
    const { certificatePem, keyPem } = await identity("app");
    const app = connected(certificatePem, keyPem);
    const next = app.watch({ paths: ["secrets/other/**"] }).next();
    await expect(next).rejects.toSatisfy((error) => error instanceof CallError && error.reason === "PERMISSION_DENIED");
    await expect(client.watch({ paths: ["secrets/../x"] }).next()).rejects.toBeInstanceOf(CallError);
    app.close();
    await broker.as("admin").call(PolicyService.method.deletePolicy, { path: "policies/app" });
  });

  it("watchSecret: now and every version, one at a time, whatever the callback throws; nothing shows the value", async () => {
    await put("secrets/cb/x", "hunter1");
    const told: SecretValue[] = [];
    const errors: unknown[] = [];
    let [running, most, removed] = [0, 0, 0];
    const onVersion = async (value: SecretValue): Promise<void> => {
      most = Math.max(most, ++running);
      told.push(value);
      await new Promise((done) => setImmediate(done));
      running--;
      if (value.version === 2) throw new Error("of the callback");
    };
    const watch = client.watchSecret("secrets/cb/x", onVersion, { onError: (error) => errors.push(error), onRemoved: () => void removed++ });
    await watch.ready;
    expect(told.map(({ version, data }) => [version, data["k"]])).toEqual([[1, "hunter1"]]);
    for (const value of ["hunter2", "hunter3"]) await put("secrets/cb/x", value);
    line.cut();
    await put("secrets/cb/x", "hunter4");
    await until("four versions", () => told.length === 4);
    expect([told.map(({ version }) => version), most, errors.length]).toEqual([[1, 2, 3, 4], 1, 1]);
    await broker.as("admin").call(SecretService.method.deleteSecret, { path: "secrets/cb/x" });
    await until("the removal", () => removed === 1);
    await broker.as("admin").call(SecretService.method.restoreSecret, { path: "secrets/cb/x" });
    await until("it is back", () => told.length === 5);
    expect(inspect(told) + JSON.stringify(told)).not.toContain("hunter");
    await watch.close();
    await put("secrets/cb/x", "hunter5");
    expect(told).toHaveLength(5);
  });

  it("watchSecret can be closed in its callback", async () => {
    await put("secrets/cb/y", "1");
    const watch = client.watchSecret("secrets/cb/y", () => watch.close());
    await watch.ended;
  });

  it("uses a certificate that was renewed in its files, and keeps the old one while the key is missing", async () => {
    const [app, admin] = await Promise.all([identity("app"), identity("admin")]);
    const renewing = writeIdentity(world.folder, "renewing", app);
    const own = connected(renewing.certificate, renewing.key);
    const whoAmI = async (): Promise<string> => {
      own.renew();
      return (await own.call(IdentityService.method.whoAmI, {})).principal;
    };
    expect(await whoAmI()).toContain("sa/app");
    writeFileSync(renewing.certificate, admin.certificatePem);
    expect(await whoAmI()).toContain("sa/app");
    writeFileSync(renewing.key, admin.keyPem);
    expect(await whoAmI()).toContain("admin");
    own.close();
  });
});
