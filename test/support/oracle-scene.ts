import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Client } from "../../src/client/client.ts";
import { type TestBroker, testWorld, type TestWorld } from "./broker.ts";
import { OracleLog } from "./oracle-log.ts";
import type { OracleReplica, OracleScene } from "./oracle-run.ts";
import { addOracleTarget } from "./oracle-target.ts";
import { STALL } from "./oracle-watcher.ts";
import { identity } from "./pki.ts";
import { sharedRedis } from "./redis.ts";
import { type SwitchedLine, switchedLine } from "./switched-line.ts";

/** Settings for many tenants on a loaded machine: a replica that can't be had is not what is tried here. */
function settingsOf({ store }: TestWorld): Readonly<Record<string, unknown>> {
  return {
    store: { url: store.url, allow_no_fsync: true, connect_timeout: "30s" },
    redis: { url: sharedRedis().url },
    log: { level: "info" },
    drain: "100ms",
    leases: { sweep_interval: "1s" },
    limits: { rate_per_second: 1_000_000, rate_burst: 1_000_000, max_stream_stall: STALL },
  };
}

/** How a replica runs. */
interface Host {
  start(): Promise<TestBroker>;
  /** @param drains false: without a word to anybody. */
  stop(broker: TestBroker, drains: boolean): Promise<void>;
}

/** In this process: a line that is cut is what its clients see of a kill. */
function inProcess(world: TestWorld): Host {
  const settings = { ...settingsOf(world), log: { level: "silent" } };
  return { start: () => world.start({ settings }), stop: (broker) => broker.stop() };
}

/** In a process of its own, which ends by SIGTERM or by SIGKILL. */
function spawned(world: TestWorld): Host {
  const programs = new Map<TestBroker, { signal(name: NodeJS.Signals): void; readonly ended: Promise<unknown> }>();
  return {
    async start() {
      const broker = await world.spawn({ settings: settingsOf(world) });
      programs.set(broker, broker.program);
      return broker;
    },
    async stop(broker, drains) {
      const program = programs.get(broker)!;
      programs.delete(broker);
      program.signal(drains ? "SIGTERM" : "SIGKILL");
      await program.ended;
      await broker.stop();
    },
  };
}

/** One restart at a time; and what was done. */
interface Turns {
  last: Promise<void>;
  readonly story: string[];
}

/** A broker behind a line that can be cut. */
class Replica implements OracleReplica {
  readonly #host: Host;
  readonly #line: SwitchedLine;
  readonly #cutsFirst: boolean;
  readonly #turns: Turns;
  #broker: TestBroker | undefined;

  constructor(host: Host, line: SwitchedLine, cutsFirst: boolean, turns: Turns) {
    [this.#host, this.#line, this.#cutsFirst, this.#turns] = [host, line, cutsFirst, turns];
  }

  #tell(what: string): void {
    this.#turns.story.push(`${new Date().toISOString().slice(11)} ${what} ${this.#line.port}`);
  }

  async start(): Promise<void> {
    this.#broker = await this.#host.start();
    this.#line.lead(Number(this.#broker.address.split(":").at(-1)));
  }

  cut(): void {
    this.#tell("cut");
    this.#line.cut();
  }

  restart(drains: boolean): Promise<void> {
    // The other one stays, whoever asks.
    this.#turns.last = this.#turns.last.then(() => this.#restart(drains));
    return this.#turns.last;
  }

  async #restart(drains: boolean): Promise<void> {
    this.#tell(drains ? "drain" : "kill");
    this.#line.lead(undefined);
    if (!drains && this.#cutsFirst) this.#line.cut();
    await this.#host.stop(this.#broker!, drains);
    // What the end of a process does: a handshake that was under way must not stay open.
    this.#line.cut();
    this.#tell("start");
    await this.start();
    this.#tell("started");
  }
}

export interface OpenScene {
  readonly scene: OracleScene;
  close(): Promise<void>;
}

/** Two replicas on one store, with a target for leases, and clients of either and of both. @param host `process`: each replica in a process of its own, which a restart that does not drain ends with `kill -9`. */
export async function openScene(host: "here" | "process"): Promise<OpenScene> {
  const world = await testWorld();
  const log = await OracleLog.open(world.store);
  const lines = [await switchedLine(), await switchedLine()];
  const turns: Turns = { last: Promise.resolve(), story: [] };
  const hosted = host === "here" ? inProcess(world) : spawned(world);
  const replicas = lines.map((line) => new Replica(hosted, line, host === "here", turns));
  // One after the other: the first makes the keyring.
  for (const replica of replicas) await replica.start();
  const ca = readFileSync(join(world.folder, "ca.pem"), "utf8");
  const at = async (name: "admin" | "app", address: string): Promise<Client> => {
    const { certificatePem: certificate, keyPem: key } = await identity(name);
    return new Client({ address, certificate, key, ca, serverName: "localhost" }, 20_000);
  };
  const addresses = lines.map(({ port }) => `127.0.0.1:${port}`);
  const each = (name: "admin" | "app"): Promise<Client[]> => Promise.all(addresses.map((address) => at(name, address)));
  const scene = {
    story: turns.story,
    log,
    replicas,
    admins: await each("admin"),
    apps: await each("app"),
    writer: await at("admin", `ipv4:${addresses.join(",")}`),
  };
  const target = await addOracleTarget(scene.writer);
  return {
    scene,
    async close() {
      for (const client of [scene.writer, ...scene.admins, ...scene.apps]) client.close();
      await log.close();
      await world.close();
      for (const line of lines) line.close();
      await target.remove();
    },
  };
}
