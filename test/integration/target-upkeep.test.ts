import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { createLog } from "../../src/base/log.ts";
import { OpenTargets } from "../../src/catalog/open-targets.ts";
import { LoginRotator } from "../../src/catalog/rotate-login.ts";
import { rotateKeyring } from "../../src/crypto/rotate.ts";
import { BOOTSTRAP_VERSION } from "../../src/engines/postgres/bootstrap.ts";
import { ENGINES } from "../../src/engines/registry.ts";
import type { UpkeepConfig } from "../../src/model/target.ts";
import { Operations } from "../../src/operations/operations.ts";
import { rewrapWork } from "../../src/operations/rewrap.ts";
import type { Committer } from "../../src/store/command.ts";
import { seedUses } from "../../src/store/keyring.ts";
import { listFindings, pruneFindings } from "../../src/store/reconcile.ts";
import { INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { actorOf, leaseWorld, type LeaseTarget, type LeaseWorld, type Replica, ROLE, startLeaseTarget } from "../support/leases.ts";
import { until } from "../support/until.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const TWIN = `leasehold_${INSTANCE}_2`;
const log = createLog("silent");

let target: LeaseTarget;
let world: LeaseWorld;
let replica: Replica;
let other: Replica;
let uid: string;

beforeAll(async () => {
  target = await startLeaseTarget();
  world = await leaseWorld(target);
  [replica, other] = await Promise.all([world.replica(), world.replica()]);
  uid = replica.catalog.target("db")!.uid;
}, 60_000);
afterAll(async () => {
  await world?.close();
  await target?.cluster.stop();
});

async function putUpkeep(upkeep: UpkeepConfig): Promise<void> {
  const write = { etag: "", dryRun: false, actor: actorOf("spiffe://acme.test/admin", "OperatorService/PutTarget"), request: undefined };
  await replica.writer.putTarget({ name: "db", engine: "postgres", config: target.config, upkeep, password: undefined }, write);
  await Promise.all([replica, other].map(({ catalog }) => catalog.reset()));
}

/** All scans that are due, begun by both replicas at once and worked off by one. Answers how many there were. */
async function scans(): Promise<number> {
  const begun = await Promise.all([replica.scans.begin(), other.scans.begin()]);
  const operations = new Operations(replica.db, replica.committer, log);
  operations.register(replica.scan);
  await until("the scans to end", async () => {
    operations.look();
    return (await world.database.query("select from operation where state = 'RUNNING'")).length === 0;
  });
  await operations.stop();
  return begun[0] + begun[1];
}

async function stray(readable = "stray"): Promise<string> {
  const name = `lh_${INSTANCE}_${readable}_${randomUUID().replaceAll("-", "").slice(0, 16)}`;
  await target.sql(`create role ${name} login`);
  return name;
}
const shown = async (name: string, all = false) => (await listFindings(replica.db, all, 100)).filter((finding) => finding.name === name);
const audited = (action: string) => world.database.query("select from audit_record where record->>'action' = $1", [action]);

it("scans start by themselves at the target's interval, one for all replicas; orphans are reported and stay", async () => {
  await putUpkeep({ scanIntervalMs: 10 * MINUTE });
  const name = await stray();
  await world.advance(11 * MINUTE);
  expect(await scans()).toBe(1);
  expect(await scans()).toBe(0);
  expect(await shown(name)).toMatchObject([{ kind: "ORPHAN", resolution: "" }]);
  for (let i = 0; i < 3; i++) {
    await world.advance(11 * MINUTE);
    expect(await scans()).toBe(1);
  }
  expect(await target.has(name)).toBe(true);
  const events = await world.database.query("select from change_log where type = 25");
  expect(events).toHaveLength(1);
  await target.sql(`drop role ${name}`);
  await world.advance(11 * MINUTE);
  await scans();
  expect(await shown(name)).toEqual([]);
  expect(await shown(name, true)).toMatchObject([{ resolution: "gone" }]);
});

it("orphans: drop takes them away once they were seen the policy's age ago, as an audited act, and a lease's login never", async () => {
  await putUpkeep({ scanIntervalMs: 10 * MINUTE, orphans: "drop", orphanAgeMs: HOUR });
  const { lease } = await replica.issuer.issue({ path: ROLE, ttlMs: 4 * HOUR, actor: actorOf(), request: undefined });
  const name = await stray();
  await world.advance(11 * MINUTE);
  await scans();
  await world.advance(HOUR - 2 * MINUTE);
  await scans();
  expect(await target.has(name)).toBe(true);
  await world.advance(11 * MINUTE);
  await scans();
  expect(await target.has(name)).toBe(false);
  expect(await shown(name, true)).toMatchObject([{ resolution: "dropped" }]);
  expect(await audited("finding.resolve")).not.toEqual([]);
  expect(await target.has(lease.username)).toBe(true);
  await world.advance(31 * DAY);
  await pruneFindings(replica.db);
  expect(await shown(name, true)).toEqual([]);
});

it("a throw-away login of `target test` is no orphan while it is tried; one that was left behind is", async () => {
  await putUpkeep({ scanIntervalMs: MINUTE });
  const [tried, left] = [await stray("preflight"), await stray("preflight")];
  await world.advance(2 * MINUTE);
  await scans();
  expect(await shown(tried, true)).toEqual([]);
  await target.sql(`drop role ${tried}`);
  await world.advance(2 * MINUTE);
  await scans();
  expect(await shown(tried, true)).toEqual([]);
  expect(await shown(left)).toMatchObject([{ kind: "ORPHAN" }]);
  await target.sql(`drop role ${left}`);
});

it("what an engine can't do is refused", async () => {
  const write = { etag: "", dryRun: true, actor: actorOf(), request: undefined };
  const redis = { name: "r", engine: "redis", config: { host: "localhost", port: 1, username: "u", tls: { mode: "disable" } }, password: target.password };
  await expect(replica.writer.putTarget({ ...redis, upkeep: { rotateLoginEveryMs: HOUR } }, write)).rejects.toMatchObject({ reason: "REQUEST_INVALID" });
});

it("the broker's login is rotated when it is due, once for all replicas; a candidate is sealed anew by keys rewrap", async () => {
  const rotator = (by: Replica, dies = ""): LoginRotator => {
    const committer: Committer = {
      commit: (command) => (command.kind === dies ? Promise.reject(new Error("died")) : by.committer.commit(command)),
    };
    const options = { clock: systemClock, instance: INSTANCE, connectTimeoutMs: 2000, statementTimeoutMs: 5000, maxConnections: 2 };
    const targets = new OpenTargets(by.db, by.keyring, by.catalog, ENGINES, options, log);
    opened.push(targets);
    return new LoginRotator({
      db: by.db,
      catalog: by.catalog,
      targets,
      keyring: by.keyring,
      committer,
      instance: INSTANCE,
      log,
      mayWork: (target_uid) => by.gate.check(target_uid),
    });
  };
  const opened: OpenTargets[] = [];
  const inUse = async (): Promise<string | undefined> => {
    await replica.catalog.reset();
    return replica.catalog.target("db")!.login;
  };
  await putUpkeep({ rotateLoginEveryMs: 30 * DAY });
  await rotator(replica).rotate("db", actorOf(), undefined);
  expect(await inUse()).toBe(TWIN);
  await rotator(replica).resume();
  await world.advance(29 * DAY);
  await rotator(replica).resume();
  expect(await inUse()).toBe(TWIN);

  await world.advance(2 * DAY);
  await rotator(replica, "target.promote_login").resume();
  expect(await inUse()).toBe(TWIN);
  const before = replica.keyring.active().id;
  await rotateKeyring(replica.keyring, replica.committer, actorOf(), undefined);
  expect((await seedUses(replica.db)).get(before)).toBeGreaterThan(0);
  const operations = new Operations(replica.db, replica.committer, log);
  operations.register(rewrapWork(replica.db, replica.keyring, log));
  await operations.start("rewrap", "keyring", {}, actorOf(), undefined);
  await until("everything to be sealed anew", async () => (await seedUses(replica.db)).get(before) === undefined);
  await operations.stop();

  await world.advance(2 * MINUTE);
  await other.keyring.unseal();
  await Promise.all([rotator(replica).resume(), rotator(other).resume()]);
  expect(await inUse()).toBe(target.config.username);
  const promoted = await audited("target.rotate_login");
  expect(promoted).toHaveLength(1);
  expect(await world.database.query("select from target where uid = $1 and pending_login is null", [uid])).toHaveLength(1);
  await Promise.all(opened.map((targets) => targets.close()));
});

it("a target that an older version has bootstrapped says so", async () => {
  await target.sql("create or replace function leasehold.version() returns integer language sql immutable as 'select 2'");
  await target.sql("alter function leasehold.create_logins rename to create_logins_of_another_time");
  const issue = replica.issuer.issue({ path: ROLE, ttlMs: HOUR, actor: actorOf(), request: undefined });
  await expect(issue).rejects.toMatchObject({
    reason: "TARGET_MISCONFIGURED",
    metadata: { problem: "bootstrap_outdated", installed: "2", needed: String(BOOTSTRAP_VERSION) },
  });
});
