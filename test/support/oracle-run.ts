import { randomBytes, randomUUID } from "node:crypto";
import type { Client } from "../../src/client/client.ts";
import { PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { EventType } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import { APP } from "./broker.ts";
import { FOLDERS, OracleActs } from "./oracle-acts.ts";
import { ClientWatcher, verifyClient } from "./oracle-client-watcher.ts";
import type { OracleLog, Row } from "./oracle-log.ts";
import { verifyRaw } from "./oracle-verify.ts";
import { covers, RawWatcher, type Wish } from "./oracle-watcher.ts";
import { Random } from "./random.ts";
import { until } from "./until.ts";

const TYPES: readonly (readonly EventType[])[] = [
  [],
  [],
  [EventType.SECRET_VERSION_CREATED],
  [EventType.SECRET_VERSION_CREATED, EventType.SECRET_DELETED],
  [EventType.ROTATION_SUCCEEDED, EventType.LEASE_ISSUED, EventType.LEASE_EXPIRED, EventType.LEASE_REVOKED],
];
/** What a reader that reads nothing can't be given: more than HTTP/2 and grpc-js hold for it. */
const FLOOD = { writes: 30, bytes: 60_000 };

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
  /** What was done to the replicas, and when, for who waits in vain. */
  readonly story: readonly string[];
  readonly log: OracleLog;
  readonly replicas: readonly OracleReplica[];
  /** As administrator and as APP: at each replica, and at whichever is there. */
  readonly admins: readonly Client[];
  readonly apps: readonly Client[];
  readonly writer: Client;
}

export interface OracleRunOptions {
  /** Its replica is restarted without a word in any case, and not now and then. */
  readonly kills?: boolean;
}

/** One seed: its own folder, its own policy, its own role, its own watchers, and what it does to them. Throws when any of them was told anything but what the log says. */
export class OracleRun {
  readonly #scene: OracleScene;
  readonly #random: Random;
  readonly #root: string;
  readonly #name: string;
  readonly #credentials: string;
  readonly #acts: OracleActs;
  readonly #kills: boolean;
  readonly #watchers: Watcher[] = [];
  readonly #policies: Policy[] = [];
  #started = 0;
  #restarting: Promise<void> | undefined;

  constructor(scene: OracleScene, seed: number, { kills = false }: OracleRunOptions = {}) {
    this.#scene = scene;
    this.#random = new Random(seed);
    this.#name = `s${seed}-${randomBytes(3).toString("hex")}`;
    this.#root = `secrets/${this.#name}`;
    this.#credentials = `credentials/${this.#name}`;
    this.#kills = kills;
    this.#acts = new OracleActs(scene.writer, this.#random, this.#root, `${this.#credentials}/ro`);
  }

