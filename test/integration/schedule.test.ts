import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createLog } from "../../src/base/log.ts";
import type { LeaseRecord } from "../../src/model/lease.ts";
import { DueIndex } from "../../src/schedule/due-index.ts";
import { Jobs } from "../../src/schedule/jobs.ts";
import { Nudge } from "../../src/schedule/nudge.ts";
import { createRedis, redisScope, statusOf } from "../../src/schedule/redis.ts";
import { actorOf, leaseWorld, type LeaseTarget, type LeaseWorld, type Replica, type ReplicaOptions, ROLE, startLeaseTarget } from "../support/leases.ts";
import { freshRedis, sharedRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

const HOUR = 3_600_000;
const log = createLog("silent");

describe("the schedule", () => {
  let target: LeaseTarget;
  let world: LeaseWorld;
  let redis: TestRedis;
  let running: Replica[] = [];

  beforeAll(async () => {
    [target, redis] = await Promise.all([startLeaseTarget(), freshRedis()]);
    world = await leaseWorld(target);
  });
  afterEach(async () => {
    await Promise.all(running.map((replica) => replica.clockwork.stop()));
    running = [];
  });
  afterAll(async () => {
    await world?.close();
    await Promise.all([target?.cluster.stop(), redis?.stop()]);
  });

  /** Its clockwork does nothing until it is told to; ends with the test. */
  const resting = async (options: ReplicaOptions = {}): Promise<Replica> => {
    const replica = await world.replica(options);
    running.push(replica);
    return replica;
  };
  const started = async (options: ReplicaOptions = {}): Promise<Replica> => {
    const replica = await resting(options);
    if (replica.redis !== undefined) await until("Redis answers", () => replica.redis?.status === "ready");
    replica.clockwork.start();
    return replica;
  };
  const issue = async (by: Replica, ttlMs = HOUR): Promise<LeaseRecord> =>
    (await by.issuer.issue({ path: ROLE, ttlMs, actor: actorOf(), request: undefined })).lease;
  const gone = async (by: Replica, { id, username }: LeaseRecord): Promise<void> => {
    await until("the lease has ended", async () => (await by.lease(id)).state === "REVOKED");
    expect(await target.has(username)).toBe(false);
  };
  /** The sweep alone is too rare to have done it. */
  const NEVER = 600_000;

  it("revokes at expiry without Redis", async () => {
    const replica = await started();
    const lease = await issue(replica);
    await world.advance(HOUR);
    await gone(replica, lease);
    expect(await world.events(lease.id)).toEqual([20, 22]);
  });

  it("revokes at expiry by the due index alone, with the sweep far away", async () => {
    const replica = await started({ redisUrl: redis.url, sweepMs: NEVER });
    // Two: the timer is set for the first, and then for the next.
    const leases = [await issue(replica, 1000), await issue(replica, 1300)];
    for (const lease of leases) await gone(replica, lease);
    expect((await replica.lease(leases[1]!.id)).endCause).toBe("EXPIRED");
  });

  it.each([
    ["wiped", () => redis.wipe()],
    ["killed", () => redis.kill()],
  ])("revokes although Redis was %s", async (_how, harm) => {
    await redis.restart();
    const replica = await started({ redisUrl: redis.url });
    const lease = await issue(replica);
    await harm();
    await world.advance(HOUR);
    await gone(replica, lease);
    expect(await world.events(lease.id)).toEqual([20, 22]);
    await redis.restart();
    await until("Redis is used again", () => statusOf(replica.redis) === "ok");
    const next = await issue(replica);
    await world.advance(HOUR);
    await gone(replica, next);
  });

  it("starts and serves with a Redis that is not there", async () => {
    const replica = await resting({ redisUrl: "redis://127.0.0.1:1" });
    replica.clockwork.start();
    expect(statusOf(replica.redis)).toBe("unreachable");
    const lease = await issue(replica);
    await world.advance(HOUR);
    await gone(replica, lease);
  });

  it("finding 10: neither a wrong hint nor a process clock that is ahead ends a lease early; the hint is put right", async () => {
    const replica = await resting({ redisUrl: redis.url, sweepMs: NEVER });
    await until("Redis answers", () => replica.redis?.status === "ready");
    const lease = await issue(replica);
    const ahead = Date.now() + 2 * HOUR;
    const real = replica.clock.now();
    replica.clock.observe(real + 2 * HOUR, ahead - 2 * HOUR, ahead - 2 * HOUR); // two hours ahead
    const index = new DueIndex(replica.redis!, redisScope(world.database.database));
    await index.put([{ id: lease.id, at: real - 1000 }]);
    replica.clockwork.scheduled(lease.id, real - 1000);
    await until("the hint was taken and found wrong", async () => ((await index.next()) ?? Number.POSITIVE_INFINITY) > real);
    await replica.clockwork.sweep();
    expect(await replica.lease(lease.id)).toMatchObject({ state: "ACTIVE", generation: lease.generation, nextActionAt: lease.expireAt });
  });

  it("two replicas revoke a lease once", async () => {
    const acts: string[] = [];
    const faults = {
      beforeRevoke: async (login: { readonly name: string }) => {
        acts.push(login.name);
      },
    };
    const replicas = await Promise.all([started({ faults, redisUrl: redis.url }), started({ faults, redisUrl: redis.url }), started({ faults })]);
    const leases = await Promise.all(Array.from({ length: 12 }, (_, i) => issue(replicas[i % 3]!)));
    await world.advance(HOUR);
    await Promise.all(leases.map((lease) => gone(replicas[0], lease)));
    const own = new Set(leases.map((lease) => lease.username));
    expect(acts.filter((name) => own.has(name)).toSorted()).toEqual([...own].toSorted());
    for (const lease of leases) expect(await world.actions(lease.id)).toEqual(["CredentialService/IssueCredential", "lease.end"]);
  });

  it("records of automatic acts carry the trace of the call that issued", async () => {
    const replica = await started();
    const actor = actorOf();
    const { lease } = await replica.issuer.issue({ path: ROLE, ttlMs: HOUR, actor, request: undefined });
    await world.advance(HOUR);
    await gone(replica, lease);
    const rows = await world.database.query<{ trace: string; principal: string }>(
      "select distinct record->>'trace_id' as trace, record->>'principal' as principal from audit_record where record->>'lease' = $1 and record->>'action' like 'lease.e%'",
      [lease.id],
    );
    expect(rows).toEqual([{ trace: actor.traceId, principal: "system" }]);
  });

  it("lesson 10: a lease row that makes no sense stops no other", async () => {
    const replica = await resting();
    const lease = await issue(replica);
    await world.database.query(
      `insert into lease (id, namespace_id, path, target_uid, principal, state, username, owned_objects, default_ttl_ms, issued_at, expire_at, renew_at, max_expire_at, deadline_at, next_action_at)
       select gen_random_uuid(), 1, path, target_uid, principal, s, 'not a name ' || s, '"nonsense"', 1, '-infinity', '-infinity', 'infinity', 'infinity', '-infinity', '-infinity'
         from lease, unnest(array['PENDING', 'ACTIVE', 'REVOKING', 'REVOKED', 'ROLLED_BACK']) s where id = $1`,
      [lease.id],
    );
    await world.advance(HOUR);
    await replica.clockwork.sweep();
    await gone(replica, lease);
    const tried = async (): Promise<boolean> => {
      const rows = await world.database.query<{ problem: string }>("select problem from lease where username = 'not a name REVOKING'");
      return rows[0]!.problem === "role_protected";
    };
    await until("the odd one says what is wrong with it", tried);
    expect((await replica.lease(lease.id)).endCause).toBe("EXPIRED");
    await world.database.query("delete from lease where username like 'not a name%'");
  });

  it("lesson 6: leases of a target that hangs leave room for others", async () => {
    const hanging = new Promise<never>(() => {});
    const replica = await resting();
    const leases = await Promise.all(Array.from({ length: 3 }, () => issue(replica)));
    await world.putTarget("sick", target);
    // As many due leases of a target of its own as the schedule may hold in all, and more.
    const sick = replica.catalog.target("sick")!.uid;
    await world.database.query(
      `insert into lease (id, namespace_id, path, target_uid, principal, state, username, owned_objects, default_ttl_ms, issued_at, expire_at, renew_at, max_expire_at, deadline_at, next_action_at)
       select gen_random_uuid(), 1, 'credentials/postgres/a/sick', $1, 'spiffe://acme.test/a', 'REVOKING', 'lh_test_sick_' || i, '{"kind":"refuse"}', 1, now(), now(), now(), now(), now(),
              now() - interval '1 day' from generate_series(1, 5000) i`,
      [sick],
    );
    const stuck = await world.replica({ faults: { beforeRevoke: ({ name }) => (name.startsWith("lh_test_sick_") ? hanging : Promise.resolve()) } });
    stuck.close = async () => {}; // its work hangs for ever
    await world.advance(HOUR);
    void stuck.clockwork.sweep();
    await Promise.all(leases.map((lease) => gone(replica, lease)));
    const [held] = await world.database.query<{ n: number }>("select count(*)::int as n from lease_due where target_uid = $1 and at > leasehold_now()", [sick]);
    expect(held!.n).toBeGreaterThan(0);
    expect(held!.n).toBeLessThanOrEqual(4000);
    await world.database.query("delete from lease where target_uid = $1", [sick]);
    void stuck.clockwork.stop();
  });
});

describe("the due index", () => {
  const shared = sharedRedis();
  const redis = createRedis(shared.url, log);
  const fresh = (): DueIndex => new DueIndex(redis, redisScope(randomUUID(), shared.prefix));
  beforeAll(() => until("Redis answers", () => redis.status === "ready"));
  afterAll(() => redis.disconnect());

  it("hands out what is due, soonest first, and hides it for the visibility time", async () => {
    const index = fresh();
    const [first, second, late] = [randomUUID(), randomUUID(), randomUUID()];
    await index.put([
      { id: late, at: 3000 },
      { id: first, at: 1000 },
      { id: second, at: 2000 },
    ]);
    expect(await index.next()).toBe(1000);
    expect(await index.claim(2000, 500, 10)).toEqual([first, second]);
    expect(await index.claim(2000, 500, 10)).toEqual([]);
    expect(await index.next()).toBe(2500);
    expect(await index.claim(2500, 500, 1)).toHaveLength(1);
    await index.remove([first, second]);
    expect(await index.claim(9000, 500, 10)).toEqual([late]);
  });

  it("hands each member to one of many claimers, at times as large as they are", async () => {
    const index = fresh();
    const now = Date.now();
    const ids = Array.from({ length: 300 }, () => randomUUID());
    await index.put(ids.map((id, i) => ({ id, at: now - i })));
    const claims = await Promise.all(Array.from({ length: 10 }, () => index.claim(now, 60_000, 100)));
    expect(claims.flat().toSorted()).toEqual(ids.toSorted());
    expect(await index.next()).toBe(now + 60_000);
  });
});

describe("Redis as a hint", () => {
  it("fails at once when it is down, and works again when it is back", async () => {
    const server = await freshRedis();
    const redis = createRedis(server.url, log);
    const index = new DueIndex(redis, redisScope("x"));
    await until("Redis answers", () => statusOf(redis) === "ok");
    await index.put([{ id: "a", at: 1 }]);
    await server.kill();
    await until("its loss is seen", () => statusOf(redis) === "unreachable");
    await expect(index.put([{ id: "a", at: 1 }])).rejects.toThrow();
    await expect(index.claim(1, 1, 1)).rejects.toThrow();
    await server.restart();
    await until("it is back", async () => (await index.claim(1, 1, 1).catch(() => undefined)) !== undefined);
    redis.disconnect();
    await server.stop();
  });

  it("a nudge says which revision and by whom: nobody is nudged by himself, and whatever else comes over the channel is a look", async () => {
    const server = await freshRedis();
    const [first, second, other] = [createRedis(server.url, log), createRedis(server.url, log), createRedis(server.url, log)];
    const [here, there] = [new Nudge(first, redisScope("n")), new Nudge(second, redisScope("n"))];
    const [mine, theirs]: (number | undefined)[][] = [[], []];
    here.onNudge((revision) => mine!.push(revision));
    there.onNudge((revision) => theirs!.push(revision));
    await until("both listen", async () => (await other.publish(`${redisScope("n")}:changes`, "hello").catch(() => 0)) === 2);
    here.publish(7);
    await until("it arrives", () => theirs!.includes(7));
    // Also where the last one reached nobody: it goes a little later.
    there.close();
    await until("there is nobody else", async () => (await other.publish(`${redisScope("n")}:changes`, "-1e400").catch(() => 0)) === 1);
    here.publish(8);
    const late = new Nudge(second, redisScope("n"));
    const heard: (number | undefined)[] = [];
    late.onNudge((revision) => heard.push(revision));
    await until("a newcomer hears of it", () => {
      here.publish(9);
      return heard.includes(9);
    });
    here.publish(4); // an older one, that came late
    await until("it arrives", () => {
      here.publish(10);
      return heard.includes(10);
    });
    expect(heard).not.toContain(4);
    expect(new Set(mine)).toEqual(new Set([undefined]));
    for (const each of [here, late]) each.close();
    for (const each of [first, second, other]) each.disconnect();
    await server.stop();
  });

  it("nudges the other replicas, after an outage too", async () => {
    const server = await freshRedis();
    const [first, second] = [createRedis(server.url, log), createRedis(server.url, log)];
    const [here, there] = [new Nudge(first, redisScope("n")), new Nudge(second, redisScope("n"))];
    let nudged = 0;
    there.onNudge(() => nudged++);
    const arrives = (): Promise<unknown> => {
      const before = nudged;
      return until("a nudge arrives", () => {
        here.publish(1);
        return nudged > before;
      });
    };
    await arrives();
    await server.restart();
    await arrives();
    expect(nudged).toBeGreaterThanOrEqual(2);
    for (const each of [here, there]) each.close();
    for (const each of [first, second]) each.disconnect();
    await server.stop();
  });
});

describe("periodic jobs", () => {
  it("run again and again, never twice at a time, over failures, and end with stop", async () => {
    let [runs, inside, most] = [0, 0, 0];
    const job = {
      name: "test",
      everyMs: 1,
      run: async () => {
        most = Math.max(most, ++inside);
        await Promise.resolve();
        inside--;
        if (++runs % 2 === 0) throw new Error("every second one fails");
      },
    };
    const jobs = new Jobs([job], log);
    jobs.start();
    await until("it ran often", () => runs >= 6);
    await jobs.stop();
    const after = runs;
    await new Promise((resolve) => setImmediate(resolve));
    expect(runs).toBe(after);
    expect(most).toBe(1);
  });
});
