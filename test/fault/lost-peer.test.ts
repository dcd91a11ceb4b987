import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { Client } from "../../src/client/client.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { WatchService } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import { resetStream } from "../../src/rpc/http2-stream.ts";
import { testWorld } from "../support/broker.ts";
import { startFront, TestClient } from "../support/front.ts";
import { identity } from "../support/pki.ts";
import { until } from "../support/until.ts";

const STREAMS = 8;

/** A way to a server whose two ends are each of their own, to be reset: `near` leads to the client, `far` to the server. */
async function openLine(port: number, onConnected: (near: Socket) => void = () => {}) {
  const near: Socket[] = [];
  const far: Socket[] = [];
  const server = createServer((socket) => {
    const beyond = connect(port, "127.0.0.1");
    for (const each of [socket, beyond]) each.on("error", () => {});
    near.push(socket);
    far.push(beyond);
    socket.pipe(beyond).pipe(socket);
    onConnected(socket);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const close = (): void => {
    for (const socket of [...near, ...far]) socket.destroy();
    server.close();
  };
  return { port: (server.address() as AddressInfo).port, near, far, close };
}

/** The turn in which what was written is through, and nothing is read before the next one. */
const betweenReadAndWrite = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Node misses the end of a TLS connection that was reset just before two writes (src/base/peer.ts): nothing comes any more, and nothing fails, for the 40 s of a keepalive. */
describe("a connection that is reset just before it is written to", () => {
  const closers: (() => void | Promise<void>)[] = [];
  afterEach(async () => {
    for (const close of closers.splice(0).toReversed()) await close();
  });

  it("is noticed by the client, which goes on with another", async () => {
    const world = await testWorld();
    const broker = await world.start();
    const line = await openLine(portOf(broker.address));
    const { certificatePem: certificate, keyPem: key } = await identity("admin");
    const ca = readFileSync(join(world.folder, "ca.pem"), "utf8");
    const client = new Client({ address: `127.0.0.1:${line.port}`, certificate, key, ca, serverName: "localhost" });
    closers.push(
      () => world.close(),
      line.close,
      () => client.close(),
    );
    const open = async (signal?: AbortSignal) => {
      const stream = client.stream(WatchService.method.watch, { paths: ["secrets/a/**"] }, signal);
      await stream.next();
      return stream;
    };
    const leaves = Array.from({ length: STREAMS }, () => new AbortController());
    const left = (await Promise.all(leaves.map(({ signal }) => open(signal)))).map((stream) => stream.next());
    const ended = (await open()).next().then(
      () => "a message",
      (error: Error) => error.name,
    );
    let end = "";
    void ended.then((how) => (end = how));

    await betweenReadAndWrite();
    line.near[0]!.resetAndDestroy();
    for (const leave of leaves) leave.abort();

    await Promise.all(left);
    await until("the watch that stays to end", () => end !== "");
    expect(end).toBe("CallError");
    await client.call(SecretService.method.listSecrets, { prefix: "secrets/a/" });
    expect(line.near).toHaveLength(2);
  });

  it("is noticed by the client before the handshake is done too, and tried again", async () => {
    const world = await testWorld();
    const broker = await world.start();
    let resets = 0;
    const line = await openLine(portOf(broker.address), (socket) => {
      if (resets++ > 0) return;
      socket.resetAndDestroy();
      // Whatever looks now and then looks before the reset is read.
      const end = performance.now() + 2000;
      while (performance.now() < end);
    });
    const { certificatePem: certificate, keyPem: key } = await identity("admin");
    const ca = readFileSync(join(world.folder, "ca.pem"), "utf8");
    const client = new Client({ address: `127.0.0.1:${line.port}`, certificate, key, ca, serverName: "localhost" });
    closers.push(
      () => world.close(),
      line.close,
      () => client.close(),
    );
    const list = (): Promise<unknown> => client.call(SecretService.method.listSecrets, { prefix: "secrets/a/" });
    await expect(list()).rejects.toThrow(/No connection established/);
    await until("a connection", () => list().catch(() => undefined));
    expect(resets).toBeGreaterThan(1);
  });

  it("is noticed by the broker, which forgets it", async () => {
    const front = await startFront();
    const line = await openLine(portOf(front.front.address));
    const app = await front.issue();
    const client = new TestClient(
      `dns:localhost:${line.port}`,
      Buffer.from(front.root.certificatePem),
      [Buffer.from(app.keyPem), Buffer.from(app.certificatePem)],
      {},
    );
    closers.push(
      () => front.close(),
      line.close,
      () => client.close(),
    );
    for (let i = 0; i < STREAMS; i++) client.stream();
    await until("all streams to be open", () => front.streams.length === STREAMS);
    expect(front.front.status().connections).toBe(1);

    await betweenReadAndWrite();
    line.far[0]!.resetAndDestroy();
    for (const stream of front.streams) resetStream(stream);

    await until("the connection to be forgotten", () => front.front.status().connections === 0);
  });
});

function portOf(address: string): number {
  return Number(address.split(":").at(-1));
}
