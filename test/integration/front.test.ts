import { once } from "node:events";
import { createConnection } from "node:net";
import { join } from "node:path";
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type CertificateRequest, createCrl, type Issued, issueCertificate, KEY_USAGE } from "../../src/dev/certificates.ts";
import { APP, DAY, startFront, type TestFront } from "../support/front.ts";
import { until } from "../support/until.ts";

const BETA = "spiffe://beta.test/ns/x/sa/app";
const TO_BETA = { "grpc.ssl_target_name_override": "beta.test.leasehold.acme.test" };

let acme: TestFront;
let both: TestFront;
let explain: TestFront;
let beta: Issued;
let foreign: Issued;

beforeAll(async () => {
  beta = await issueCertificate({ name: "beta root", ca: true, validForMs: DAY });
  foreign = await issueCertificate({ name: "foreign root", ca: true, validForMs: DAY });
  acme = await startFront({ crl: (root) => createCrl({ issuer: root, serials: ["2001"], nextUpdateMs: DAY }) });
  both = await startFront({ others: { "beta.test": beta.certificatePem }, root: acme.root });
  explain = await startFront({ refuse: "explain", root: acme.root, crl: (root) => createCrl({ issuer: root, serials: ["2001"], nextUpdateMs: DAY }) });
});

afterAll(async () => {
  await Promise.all([acme, both, explain].map((front) => front.close()));
});

describe("a client", () => {
  test("with a good certificate is its SPIFFE id", async () => {
    const { peer, principal } = await acme.client(await acme.issue()).call();
    expect(principal).toBe(APP);
    expect(peer).toMatch(/^c[0-9a-z]+$/);
    expect(acme.front.connectionOf(peer)).toMatchObject({ peer: expect.stringMatching(/^127\.0\.0\.1:\d+$/), closed: false, refusal: undefined });
  });

  const BAD: Record<string, [Partial<CertificateRequest> | undefined, string, string]> = {
    "without a certificate": [undefined, "NO_CERTIFICATE", "PRINCIPAL_INVALID"],
    "of a foreign CA": [{ issuer: "foreign" as never }, "UNTRUSTED", "PRINCIPAL_INVALID"],
    expired: [{ validFromMs: -2 * DAY, validForMs: -DAY }, "EXPIRED", "CERTIFICATE_EXPIRED"],
    "not yet valid": [{ validFromMs: DAY, validForMs: 2 * DAY }, "NOT_YET_VALID", "PRINCIPAL_INVALID"],
    revoked: [{ serial: "2001" }, "REVOKED", "CERTIFICATE_REVOKED"],
    "with two URI names": [{ uris: [APP, "spiffe://acme.test/b"] }, "SEVERAL_SPIFFE_IDS", "PRINCIPAL_INVALID"],
    "without a URI name": [{ uris: [], dns: ["app.acme.test"] }, "NO_SPIFFE_ID", "PRINCIPAL_INVALID"],
    "with a useless URI name": [{ uris: ["spiffe://ACME.test/a"] }, "BAD_SPIFFE_ID", "PRINCIPAL_INVALID"],
    "with another domain's name": [{ uris: [BETA] }, "OTHER_TRUST_DOMAIN", "PRINCIPAL_INVALID"],
    "with a CA's certificate": [{ ca: true, usage: KEY_USAGE.digitalSignature | KEY_USAGE.keyCertSign }, "CA_LEAF", "PRINCIPAL_INVALID"],
    "without digitalSignature": [{ usage: KEY_USAGE.keyAgreement }, "KEY_USAGE", "PRINCIPAL_INVALID"],
    "with a server's certificate": [{ extendedUsage: ["1.3.6.1.5.5.7.3.1"] }, "EXTENDED_KEY_USAGE", "PRINCIPAL_INVALID"],
  };
  test.each(Object.entries(BAD))("%s is refused before HTTP/2, and the reason logged and counted", async (_name, [request, why]) => {
    const before = acme.refused(why);
    expect(await acme.client(await identity(request)).failure()).toMatch(/^UNAVAILABLE /);
    expect(acme.refused(why)).toBeGreaterThan(before);
    expect(acme.log()).toContain(`"refusal":"${why}"`);
  });

  test.each(Object.entries(BAD))("%s is told why in development mode", async (_name, [request, why, reason]) => {
    expect(await explain.client(await identity(request)).failure()).toBe(`UNAUTHENTICATED ${reason} ${why}`);
  });

  test("with a revoked serial number of another CA passes (lesson 40)", async () => {
    const twin = await startFront({ root: acme.root, crl: () => createCrl({ issuer: foreign, serials: ["2001"], nextUpdateMs: DAY }) });
    expect(await twin.client(await acme.issue({ serial: "2001" })).failure()).toBe(`OK ${APP}`);
    await twin.close();
  });

  test("that offers only TLS 1.2 is refused", async () => {
    const before = acme.refused("TLS_VERSION");
    const socket = await open(acme, { maxVersion: "TLSv1.2", ALPNProtocols: ["h2"] });
    await expect(secured(socket)).rejects.toThrow(/alert protocol version|ECONNRESET/);
    expect(acme.refused("TLS_VERSION")).toBe(before + 1);
  });

  test("that does not speak HTTP/2 is refused", async () => {
    const before = acme.refused("ALPN");
    const silent = await open(acme, {});
    await until("the server to hang up", () => silent.destroyed || silent.readableEnded);
    const web = await open(acme, { ALPNProtocols: ["http/1.1"] });
    await expect(secured(web)).rejects.toThrow(/alert no application protocol|ECONNRESET/);
    expect(acme.refused("ALPN")).toBe(before + 2);
  });

  test("finding 13: gets no session ticket, and resumes nothing", async () => {
    const app = await acme.issue();
    let session: Buffer | undefined;
    const options = { ALPNProtocols: ["h2"], cert: app.certificatePem, key: app.keyPem };
    const first = await open(acme, options);
    first.on("session", (ticket: Buffer) => (session = ticket));
    await secured(first);
    // The server's SETTINGS come after any ticket.
    await once(first, "data");
    first.destroy();
    const again = await open(acme, { ...options, ...(session !== undefined && { session }) });
    await secured(again);
    expect(again.isSessionReused()).toBe(false);
    again.destroy();
  });
});

