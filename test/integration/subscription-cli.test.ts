import { join, resolve } from "node:path";
import { writeFileSync } from "node:fs";
import { stringify } from "yaml";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testWorld, type TestBroker, type TestWorld } from "../support/broker.ts";
import { identity, writeIdentity } from "../support/pki.ts";
import { startProgram } from "../support/process.ts";
import { type Receiver, SIGNING_SECRET, startReceiver } from "../support/receiver.ts";
import { FAST, write } from "../support/subscriptions.ts";
import { until } from "../support/until.ts";

/** Each command is a process of its own. */
const LIMIT_MS = 240_000;
const MAIN = resolve(import.meta.dirname, "../../src/main.ts");

describe("leasehold subscription", () => {
  let world: TestWorld;
  let broker: TestBroker;
  let to: Receiver;
  let settings: string[];
  beforeAll(async () => {
    [world, to] = await Promise.all([testWorld(), startReceiver()]);
    broker = await world.start({ settings: FAST });
    const { certificate, key } = writeIdentity(world.folder, "admin", await identity("admin"));
    settings = ["--address", broker.address, "--cert", certificate, "--key", key, "--ca", join(world.folder, "ca.pem"), "--server-name", "localhost"];
  });
  afterAll(async () => {
    await world.close();
    await to.stop();
  });

  async function run(...args: string[]): Promise<{ readonly code: number | null; readonly out: string; readonly err: string }> {
    const program = startProgram(process.execPath, [MAIN, ...settings, ...args]);
    const { code } = await program.ended;
    return { code, out: program.stdout(), err: program.stderr() };
  }
  const json = async (...args: string[]): Promise<Record<string, unknown>> => {
    const { code, out, err } = await run(...args, "-o", "json");
    expect([code, err]).toEqual([0, ""]);
    return JSON.parse(out) as Record<string, unknown>;
  };
  const manifest = (name: string, document: object): string => {
    const file = join(world.folder, `${name}.yaml`);
    writeFileSync(file, stringify({ kind: "Subscription", name, paths: ["secrets/cli/**"], ...document }));
    return file;
  };

  it("a document makes one; the same again changes nothing; what `get` prints is a document", { timeout: LIMIT_MS }, async () => {
    const webhook = { url: to.url, caPem: to.ca, maxRefusals: 1 };
    const withSecret = manifest("hook", { webhook: { ...webhook, signingSecret: { text: SIGNING_SECRET } } });
    expect((await run("apply", "-f", withSecret, "--dry-run")).out).toBe("subscriptions/hook created (dry run)\n");
    expect((await run("apply", "-f", withSecret)).out).toBe("subscriptions/hook created\n");
    expect((await run("apply", "-f", manifest("hook", { webhook }))).out).toBe("subscriptions/hook unchanged\n");
    const printed = await run("get", "subscription", "hook", "-o", "yaml");
    writeFileSync(join(world.folder, "printed.yaml"), printed.out);
    expect(printed.out).not.toContain(SIGNING_SECRET);
    expect((await run("apply", "-f", join(world.folder, "printed.yaml"))).out).toBe("subscriptions/hook unchanged\n");
    expect((await run("apply", "-f", manifest("hook", { webhook, types: ["EVENT_TYPE_SECRET_VERSION_CREATED"] }))).out).toBe("subscriptions/hook updated\n");
    expect((await json("get", "subscriptions"))["subscriptions"]).toMatchObject([{ kind: "Subscription", name: "hook" }]);
  });

  it("shows how it stands, dead letters, and replays them", { timeout: LIMIT_MS }, async () => {
    to.answer = () => 422;
    await write(broker, ["secrets/cli/a"]);
    const letters = await until("the dead letter", async () => {
      const { deadLetters } = (await json("subscription", "dead-letters", "hook")) as { deadLetters: { id: string; problem: string }[] };
      return deadLetters.length > 0 ? deadLetters : undefined;
    });
    expect(letters).toMatchObject([{ problem: "HTTP 422", delivery: { events: [{ path: "secrets/cli/a" }] } }]);
    expect((await run("subscription", "list")).out).toMatch(/^NAME +STATE +SINK +OWNER .*\nhook +active +webhook +spiffe:\/\/acme\.test\/admin +0 +1 /);
    expect((await run("subscription", "dead-letters", "hook")).out).toContain("secret_version_created  secrets/cli/a");
    expect((await run("subscription", "replay", "hook")).code).toBe(2);
    to.answer = () => 204;
    expect((await run("subscription", "replay", "hook", letters[0]!.id)).out).toBe("1 will be delivered once more\n");
    await until("it", () => to.accepted().length === 1);
    expect((await run("subscription", "pause", "hook")).out).toMatch(/^state +paused$/m);
    expect((await run("subscription", "resume", "hook", "--from", "now")).out).toMatch(/^state +active$/m);
    expect((await run("subscription", "delete", "hook")).out).toBe("subscriptions/hook deleted\n");
    expect((await run("subscription", "get", "hook")).code).toBe(3);
  });

  it("consumes: prints and acknowledges", { timeout: LIMIT_MS }, async () => {
    expect((await run("apply", "-f", manifest("work", { start: "START_SNAPSHOT" }))).code).toBe(0);
    const snapshot = await run("subscription", "consume", "work", "--count", "1");
    expect(snapshot.out).toMatch(/secret_version_created {2}secrets\/cli\/a {2}version 1 {2}\(snapshot\)\n-- end of the snapshot\n$/);
    await write(broker, ["secrets/cli/b"]);
    const next = await until("the stream before to be gone", async () => {
      const ran = await run("subscription", "consume", "work", "--count", "1", "-o", "json");
      return ran.code === 0 ? ran : undefined;
    });
    expect(JSON.parse(next.out)).toMatchObject({ subscription: "subscriptions/work", events: [{ path: "secrets/cli/b", version: "1" }] });
  });
});
