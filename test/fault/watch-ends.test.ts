import { readFileSync } from "node:fs";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Client } from "../../src/client/client.ts";
import { CallError } from "../../src/client/errors.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { type WatchResponse, WatchService } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import { allowApp, APP, type TestBroker, testWorld, type TestWorld, texts } from "../support/broker.ts";
import { OracleLog } from "../support/oracle-log.ts";
import { identity, issueLeaf, writeIdentity } from "../support/pki.ts";
import { startProgram } from "../support/process.ts";
import { switchedLine } from "../support/switched-line.ts";
import { until } from "../support/until.ts";

const PATHS = ["secrets/payments/**"];
const MAIN = join(import.meta.dirname, "../../src/main.ts");

describe("a watch that ends though nobody wanted it to", () => {
  let world: TestWorld;
  let broker: TestBroker;
  beforeAll(async () => {
    world = await testWorld();
    broker = await world.start();
    await allowApp(broker);
  });
  afterAll(() => world.close());

  const put = async (path: string): Promise<number> =>
    Number((await broker.as("admin").call(SecretService.method.putSecret, { path, data: texts({ k: "v" }) })).revision);
  const revisions = (message: WatchResponse): number[] => message.events.map((event) => Number(event.revision));

  /** A watch whose certificate ends in `validForMs`; undefined when that was over before the watch was open. */
  async function watchOf(validForMs: number) {
    const { certificatePem: certificate, keyPem: key } = await issueLeaf("short", { by: "acme", uris: [APP], validForMs });
    const client = new Client({ address: broker.address, certificate, key, ca: readFileSync(join(world.folder, "ca.pem"), "utf8"), serverName: "localhost" });
    const stream = client.stream(WatchService.method.watch, { paths: PATHS });
    const isOpen = await stream.next().then(
      () => true,
      () => false,
    );
    return isOpen ? { client, stream } : client.close();
  }

  it("by its certificate's end: UNAUTHENTICATED, CERTIFICATE_EXPIRED, and where another certificate goes on", async () => {
    // Longer where the machine is slow.
    const { client, stream } = (await watchOf(3000)) ?? (await watchOf(9000)) ?? (await watchOf(27_000))!;
    const before = await put("secrets/payments/a");
    const seen: number[] = [];
    const end = await (async () => {
      for await (const message of stream) seen.push(...revisions(message));
      return undefined;
    })().catch((error: unknown) => error);
    client.close();
    if (!(end instanceof CallError)) throw new Error("the watch ended without an error");
    expect([end.code, end.reason]).toEqual([status.UNAUTHENTICATED, "CERTIFICATE_EXPIRED"]);
    const after = await put("secrets/payments/a");
    for await (const message of broker.as("app").stream(WatchService.method.watch, { paths: PATHS, resumeToken: end.metadata["resume_token"]! })) {
      seen.push(...revisions(message));
      if (seen.includes(after)) break;
    }
    expect(seen).toEqual([before, after]);
  });

  it("by kill -9 of the broker: `leasehold watch` goes on with the next one, each event once and in order", { timeout: 180_000 }, async () => {
    const log = await OracleLog.open(world.store);
    const line = await switchedLine();
    const admin = writeIdentity(world.folder, "admin", await identity("admin"));
    const start = async () => {
      const doomed = await world.spawn({ settings: { log: { level: "info" } } });
      line.lead(Number(doomed.address.split(":").at(-1)));
      return doomed;
    };
    let doomed = await start();
    const where = ["--address", `127.0.0.1:${line.port}`, "--server-name", "localhost", "--ca", join(world.folder, "ca.pem")];
    const as = ["--cert", admin.certificate, "--key", admin.key];
    const command = startProgram(process.execPath, [MAIN, "watch", "secrets/cli/**", "--snapshot", "--bookmarks", "-o", "json", ...where, ...as]);
    const printed = (): number[] => {
      const lines = command.stdout().split("\n").slice(0, -1);
      const events = lines.map((text) => JSON.parse(text) as { readonly revision?: string; readonly snapshot?: boolean });
      return events.filter(({ snapshot, revision }) => revision !== undefined && snapshot !== true).map(({ revision }) => Number(revision));
    };
    const first = await put("secrets/cli/first");
    await until("the watch to have begun", async () => {
      await put("secrets/cli/first");
      return printed().some((revision) => revision > first);
    });

    // By another replica, in the middle of which this one is killed; and more while it is away.
    const write = async (): Promise<void> => {
      for (let i = 0; i < 20; i++) await put(`secrets/cli/${i % 5}`);
    };
    for (let round = 0; round < 2; round++) {
      const told = printed().length;
      const writing = write();
      await until("events to come", () => printed().length > told + 5);
      doomed.program.signal("SIGKILL");
      await Promise.all([writing, doomed.program.ended]);
      line.cut();
      await write();
      doomed = await start();
    }
    const last = await put("secrets/cli/last");
    await until("the last event", () => printed().includes(last));
    command.signal("SIGTERM");
    await command.ended;

    await log.read();
    const seen = printed();
    expect(seen).toEqual(
      log
        .below("secrets/cli/")
        .map(({ revision }) => revision)
        .filter((revision) => revision >= seen[0]!),
    );
    await log.close();
    line.close();
  });
});
