import { randomBytes, randomUUID } from "node:crypto";
import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import type { Client } from "../../src/client/client.ts";
import { CallError } from "../../src/client/errors.ts";
import { PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { EventType } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import { APP, texts } from "./broker.ts";
import { ClientWatcher, verifyClient } from "./oracle-client-watcher.ts";
import type { OracleLog } from "./oracle-log.ts";
import { verifyRaw } from "./oracle-verify.ts";
import { covers, RawWatcher, type Wish } from "./oracle-watcher.ts";
import { Random } from "./random.ts";
import { until } from "./until.ts";

const FOLDERS = ["a", "b"] as const;
const NAMES = ["1", "2", "3"] as const;

type Watcher = RawWatcher | ClientWatcher;

interface Policy {
  /** 0 until it is known. */
  revision: number;
  allows(path: string): boolean;
}

/** A broker that can be taken away. */
export interface OracleReplica {
  /** Ends its connections, without a word. */
  cut(): void;
  /** @param drains false: to its clients it is gone without a word. */
  restart(drains: boolean): Promise<void>;
}

export interface OracleScene {
  readonly log: OracleLog;
  readonly replicas: readonly OracleReplica[];
  /** As administrator and as APP: at each replica, and at whichever is there. */
  readonly admins: readonly Client[];
  readonly apps: readonly Client[];
  readonly writer: Client;
}

/** One seed: its own folder, its own policy, its own watchers, and what it does to them. Throws when any of them was told anything but what the log says. */
export class OracleRun {
  readonly #scene: OracleScene;
  readonly #random: Random;
  readonly #root: string;
  readonly #name: string;
  readonly #watchers: Watcher[] = [];
  readonly #values = new Map<number, string>();
  readonly #policies: Policy[] = [];
  #started = 0;
  #restarting: Promise<void> | undefined;

  constructor(scene: OracleScene, seed: number) {
    this.#scene = scene;
    this.#random = new Random(seed);
    this.#name = `s${seed}-${randomBytes(3).toString("hex")}`;
    this.#root = `secrets/${this.#name}`;
  }

  async go(): Promise<void> {
    await this.#policy(FOLDERS);
    try {
      this.#burst(6);
      const steps = 15 + this.#random.below(15);
      for (let i = 0; i < steps; i++) await this.#step();
      await this.#restarting;
      await this.#finish();
    } finally {
      await this.#restarting;
      await Promise.all(this.#watchers.map((watcher) => watcher.end()));
      await this.#insist(PolicyService.method.deletePolicy, { requestId: randomUUID(), path: `policies/${this.#name}` });
    }
    // Also what housekeeping did meanwhile.
    await this.#scene.log.read();
    this.#verify();
  }

  async #step(): Promise<void> {
    const random = this.#random;
    const dice = random.next();
    if (dice < 0.6) await Promise.all(Array.from({ length: 1 + random.below(4) }, () => this.#write()));
    else if (dice < 0.72) await this.#policy(FOLDERS.filter(() => random.chance(0.5)));
    else if (dice < 0.8) this.#burst(1 + random.below(4));
    else if (dice < 0.88) random.of(this.#scene.replicas).cut();
    else if (dice < 0.95) await this.#scene.log.prune(random.below(6));
    else this.#restart();
  }

  #restart(): void {
    if (this.#restarting !== undefined) return;
    this.#restarting = this.#random.of(this.#scene.replicas).restart(this.#random.chance(0.5));
  }

  #burst(count: number): void {
    for (let i = 0; i < count; i++) {
      const [random, n] = [new Random(this.#random.below(2 ** 31)), this.#watchers.length];
      const folder = random.of(FOLDERS);
      const paths = random.of([[`${this.#root}/**`], [`${this.#root}/${folder}/**`], [`${this.#root}/a/1`], [`${this.#root}/b/**`, `${this.#root}/a/1`]]);
      const types = random.of([[], [], [EventType.SECRET_VERSION_CREATED], [EventType.SECRET_VERSION_CREATED, EventType.SECRET_DELETED]]);
      const wish: Wish = { paths, types, includeValues: random.chance(0.3), snapshot: random.chance(0.5) };
      const name = `watcher ${n} of ${paths.join(" ")}`;
      if (random.chance(0.25)) this.#watchers.push(new ClientWatcher(name, { ...wish, snapshot: true }, this.#scene.writer));
      else if (random.chance(0.4)) this.#watchers.push(new RawWatcher(`${name}, as the app`, wish, this.#scene.apps, random, () => this.#started));
      else this.#watchers.push(new RawWatcher(name, wish, this.#scene.admins, random, () => this.#started));
    }
  }

  async #write(): Promise<void> {
    const random = this.#random;
    const path = `${this.#root}/${random.of(FOLDERS)}/${random.of(NAMES)}`;
    const dice = random.next();
    const { deleteSecret, restoreSecret, updateSecretMetadata, deleteSecretVersions } = SecretService.method;
    if (dice < 0.65) await this.#put(path, random.chance(0.1) ? 16_000 : 10);
    else if (dice < 0.77)
      await this.#insist(deleteSecret, { requestId: randomUUID(), path, ...(random.chance(0.3) ? { recoveryWindow: { seconds: 0n, nanos: 0 } } : {}) });
    else if (dice < 0.87) await this.#insist(restoreSecret, { requestId: randomUUID(), path });
    else if (dice < 0.94) await this.#insist(updateSecretMetadata, { requestId: randomUUID(), path, labels: { n: String(random.below(1000)) } });
    else await this.#insist(deleteSecretVersions, { requestId: randomUUID(), path, versions: [1n] });
  }

  async #put(path: string, length: number): Promise<void> {
    const value = `${randomUUID()}${"x".repeat(length)}`;
    const written = await this.#insist(SecretService.method.putSecret, { requestId: randomUUID(), path, data: texts({ v: value }) });
    if (written !== undefined) this.#values.set(Number(written.revision), value);
  }

  async #policy(folders: readonly string[]): Promise<void> {
    const prefixes = folders.map((folder) => `${this.#root}/${folder}/`);
    const policy: Policy = { revision: 0, allows: (path) => prefixes.some((prefix) => path.startsWith(prefix)) };
    this.#policies.push(policy);
    this.#started++;
    const paths = [...prefixes.map((prefix) => `${prefix}**`), `${this.#root}/none/**`];
    const rules = [{ paths, allow: ["read", "watch"] }];
    const put = await this.#insist(PolicyService.method.putPolicy, { requestId: randomUUID(), policy: { name: this.#name, principals: [APP], rules } });
    policy.revision = Number(put!.revision);
  }

  /** A change, repeated until its outcome is known; undefined when it was refused. */
  async #insist<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O> | undefined> {
    for (;;) {
      try {
        return await this.#scene.writer.call(method, request);
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        const isUnknown = error.reason === "" || error.code === status.UNAVAILABLE || error.code === status.DEADLINE_EXCEEDED;
        if (!isUnknown) return undefined;
        if (error.code !== status.UNAVAILABLE) console.log(`${method.name}: ${error.code} ${error.reason} ${error.message}`);
      }
    }
  }

  async #finish(): Promise<void> {
    await this.#policy(FOLDERS);
    for (const watcher of this.#watchers) watcher.settle();
    for (const folder of FOLDERS) {
      await this.#insist(SecretService.method.restoreSecret, { requestId: randomUUID(), path: `${this.#root}/${folder}/1` });
      await this.#put(`${this.#root}/${folder}/1`, 10);
    }
    await this.#scene.log.read();
    const rows = this.#scene.log.below(`${this.#root}/`);
    for (const watcher of this.#watchers) {
      const target = rows.findLast((row) => covers(watcher.wish, row))!.revision;
      await until(`${watcher.name} to come to ${target}`, () => {
        if (watcher.failure !== undefined) throw new Error(`${watcher.name}: ${watcher.failure.message}`, { cause: watcher.failure });
        return watcher.position >= target;
      }).catch((error: unknown) => {
        throw new Error(`${(error as Error).message}; it is at ${watcher.position}: ${watcher.doing}; now ${new Date().toISOString()}`, { cause: error });
      });
    }
  }

  #verify(): void {
    const rows = this.#scene.log.below(`${this.#root}/`);
    for (const watcher of this.#watchers) {
      try {
        if (watcher.failure !== undefined) throw watcher.failure;
        if (watcher instanceof ClientWatcher) verifyClient(watcher, rows);
        else verifyRaw(watcher, rows, watcher.name.endsWith("as the app") ? { policies: this.#policies } : undefined, this.#values);
      } catch (error) {
        throw new Error(`${watcher.name} (${JSON.stringify(watcher.wish)}): ${(error as Error).message}`, { cause: error });
      }
    }
  }
}
