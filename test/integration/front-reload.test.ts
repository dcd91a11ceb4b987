import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect } from "node:tls";
import { afterEach, describe, expect, test } from "vitest";
import { createCrl, type Issued, issueCertificate } from "../../src/dev/certificates.ts";
import { APP, DAY, issueServer, startFront, type FrontSetup, type TestFront } from "../support/front.ts";
import { tempFolder } from "../support/temp.ts";
import { until } from "../support/until.ts";

/** Longer than a test: nothing but `reload()` and reported changes count. */
const NEVER = 3_600_000;
const open: TestFront[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((front) => front.close()));
});

async function start(setup: FrontSetup = {}): Promise<TestFront> {
  const front = await startFront({ pollMs: NEVER, ...setup });
  open.push(front);
  return front;
}

describe("a reload", () => {
  test("of certificate and bundle under load costs no call", async () => {
    const t = await start();
    const second = await issueCertificate({ name: "second root", ca: true, validForMs: DAY });
    const app = await t.issue();
    const load = { on: true };
    let calls = 0;
    const caller = async (makeClient: () => ReturnType<TestFront["client"]>, fresh: boolean): Promise<void> => {
      let client = makeClient();
      while (load.on) {
        await client.call(fresh ? 0 : 40);
        calls++;
        if (fresh) {
          client.close();
          client = makeClient();
        }
      }
    };
    const busy = Array.from({ length: 16 }, (_, i) => i).map(() => t.client(app));
    const callers = [...busy.map((client) => caller(() => client, false)), caller(() => t.client(app), true), caller(() => t.client(app), true)];
    let serial = "";
    for (let i = 0; i < 12; i++) {
      const server = await issueServer(t.root);
      t.write("server.key", server.keyPem);
      t.write("server.crt", server.certificatePem);
      if (i % 3 === 0) t.write("acme.pem", i % 2 === 0 ? t.root.certificatePem + second.certificatePem : t.root.certificatePem);
      const { changed, failure } = await t.front.reload();
      expect(failure).toBeUndefined();
      expect(changed).toEqual(i % 3 === 0 ? ["certificate", "trust"] : ["certificate"]);
      serial = server.serial;
      const before = calls;
      await until("calls after the reload", () => calls > before + 20);
    }
    load.on = false;
    await Promise.all(callers);
    expect(await servedSerial(t)).toBe(serial.toUpperCase());
  });

  test("forgets nothing: TLS 1.3, the client's CA, one context per trust domain", async () => {
    const beta = await issueCertificate({ name: "beta root", ca: true, validForMs: DAY });
    const t = await start({ others: { "beta.test": beta.certificatePem } });
    const server = await issueServer(t.root);
    t.write("server.crt", server.certificatePem);
    t.write("server.key", server.keyPem);
    expect(await t.front.reload()).toEqual({ changed: ["certificate"], failure: undefined });
    const failure = await new Promise<string>((resolve) => {
      const socket = connect({
        port: portOf(t),
        host: "127.0.0.1",
        servername: "localhost",
        ca: t.root.certificatePem,
        ALPNProtocols: ["h2"],
        maxVersion: "TLSv1.2",
      });
      socket.once("error", (error) => resolve(error.message));
      socket.once("secureConnect", () => resolve("secure"));
    });
    expect(failure).toMatch(/protocol version|ECONNRESET/);
    expect(await t.client(await t.issue({ issuer: beta })).failure()).toMatch(/^UNAVAILABLE/);
    const toBeta = { "grpc.ssl_target_name_override": "beta.test.leasehold.acme.test" };
    const app = await t.issue({ issuer: beta, uris: ["spiffe://beta.test/a"] });
    expect(await t.client(app, toBeta).failure()).toBe("OK spiffe://beta.test/a");
    expect(await servedSerial(t, "beta.test.leasehold.acme.test")).toBe(server.serial.toUpperCase());
  });

  const FAULTS: Record<string, [(t: TestFront) => unknown, RegExp]> = {
    "another certificate's key": [async (t) => t.write("server.key", (await issueServer(t.root)).keyPem), /server\.key: is not the key/],
    "a broken key": [(t) => t.write("server.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), /server\.key: can't be read/],
    "an expired certificate": [(t) => pair(t, { validFromMs: -2 * DAY, validForMs: -DAY }), /server\.crt: certificate 1 has expired/],
    "a certificate of the future": [(t) => pair(t, { validFromMs: DAY, validForMs: 2 * DAY }), /server\.crt: certificate 1 is not yet valid/],
    "a client's certificate": [(t) => pair(t, { extendedUsage: ["1.3.6.1.5.5.7.3.2"] }), /server\.crt: extended key usage lacks serverAuth/],
    "a chain in the wrong order": [
      (t) => t.write("server.crt", readFileSync(join(t.folder, "server.crt"), "utf8").repeat(2)),
      /certificate 1 is not issued by the one after it/,
    ],
    "an empty certificate": [(t) => t.write("server.crt", ""), /server\.crt: has no certificate/],
    "an empty bundle": [(t) => t.write("acme.pem", ""), /acme\.pem: has no certificate/],
    "half a bundle": [(t) => t.write("acme.pem", t.root.certificatePem + t.root.certificatePem.slice(0, 300)), /acme\.pem: block 2 is damaged/],
    "no bundle": [(t) => rmSync(join(t.folder, "acme.pem")), /acme\.pem: can't be read \(ENOENT\)/],
    "a foreign list": [
      async (t) => t.write("acme.crl", await createCrl({ issuer: { x509: t.root.x509, keys: (await t.issue()).keys }, serials: [], nextUpdateMs: DAY })),
      /acme\.crl: list 1 is not signed/,
    ],
  };
  test.each(Object.entries(FAULTS))("to %s keeps the old set and says so", async (_name, [spoil, fault]) => {
    const t = await start({ crl: (root) => createCrl({ issuer: root, serials: [], nextUpdateMs: DAY }) });
    const files = ["server.crt", "server.key", "acme.pem", "acme.crl"].map((name) => [name, readFileSync(join(t.folder, name), "utf8")] as const);
    const before = await servedSerial(t);
    const old = t.client(await t.issue());
    const { peer } = await old.call();
    await spoil(t);
    expect(await t.front.reload()).toEqual({ changed: [], failure: expect.stringMatching(fault) });
    await t.front.reload();
    expect(t.front.status().reloadFailure).toMatch(fault);
    expect(t.log().match(/the last good ones stay/g)).toHaveLength(1);
    expect(t.log()).not.toContain("PRIVATE KEY");
    expect(await old.call()).toEqual({ peer, principal: APP });
    expect(await t.client(await t.issue()).failure()).toBe(`OK ${APP}`);
    expect(await servedSerial(t)).toBe(before);
    for (const [name, text] of files) t.write(name, text);
    expect(await t.front.reload()).toEqual({ changed: [], failure: undefined });
    expect(t.front.status().reloadFailure).toBeUndefined();
  });

  test("at the start is none: a bad file is an error that names it", async () => {
    const folder = tempFolder("front");
    await expect(startFront({ folder, crl: async () => "" })).rejects.toMatchObject({
      reason: "REQUEST_INVALID",
      message: `${join(folder, "acme.crl")}: has no revocation list`,
    });
  });
});

describe("files that change", () => {
  test("are noticed: renamed over", async () => {
    const t = await start();
    const server = await pair(t);
    await until("the new certificate", async () => (await servedSerial(t)) === server.serial.toUpperCase());
    expect(t.front.status()).toMatchObject({ certificateEnd: server.x509.notAfter.getTime(), reloadFailure: undefined });
  });

  test("are noticed: as Kubernetes swaps them, by a symlink beside them", async () => {
    const folder = tempFolder("front");
    const names = ["server.crt", "server.key", "acme.pem"];
    const root = await issueCertificate({ name: "acme root", ca: true, validForMs: DAY });
    const publish = async (version: string): Promise<Issued> => {
      const server = await issueServer(root);
      mkdirSync(join(folder, version));
      for (const [i, text] of [server.certificatePem, server.keyPem, root.certificatePem].entries()) writeFileSync(join(folder, version, names[i]!), text);
      symlinkSync(version, join(folder, "..new"));
      renameSync(join(folder, "..new"), join(folder, "..data"));
      return server;
    };
    // `startFront` writes plain files; these links take their place before the swap.
    const t = await start({ folder, root });
    const first = await publish("..v1");
    for (const name of names) {
      symlinkSync(join("..data", name), join(folder, `${name}.link`));
      renameSync(join(folder, `${name}.link`), join(folder, name));
    }
    await until("the first version", async () => (await servedSerial(t)) === first.serial.toUpperCase());
    const second = await publish("..v2");
    await until("the second version", async () => (await servedSerial(t)) === second.serial.toUpperCase());
    expect(t.front.status().reloadFailure).toBeUndefined();
  });

  test("are noticed by the poll, where nothing is reported", async () => {
    const t = await start({ pollMs: 20, folder: join(tempFolder("front"), "a") });
    // The watched folder goes, and another takes its name.
    renameSync(t.folder, `${t.folder}-old`);
    mkdirSync(t.folder);
    for (const name of ["acme.pem"]) t.write(name, readFileSync(join(`${t.folder}-old`, name), "utf8"));
    const server = await pair(t);
    await until("the new certificate", async () => (await servedSerial(t)) === server.serial.toUpperCase());
    expect(t.front.status()).toMatchObject({ certificateEnd: server.x509.notAfter.getTime(), reloadFailure: undefined });
  });
});

async function pair(t: TestFront, request = {}): Promise<Issued> {
  const server = await issueServer(t.root, request);
  t.write("server.key", server.keyPem);
  t.write("server.crt", server.certificatePem);
  return server;
}

function portOf(t: TestFront): number {
  return Number(t.front.address.split(":")[1]);
}

/** Serial number of the certificate that a new handshake shows. */
async function servedSerial(t: TestFront, servername = "localhost"): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port: portOf(t), host: "127.0.0.1", servername, ca: t.root.certificatePem, ALPNProtocols: ["h2"] });
    socket.once("secureConnect", () => {
      resolve(socket.getPeerX509Certificate()!.serialNumber);
      socket.destroy();
    });
    socket.once("error", reject);
  });
}