describe("with two trust domains (finding 7)", () => {
  test("each has its own context, chosen by server name", async () => {
    const app = await both.issue({ issuer: beta, uris: [BETA] });
    expect(await both.client(app, TO_BETA).failure()).toBe(`OK ${BETA}`);
    expect(await both.client(app).failure()).toMatch(/^UNAVAILABLE/);
    expect(await both.client(await both.issue()).failure()).toBe(`OK ${APP}`);
    expect(await both.client(await both.issue(), TO_BETA).failure()).toMatch(/^UNAVAILABLE/);
  });

  test("one domain's CA can't vouch for the other's names, wherever it knocks", async () => {
    const claim = await both.issue({ issuer: beta, uris: ["spiffe://acme.test/ns/admin/sa/root"] });
    expect(await both.client(claim).failure()).toMatch(/^UNAVAILABLE/);
    expect(await both.client(claim, TO_BETA).failure()).toMatch(/^UNAVAILABLE/);
    expect(both.refused("UNTRUSTED")).toBeGreaterThan(0);
    expect(both.refused("OTHER_TRUST_DOMAIN")).toBeGreaterThan(0);
  });

  test("the look-alike chain is refused, with one domain and with two", async () => {
    const between = await issueCertificate({ name: "Inter X", ca: true, issuer: beta, validForMs: DAY });
    // Names and key identifiers are acme's root; the signature is another key's.
    const impostor = { x509: acme.root.x509, keys: { publicKey: acme.root.keys.publicKey, privateKey: foreign.keys.privateKey } };
    const lookAlike = await issueCertificate({ name: "Inter X", ca: true, issuer: impostor, validFromMs: -2 * DAY, validForMs: -DAY });
    const claim = await both.issue({ issuer: between, uris: ["spiffe://acme.test/ns/admin/sa/root"] });
    for (const chain of [lookAlike.certificatePem + acme.root.certificatePem, between.certificatePem + lookAlike.certificatePem + acme.root.certificatePem]) {
      for (const [front, options] of [
        [acme, {}],
        [both, {}],
        [both, TO_BETA],
      ] as const) {
        // oxlint-disable-next-line no-await-in-loop -- one after the other reads better in the log
        expect(await front.client(claim, { ...options, chain }).failure()).toMatch(/^UNAVAILABLE/);
      }
    }
  });

  test("an honest chain with an intermediate passes", async () => {
    const between = await issueCertificate({ name: "between", ca: true, issuer: acme.root, validForMs: DAY });
    const app = await acme.issue({ issuer: between });
    expect(await acme.client(app, { chain: between.certificatePem }).failure()).toBe(`OK ${APP}`);
    expect(await acme.client(app).failure()).toMatch(/^UNAVAILABLE/);
  });
});