  async go(): Promise<void> {
    await this.#policy(FOLDERS);
    try {
      this.#burst(6);
      const steps = 15 + this.#random.below(15);
      const flood = this.#random.chance(0.06) ? this.#random.below(steps) : -1;
      for (let i = 0; i < steps; i++) {
        if (this.#kills && i === steps >> 1) this.#restart(false);
        await (i === flood ? this.#flood() : this.#step());
      }
      await this.#restarting;
      await this.#finish();
    } finally {
      await this.#restarting;
      await Promise.all(this.#watchers.map((watcher) => watcher.end()));
      await this.#acts.insist(PolicyService.method.deletePolicy, { requestId: randomUUID(), path: `policies/${this.#name}` });
    }
    // Also what housekeeping did meanwhile.
    await this.#scene.log.read();
    this.#verify();
  }

  async #step(): Promise<void> {
    const random = this.#random;
    const dice = random.next();
    if (dice < 0.62) await Promise.all(Array.from({ length: 1 + random.below(4) }, () => this.#acts.act()));
    else if (dice < 0.74) await this.#policy(FOLDERS.filter(() => random.chance(0.5)));
    else if (dice < 0.82) this.#burst(1 + random.below(4));
    else if (dice < 0.9) random.of(this.#scene.replicas).cut();
    else if (dice < 0.97) await this.#scene.log.prune(random.below(6));
    else this.#restart(random.chance(0.5));
  }

  #restart(drains: boolean): void {
    if (this.#restarting !== undefined) return;
    this.#restarting = this.#random.of(this.#scene.replicas).restart(drains);
  }

  /** Readers that stop reading while much is written for them: the broker gives up on them, and they go on where they were. */
  async #flood(): Promise<void> {
    const wish: Wish = { paths: [`${this.#root}/**`], types: [], includeValues: true, snapshot: false };
    const { admins, writer } = this.#scene;
    const raw = new RawWatcher("slow watcher", wish, admins, new Random(this.#random.below(2 ** 31)), () => this.#started);
    const slow = [raw, new ClientWatcher("slow watcher of the helper", { ...wish, snapshot: true }, writer)];
    this.#watchers.push(...slow);
    await until("slow watchers to begin", () => slow.every((watcher) => watcher.position >= 0 || watcher.failure !== undefined));
    const stalls = slow.map((watcher) => watcher.stall());
    const path = `${this.#root}/${this.#random.of(FOLDERS)}/1`;
    await Promise.all(Array.from({ length: FLOOD.writes }, () => this.#acts.put(path, FLOOD.bytes)));
    await Promise.all(stalls);
  }

  #burst(count: number): void {
    for (let i = 0; i < count; i++) {
      const [random, n] = [new Random(this.#random.below(2 ** 31)), this.#watchers.length];
      const folder = random.of(FOLDERS);
      const paths = random.of([
        [`${this.#root}/**`],
        [`${this.#root}/${folder}/**`],
        [`${this.#root}/a/1`],
        [`${this.#root}/b/**`, `${this.#root}/a/1`],
        [`${this.#credentials}/**`],
        [`${this.#root}/a/**`, `${this.#credentials}/**`],
        [this.#acts.leases.at(-1) ?? `${this.#root}/a/rotated`],
      ]);
      const types = random.of(TYPES);
      const wish: Wish = { paths, types, includeValues: random.chance(0.3), snapshot: random.chance(0.5) };
      const name = `watcher ${n} of ${paths.join(" ")}`;
      // Of a single lease the helper asks what it is (leaseNow); what there was to tell then is not in the log.
      if (random.chance(0.25) && !paths[0]!.startsWith("leases/"))
        this.#watchers.push(new ClientWatcher(name, { ...wish, snapshot: true }, this.#scene.writer));
      else if (random.chance(0.4)) this.#watchers.push(new RawWatcher(`${name}, as the app`, wish, this.#scene.apps, random, () => this.#started));
      else this.#watchers.push(new RawWatcher(name, wish, this.#scene.admins, random, () => this.#started));
    }
  }

  async #policy(folders: readonly string[]): Promise<void> {
    const prefixes = folders.map((folder) => `${this.#root}/${folder}/`);
    const always = `${this.#credentials}/`;
    const policy: Policy = { revision: 0, allows: (path) => path.startsWith(always) || prefixes.some((prefix) => path.startsWith(prefix)) };
    this.#policies.push(policy);
    this.#started++;
    const paths = [...prefixes.map((prefix) => `${prefix}**`), `${always}**`];
    const rules = [{ paths, allow: ["read", "watch"] }];
    const put = await this.#acts.insist(PolicyService.method.putPolicy, { requestId: randomUUID(), policy: { name: this.#name, principals: [APP], rules } });
    policy.revision = Number(put!.revision);
  }

  async #finish(): Promise<void> {
    await this.#policy(FOLDERS);
    for (const watcher of this.#watchers) watcher.settle();
    for (const folder of FOLDERS) {
      await this.#acts.insist(SecretService.method.restoreSecret, { requestId: randomUUID(), path: `${this.#root}/${folder}/1` });
      await this.#acts.put(`${this.#root}/${folder}/1`, 10);
    }
    await this.#scene.log.read();
    const rows = this.#rows();
    for (const watcher of this.#watchers) {
      const target = rows.findLast((row) => covers(watcher.wish, row))?.revision ?? 0;
      await until(`${watcher.name} to come to ${target}`, () => {
        if (watcher.failure !== undefined) throw new Error(`${watcher.name}: ${watcher.failure.message}`, { cause: watcher.failure });
        return watcher.position >= target;
      }).catch((error: unknown) => {
        throw new Error(
          `${(error as Error).message}; it is at ${watcher.position}: ${watcher.doing}; now ${new Date().toISOString()}; ${this.#scene.story.slice(-12).join(", ")}`,
          { cause: error },
        );
      });
    }
  }

  #rows(): Row[] {
    return this.#scene.log.below(`${this.#root}/`, `${this.#credentials}/`);
  }

  #verify(): void {
    const rows = this.#rows();
    for (const watcher of this.#watchers) {
      try {
        if (watcher.failure !== undefined) throw watcher.failure;
        if (watcher instanceof ClientWatcher) verifyClient(watcher, rows);
        else verifyRaw(watcher, rows, watcher.name.endsWith("as the app") ? { policies: this.#policies } : undefined, this.#acts.values);
      } catch (error) {
        throw new Error(`${watcher.name} (${JSON.stringify(watcher.wish)}): ${(error as Error).message}`, { cause: error });
      }
    }
  }
}
