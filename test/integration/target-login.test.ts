import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { OpenTargets } from "../../src/catalog/open-targets.ts";
import { LoginRotator } from "../../src/catalog/rotate-login.ts";
import { systemClock } from "../../src/base/clock.ts";
import { createLog } from "../../src/base/log.ts";
import { newPassword } from "../../src/engines/generate.ts";
import { ENGINES } from "../../src/engines/registry.ts";
import type { Committer } from "../../src/store/command.ts";
import { BROKER, INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { actorOf, type LeaseTarget, leaseWorld, type LeaseWorld, type Replica, ROLE, startLeaseTarget } from "../support/leases.ts";

const TWIN = `leasehold_${INSTANCE}_2`;
const HOUR = 3_600_000;
const actor = actorOf("spiffe://acme.test/admin", "OperatorService/RotateTargetLogin");

let target: LeaseTarget;
let world: LeaseWorld;
let replica: Replica;
const opened: OpenTargets[] = [];

beforeAll(async () => {
  target = await startLeaseTarget();
});
afterAll(async () => {
  await target?.cluster.stop();
});
beforeEach(async () => {
  world = await leaseWorld(target);
  replica = await world.replica();
  return async () => {
    await Promise.all(opened.splice(0).map((targets) => targets.close()));
    await world.close();
    await target.sql(`drop owned by ${TWIN}; drop role ${TWIN}`).catch(() => {});
  };
});

/** Another process's rotator, whose committer may die before or after a kind of change. */
function rotator(by: Replica = replica, dies: { readonly before?: string; readonly after?: string } = {}): LoginRotator {
  const committer: Committer = {
    async commit(command) {
      if (command.kind === dies.before) throw new Error("died");
      const outcome = await by.committer.commit(command);
      if (command.kind === dies.after) throw new Error("died");
      return outcome;
    },
  };
  const options = { clock: systemClock, instance: INSTANCE, connectTimeoutMs: 2000, statementTimeoutMs: 5000, maxConnections: 2 };
  const log = createLog("silent");
  const targets = new OpenTargets(by.db, by.keyring, by.catalog, ENGINES, options, log);
  opened.push(targets);
  return new LoginRotator({ db: by.db, catalog: by.catalog, targets, keyring: by.keyring, committer, instance: INSTANCE, log, mayWork: async () => {} });
}

const issue = () => replica.issuer.issue({ path: ROLE, ttlMs: HOUR, actor: actorOf(), request: undefined });
/** As whom the broker comes there now. */
async function loginInUse(): Promise<string> {
  await replica.catalog.reset();
  const { lease } = await issue();
  expect(await target.has(lease.username)).toBe(true);
  return replica.catalog.target("db")!.login ?? BROKER;
}

it("takes turns between two logins; issuing goes on, and the one not in use keeps its password", async () => {
  expect(await rotator().rotate("db", actor, undefined)).toMatchObject({ login: TWIN, recorded: true });
  expect(await loginInUse()).toBe(TWIN);
  // The configured one still gets in, with the password it had: a store restored from a backup would use it.
  const before = ENGINES[0].open(target.config, target.password, {
    clock: systemClock,
    instance: INSTANCE,
    connectTimeoutMs: 2000,
    statementTimeoutMs: 5000,
    maxConnections: 1,
  });
  await before.find("nobody_0");
  await before.close();
  expect((await rotator().rotate("db", actor, undefined)).login).toBe(BROKER);
  expect(await loginInUse()).toBe(BROKER);
  const stale = ENGINES[0].open(target.config, target.password, {
    clock: systemClock,
    instance: INSTANCE,
    connectTimeoutMs: 2000,
    statementTimeoutMs: 5000,
    maxConnections: 1,
  });
  await expect(stale.find("nobody_0")).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "authentication_failed" } });
  await stale.close();
  await replica.writer.putTarget(
    { name: "db", engine: "postgres", config: target.config, password: await newest() },
    { etag: "", dryRun: false, actor, request: undefined },
  );
});

/** The configured login's password is set anew, as an operator would, so that the next test finds the target as it was. */
async function newest() {
  const { brokerVerifier } = await import("../../src/engines/registry.ts");
  const verifier = await brokerVerifier(target.password);
  await target.sql(`alter role ${BROKER} password '${verifier}'`);
  return target.password;
}

it.each(["target.stage_login", "target.promote_login"])(
  "finding 18: a death at %s, before or after, is gone on from; the broker always gets in",
  async (kind) => {
    for (const when of ["before", "after"] as const) {
      await rotator(replica, { [when]: kind })
        .rotate("db", actor, undefined)
        .catch(() => undefined);
      expect([BROKER, TWIN]).toContain(await loginInUse());
      await rotator().rotate("db", actor, undefined);
      await loginInUse();
    }
    await newest();
  },
);

it("two replicas that rotate at once come to one login, and both get in", async () => {
  const other = await world.replica();
  await Promise.all(
    [rotator().rotate("db", actor, undefined), rotator(other).rotate("db", actor, undefined)].map((rotation) => rotation.catch(() => undefined)),
  );
  await loginInUse();
  await other.catalog.reset();
  expect(other.catalog.target("db")!.login).toBe(replica.catalog.target("db")!.login);
  await other.issuer.issue({ path: ROLE, ttlMs: HOUR, actor: actorOf(), request: undefined });
  await newest();
});

it("the target lets the broker set its twin's password and nobody else's, and nothing after the deadline", async () => {
  await target.sql("create role bystander login");
  await target.sql("create role leasehold_operator superuser nologin");
  const broker = ENGINES[0].open(target.config, target.password, {
    clock: systemClock,
    instance: INSTANCE,
    connectTimeoutMs: 2000,
    statementTimeoutMs: 5000,
    maxConnections: 1,
  });
  const soon = Date.now() + 60_000;
  for (const login of ["bystander", "leasehold_operator", BROKER, `leasehold_broker_${INSTANCE}`, "leasehold_owner", "postgres", "leasehold_other_2", ""])
    await expect(broker.setBrokerLogin(login, newPassword(), soon), login).rejects.toMatchObject({ metadata: { problem: "role_protected" } });
  await expect(broker.setBrokerLogin(TWIN, newPassword(), Date.now() - 1000)).rejects.toMatchObject({ metadata: { problem: "deadline_passed" } });
  await broker.close();
  await target.sql("drop role bystander; drop role leasehold_operator");
});