describe("the listener", () => {
  test("finding 39: two clients on a unix socket are two principals", async () => {
    const path = join(acme.folder, "front.sock");
    const unix = await startFront({ root: acme.root, listen: `unix:${path}` });
    const [a, b] = await Promise.all(
      ["spiffe://acme.test/a", "spiffe://acme.test/b"].map(async (uri) => unix.client(await unix.issue({ uris: [uri] })).call()),
    );
    expect([a!.principal, b!.principal]).toEqual(["spiffe://acme.test/a", "spiffe://acme.test/b"]);
    expect(a!.peer).not.toBe(b!.peer);
    await expect(startFront({ root: acme.root, listen: `unix:${path}` })).rejects.toThrow(`unix:${path} is already in use`);
    await unix.close();
  });

  test("says in one line that its address is taken", async () => {
    const { address } = acme.front;
    await expect(startFront({ root: acme.root, listen: address })).rejects.toMatchObject({ reason: "IN_USE", message: `${address} is already in use` });
  });

  test("takes no more connections than it may: in all, per address, in their handshake", async () => {
    const { DEFAULT_FRONT_LIMITS: limits } = await import("../../src/rpc/front-limits.ts");
    for (const [limit, reason] of [
      ["maxConnections", "TOO_MANY_CONNECTIONS"],
      ["maxConnectionsPerAddress", "TOO_MANY_FROM_ADDRESS"],
      ["maxHandshakes", "TOO_MANY_HANDSHAKES"],
    ] as const) {
      const small = await startFront({ root: acme.root, limits: { ...limits, [limit]: 2 } });
      const sockets = [1, 2, 3].map(() => createConnection(Number(small.front.address.split(":")[1])).on("error", () => {}));
      await until("the third to be dropped", () => small.refused(reason) > 0);
      expect(small.refused(reason)).toBe(1);
      for (const socket of sockets) socket.destroy();
      // Their places are free again.
      const client = small.client(await small.issue());
      await until("a client to get in", async () => (await client.failure()) === `OK ${APP}`);
      await small.close();
    }
  });

  test("gives up on a handshake that does not end", async () => {
    const { DEFAULT_FRONT_LIMITS: limits } = await import("../../src/rpc/front-limits.ts");
    const hasty = await startFront({ root: acme.root, limits: { ...limits, handshakeMs: 50 } });
    const socket = createConnection(Number(hasty.front.address.split(":")[1])).resume();
    await once(socket, "close");
    expect(hasty.refused("HANDSHAKE_TIMEOUT")).toBe(1);
    await hasty.close();
  });

  test("survives garbage and resets in and after handshakes", async () => {
    const port = Number(acme.front.address.split(":")[1]);
    for (const bytes of ["GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x05hello", ""]) {
      const socket = createConnection(port);
      socket.on("error", () => {});
      socket.write(bytes, () => socket.resetAndDestroy());
      await once(socket, "close");
    }
    const app = await acme.issue();
    const half = await open(acme, { ALPNProtocols: ["h2"], cert: app.certificatePem, key: app.keyPem });
    await secured(half);
    half.write("no HTTP/2 preface at all");
    await once(half, "close");
    expect(await acme.client(app).failure()).toBe(`OK ${APP}`);
  });
});

async function identity(request: Partial<CertificateRequest> | undefined): Promise<Issued | undefined> {
  if (request === undefined) return undefined;
  return acme.issue({ ...request, ...("issuer" in request && { issuer: foreign }) });
}

async function open({ front, root }: TestFront, options: ConnectionOptions): Promise<TLSSocket> {
  const socket = connect({ port: Number(front.address.split(":")[1]), host: "127.0.0.1", servername: "localhost", ca: root.certificatePem, ...options });
  socket.on("error", () => {});
  socket.on("data", () => {});
  return socket;
}

function secured(socket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once("secureConnect", resolve);
    socket.once("error", reject);
  });
}
