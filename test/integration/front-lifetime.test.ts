import { once } from "node:events";
import { existsSync, renameSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { createCrl, issueCertificate } from "../../src/dev/certificates.ts";
import { DEFAULT_FRONT_LIMITS } from "../../src/rpc/front-limits.ts";
import { APP, DAY, type FrontSetup, ManualClock, startFront, type TestFront } from "../support/front.ts";
import { tempFolder } from "../support/temp.ts";
import { until } from "../support/until.ts";

const { lingerMs, explainMs } = DEFAULT_FRONT_LIMITS;
const open: TestFront[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((front) => front.close()));
});

async function start(setup: FrontSetup = {}): Promise<TestFront> {
  const front = await startFront(setup);
  open.push(front);
  return front;
}

describe("an open connection", () => {
  test("finding 13: whose certificate expires is answered so, then closed", async () => {
    const clock = new ManualClock();
    const t = await start({ clock });
    const client = t.client(await t.issue());
    const { peer } = await client.call();
    const stream = client.stream();
    await once(stream, "data");
    clock.advance(DAY + 1000);
    expect(await client.failure()).toBe("UNAUTHENTICATED CERTIFICATE_EXPIRED EXPIRED");
    expect(t.front.connectionOf(peer)).toMatchObject({ refusal: "CERTIFICATE_EXPIRED", closed: false });
    const connection = t.front.connectionOf(peer);
    clock.advance(lingerMs);
    await once(stream, "error");
    await until("the connection to go", () => t.front.connectionOf(peer) === undefined);
    expect(connection?.closed).toBe(true);
  });

  test("finding 13: whose certificate is revoked is answered so, then closed and not let in again; others stay", async () => {
    const clock = new ManualClock();
    const t = await start({ clock, crl: (root) => createCrl({ issuer: root, serials: [], nextUpdateMs: DAY }) });
    const leaf = await t.issue();
    const [client, other] = [t.client(leaf), t.client(await t.issue())];
    const [{ peer }, stays] = [await client.call(), await other.call()];
    t.write("acme.crl", await createCrl({ issuer: t.root, serials: [leaf.serial], nextUpdateMs: DAY }));
    expect(await t.front.reload()).toEqual({ changed: ["crl"], failure: undefined });
    expect(await client.failure()).toBe("UNAUTHENTICATED CERTIFICATE_REVOKED REVOKED");
    clock.advance(lingerMs);
    await until("the connection to go", () => t.front.connectionOf(peer) === undefined);
    expect(await client.failure()).toMatch(/^UNAVAILABLE/);
    expect(await other.call()).toEqual(stays);
  });

  test("whose CA leaves the bundle is refused, also if the new connection is the same client's", async () => {
    const clock = new ManualClock();
    const second = await issueCertificate({ name: "second root", ca: true, validForMs: 30 * DAY });
    const t = await start({ clock });
    t.write("acme.pem", t.root.certificatePem + second.certificatePem);
    await t.front.reload();
    const [old, stays] = [t.client(await t.issue()), t.client(await t.issue({ issuer: second }))];
    const { peer } = await old.call();
    await stays.call();
    t.write("acme.pem", second.certificatePem);
    expect(await t.front.reload()).toEqual({ changed: ["trust"], failure: undefined });
    expect([undefined, "UNTRUSTED"]).toContain(t.front.connectionOf(peer)?.why);
    await until("the old client to be refused", async () => (await old.failure()).startsWith("UNAVAILABLE"));
    expect(t.refused("UNTRUSTED")).toBeGreaterThan(0);
    expect(await stays.failure()).toBe(`OK ${APP}`);
  });

  test("is refused when the revocation list of its CA goes out of date, if the trust domain wants it so", async () => {
    const clock = new ManualClock();
    const crl = { clock, crl: (root: Parameters<typeof createCrl>[0]["issuer"]) => createCrl({ issuer: root, serials: [], nextUpdateMs: 1000 }) };
    const [strict, lax] = [await start(crl), await start({ ...crl, crlExpired: "accept" })];
    const [a, b] = [strict.client(await strict.issue()), lax.client(await lax.issue())];
    await Promise.all([a.call(), b.call()]);
    clock.advance(2000);
    expect(await strict.front.reload()).toEqual({ changed: ["crl"], failure: undefined });
    expect(await lax.front.reload()).toEqual({ changed: [], failure: undefined });
    expect(await a.failure()).toBe("UNAUTHENTICATED PRINCIPAL_INVALID CRL_EXPIRED");
    expect(await b.failure()).toBe(`OK ${APP}`);
  });

  test("of development mode that nobody may use is closed soon", async () => {
    const clock = new ManualClock();
    const t = await start({ clock, refuse: "explain" });
    expect(await t.client().failure()).toBe("UNAUTHENTICATED PRINCIPAL_INVALID NO_CERTIFICATE");
    expect(t.front.status().connections).toBe(1);
    clock.advance(explainMs);
    await until("the connection to go", () => t.front.status().connections === 0);
  });

  test("that the client closes is forgotten", async () => {
    const t = await start();
    const client = t.client(await t.issue());
    const { peer } = await client.call();
    client.close();
    await until("the connection to go", () => t.front.connectionOf(peer) === undefined);
    expect([...t.front.connections()]).toEqual([]);
  });
});

describe("a drain", () => {
  test("lets calls end, ends streams at the deadline, and leaves no socket", async () => {
    const t = await start({ limits: { ...DEFAULT_FRONT_LIMITS, handshakeMs: 600_000 } });
    const client = t.client(await t.issue());
    const stream = client.stream();
    await once(stream, "data");
    const stalled = createConnection(Number(t.front.address.split(":")[1])).resume();
    await once(stalled, "connect");
    const call = client.call(200);
    await until("the call to arrive", async () => (await client.call()).principal === APP);
    const failed = once(stream, "error");
    const drained = t.front.drain(1000);
    expect(await call).toMatchObject({ principal: APP });
    await Promise.all([drained, failed, once(stalled, "close")]);
    expect(t.front.status().connections).toBe(0);
    expect(await t.client(await t.issue()).failure()).toMatch(/^UNAVAILABLE/);
  });

  test("with nothing under way does not wait for its deadline, and may be asked for twice", async () => {
    const t = await start();
    await t.client(await t.issue()).call();
    await Promise.all([t.front.drain(600_000), t.front.drain(0)]);
    expect(t.front.status().connections).toBe(0);
  });

  test("leaves nothing that reloads", async () => {
    const t = await start();
    await t.front.drain(0);
    t.write("acme.pem", "");
    expect(await t.front.reload()).toEqual({ changed: [], failure: undefined });
  });
});

test("a unix socket's file that nobody listens on is taken over", async () => {
  const folder = tempFolder("front");
  const [path, moved] = [join(folder, "front.sock"), join(folder, "moved.sock")];
  const dead = createServer().listen(moved);
  await once(dead, "listening");
  // Closing removes the name it was made with: under the other one it stays, as after kill -9.
  renameSync(moved, path);
  await new Promise((resolve) => dead.close(resolve));
  expect(existsSync(path)).toBe(true);
  const t = await start({ listen: `unix:${path}` });
  const stream = t.client(await t.issue());
  expect(await stream.failure()).toBe(`OK ${APP}`);
});

test.each(["nonsense", "127.0.0.1", "127.0.0.1:99999", "192.0.2.1:1", "unix:/does/not/exist/x.sock"])(
  "an address that can't be listened on is an error in one line: %s",
  async (listen) => {
    await expect(startFront({ listen })).rejects.toMatchObject({ reason: "REQUEST_INVALID", message: expect.not.stringContaining("\n") });
  },
);
