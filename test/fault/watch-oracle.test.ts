import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, it } from "vitest";
import { Client } from "../../src/client/client.ts";
import { testWorld, type TestBroker, type TestWorld } from "../support/broker.ts";
import { OracleLog } from "../support/oracle-log.ts";
import { type OracleReplica, OracleRun, type OracleScene } from "../support/oracle-run.ts";
import { identity } from "../support/pki.ts";
import { sharedRedis } from "../support/redis.ts";
import { type SwitchedLine, switchedLine } from "../support/switched-line.ts";

/** `SEEDS=1000` (npm run test:watch) for many, `SEED=17` for one. */
const SEEDS = Number(process.env["SEEDS"] ?? 12);
/** Seeds under way at a time, on the same brokers: they get in each other's way as real tenants do. */
const SIDE_BY_SIDE = 4;
const ONLY = process.env["SEED"];

/** A broker behind a line that can be cut. */
class Replica implements OracleReplica {
  readonly line: SwitchedLine;
  readonly #world: TestWorld;
  static #turn: Promise<void> = Promise.resolve();
  #broker: TestBroker | undefined;

  constructor(world: TestWorld, line: SwitchedLine) {
    [this.#world, this.line] = [world, line];
  }

  async start(): Promise<void> {
    // Times for a loaded machine: a replica that can't be had is not what is tried here.
    const store = { url: this.#world.store.url, allow_no_fsync: true, connect_timeout: "30s" };
    const settings = { store, redis: { url: sharedRedis().url }, drain: "100ms", limits: { rate_per_second: 1_000_000, rate_burst: 1_000_000 } };
    this.#broker = await this.#world.start({ settings });
    this.line.lead(Number(this.#broker.address.split(":").at(-1)));
  }

  cut(): void {
    this.line.cut();
  }

  restart(drains: boolean): Promise<void> {
    // The other one stays, whoever asks.
    Replica.#turn = Replica.#turn.then(() => this.#restart(drains));
    return Replica.#turn;
  }

  async #restart(drains: boolean): Promise<void> {
    this.line.lead(undefined);
    if (!drains) this.line.cut();
    await this.#broker?.stop();
    // What the end of a process does: a handshake that was under way must not stay open.
    this.line.cut();
    await this.start();
  }
}

describe("watchers are told what the change log says", () => {
  let world: TestWorld;
  let scene: OracleScene;
  const lines: SwitchedLine[] = [];

  beforeAll(async () => {
    world = await testWorld();
    const log = await OracleLog.open(world.store);
    for (let i = 0; i < 2; i++) lines.push(await switchedLine());
    const replicas = lines.map((line) => new Replica(world, line));
    for (const replica of replicas) await replica.start();
    const ca = readFileSync(join(world.folder, "ca.pem"), "utf8");
    const at = async (name: "admin" | "app", address: string): Promise<Client> => {
      const { certificatePem: certificate, keyPem: key } = await identity(name);
      return new Client({ address, certificate, key, ca, serverName: "localhost" }, 20_000);
    };
    const addresses = lines.map(({ port }) => `127.0.0.1:${port}`);
    const each = (name: "admin" | "app"): Promise<Client[]> => Promise.all(addresses.map((address) => at(name, address)));
    scene = { log, replicas, admins: await each("admin"), apps: await each("app"), writer: await at("admin", `ipv4:${addresses.join(",")}`) };
  });
  afterAll(async () => {
    for (const client of [scene.writer, ...scene.admins, ...scene.apps]) client.close();
    await scene.log.close();
    await world.close();
    for (const line of lines) line.close();
  });

  const seeds = ONLY === undefined ? Array.from({ length: SEEDS }, (_, i) => i + 1) : [Number(ONLY)];
  it(
    `of ${seeds.length} seeds`,
    async () => {
      const startedAt = performance.now();
      const left = seeds.entries();
      const work = async (): Promise<void> => {
        for (const [i, seed] of left) {
          try {
            await new OracleRun(scene, seed).go();
          } catch (error) {
            throw new Error(`seed ${seed} (again with SEED=${seed} npm run test:watch): ${(error as Error).message}`, { cause: error });
          }
          if ((i + 1) % 50 === 0) console.log(`${i + 1} seeds, ${((performance.now() - startedAt) / (i + 1)).toFixed(0)} ms each`);
        }
      };
      await Promise.all(Array.from({ length: SIDE_BY_SIDE }, work));
    },
    seeds.length * 30_000,
  );
});
