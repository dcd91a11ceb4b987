import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import type { FaultPoint } from "../../src/base/fault-point.ts";
import { Sensitive } from "../../src/base/sensitive.ts";
import { encodePayload } from "../../src/secrets/payload.ts";
import { gate } from "../support/leases.ts";
import { CLAIM_OVER_MS, dieAt, type Outside, rotationActor, type RotationReplica, rotationWorld, type RotationWorld } from "../support/rotation-world.ts";
import { until } from "../support/until.ts";

const MINUTE = 60_000;

describe("rotations when workers die, freeze or fail", () => {
  let world: RotationWorld;
  let replica: RotationReplica;
  // A world each: replicas of another test would take this one's rotations when their timers go off, and have another outside.
  beforeEach(async () => {
    world = await rotationWorld();
    replica = await world.replica();
  });
  afterEach(() => world?.close());

  const now = (path: string, by = replica) => by.writer.rotateNow(path, { actor: rotationActor(), request: undefined });
  const putByHand = (path: string, password: string, expireAt?: number) =>
    replica.secrets.put(
      path,
      encodePayload(new Map([["password", { kind: "text", value: Sensitive.text(password) }]])),
      { expectedVersion: undefined, notBefore: undefined, expireAt },
      rotationActor("SecretService/PutSecret"),
      undefined,
    );
  const labels = async (path: string) =>
    (
      await world.database.query<{ current: number; previous: number; pending: number; latest: number }>(
        "select current_version::int as current, previous_version::int as previous, pending_version::int as pending, latest_version::int as latest from secret where path = $1",
        [path],
      )
    )[0]!;
  /** CURRENT works outside, PENDING names nothing. */
  const isWhole = async (path: string): Promise<void> => {
    expect((await world.outside(path)).password).toBe(await world.password(path));
    expect((await labels(path)).pending).toBe(0);
  };
  const isAt = (path: string, step: string) => until(`${path} is at ${step}`, async () => (await world.rotation(path)).step === step);

  it.each([
    ["rotate.begun", 1],
    ["rotate.created", 1],
    ["rotate.staged", 1],
    ["rotate.set", 1],
    ["rotate.tested", 1],
    ["rotate.promoted", 1],
    ["rotate.cleaned", 1],
  ] as const)("a worker that dies at %s: the next one goes on, with exactly one CURRENT and one candidate", async (point: FaultPoint, sets) => {
    const path = await world.account(replica, { schedule: { kind: "interval", everyMs: 60 * MINUTE } });
    dieAt(point);
    await world.advance(60 * MINUTE);
    await replica.clockwork.sweep();
    const other = await world.replica();
    const ended = await world.settle(other, path);
    expect(ended).toMatchObject({ state: "WAITING", generation: 1, problem: "", cause: "interval" });
    expect(await labels(path)).toEqual({ current: 2, previous: 1, pending: 0, latest: 2 });
    // Lesson 26: what was set by the try whose answer was lost is recognised, not set again.
    expect((await world.outside(path)).sets).toBe(sets);
    expect(await world.events(path)).toEqual(
      [57, 57, 50, 51, 52, 55, 54].slice(ended.plannedAt === undefined ? 1 : 0).filter((type, i) => type !== 57 || i === 0),
    );
    await isWhole(path);
  });

  it("two replicas that look at the same time do each step once", async () => {
    const other = await world.replica();
    const paths = await Promise.all(Array.from({ length: 10 }, () => world.account(replica)));
    await Promise.all(paths.map((path) => now(path)));
    await Promise.all([replica, other, replica, other].map((one) => one.clockwork.sweep()));
    for (const path of paths) {
      await world.settle(other, path);
      expect(await world.outside(path)).toMatchObject({ sets: 1 });
      expect((await labels(path)).latest).toBe(2);
      await isWhole(path);
    }
  });

  it("lesson 28: a candidate that the outside does not take is given up after n failures, and another is made", async () => {
    const refused = new Set<number>();
    const outside: Outside = {
      beforeSet: async ({ generation }) => {
        if (generation > 2) return;
        refused.add(generation);
        throw new LeaseholdError("TARGET_MISCONFIGURED", "no", { metadata: { problem: "password_reused" } });
      },
    };
    const by = await world.replica({ outside });
    const path = await world.account(by, {}, { maxCandidateFailures: 2 });
    await now(path, by);
    const ended = await world.settle(by, path);
    expect(ended).toMatchObject({ state: "WAITING", generation: 3 });
    expect([...refused]).toEqual([1, 2]);
    expect((await world.events(path)).filter((type) => type === 56)).toHaveLength(2);
    expect(await labels(path)).toMatchObject({ current: 4, previous: 1 });
    await isWhole(path);
  });

  it("lesson 29: what can't be reached is tried for ever with the same candidate, and seen to be stuck", async () => {
    let down = true;
    const outside: Outside = {
      beforeSet: async () => {
        if (down) throw new LeaseholdError("TARGET_UNAVAILABLE", "down");
      },
    };
    const by = await world.replica({ outside });
    const path = await world.account(by, {}, { maxCandidateFailures: 1 });
    await now(path, by);
    await until("it is stuck", async () => {
      await by.clockwork.sweep();
      await world.advance(MINUTE);
      return (await world.rotation(path)).attempts >= 6;
    });
    const stuck = await world.rotation(path);
    expect(stuck).toMatchObject({ state: "RUNNING", step: "SET", generation: 1, failures: 0, problem: "TARGET_UNAVAILABLE" });
    expect(stuck.stuckSince).toBe(stuck.stepAt);
    const findings = () =>
      world.database.query<{ state: string; resolution: string }>("select state, resolution from finding where kind = 'ROTATION_STUCK' and name = $1", [path]);
    expect(await findings()).toEqual([{ state: "OPEN", resolution: "" }]);
    expect((await world.events(path)).filter((type) => type === 56)).toHaveLength(1);
    down = false;
    await by.writer.resume(path, { actor: rotationActor(), request: undefined });
    const ended = await world.settle(by, path);
    expect(ended).toMatchObject({ state: "WAITING", generation: 1, stuckSince: undefined });
    expect(await findings()).toEqual([{ state: "RESOLVED", resolution: "went on" }]);
    await isWhole(path);
  });

  it("finding 18: a worker frozen in set wakes up after another candidate has become CURRENT; CURRENT is set once more", async () => {
    const frozen = gate();
    let first = true;
    const slow = await world.replica({
      freezes: true,
      outside: {
        beforeSet: async () => {
          if (!first) return;
          first = false;
          await frozen.pass();
        },
      },
    });
    // By the slow one alone: a replica that has put it still looks up its next time, and takes what is due by then.
    const path = await world.account(slow);
    await now(path, slow);
    void slow.clockwork.sweep();
    await frozen.reached;
    await replica.abort(path, { actor: rotationActor(), request: undefined });
    await world.settle(replica, path);
    await now(path);
    await replica.clockwork.sweep();
    await until("CURRENT has moved", async () => (await world.rotation(path)).step === "FINISH");
    const current = await world.password(path);
    frozen.open();
    await until("the late writer was here", async () => (await world.outside(path)).password !== current);
    await world.settle(replica, path);
    expect(await world.password(path)).toBe(current);
    await isWhole(path);
  });

  it("an abort after the outside was told sets what is CURRENT again, and then stays aborted", async () => {
    const path = await world.account(replica, { schedule: { kind: "interval", everyMs: 60 * MINUTE } });
    dieAt("rotate.set");
    await now(path);
    await replica.clockwork.sweep();
    await until("it died", async () => (await world.outside(path)).sets === 1);
    await replica.abort(path, { actor: rotationActor(), request: undefined });
    expect((await world.rotation(path)).step).toBe("RESTORE");
    expect(await world.settle(replica, path)).toMatchObject({ state: "ABORTED", plannedAt: undefined });
    expect(await world.password(path)).toBe("first");
    await isWhole(path);
    await world.advance(180 * MINUTE);
    await replica.clockwork.sweep();
    expect((await world.rotation(path)).state).toBe("ABORTED");
    await replica.writer.resume(path, { actor: rotationActor(), request: undefined });
    await world.advance(61 * MINUTE);
    await until("it began", async () => {
      await replica.clockwork.sweep();
      return (await world.rotation(path)).generation > 2;
    });
    await world.settle(replica, path);
    await isWhole(path);
  });

  it("what is put by hand during a rotation is CURRENT, and the candidate follows it", async () => {
    const path = await world.account(replica);
    dieAt("rotate.staged");
    await now(path);
    await replica.clockwork.sweep();
    await isAt(path, "SET");
    await putByHand(path, "by hand");
    await world.advance(CLAIM_OVER_MS);
    const ended = await world.settle(replica, path);
    expect(ended.generation).toBe(2);
    expect(await labels(path)).toEqual({ current: 4, previous: 3, pending: 0, latest: 4 });
    await isWhole(path);
  });

  it("begins by age and by expiry of CURRENT, whoever wrote it", async () => {
    const byAge = await world.account(replica, { conditions: { maxAgeMs: 60 * MINUTE, maxReads: 0, onFinding: false } });
    const byExpiry = await world.account(replica, { conditions: { maxReads: 0, onFinding: false, beforeExpiryMs: 10 * MINUTE } });
    await replica.clockwork.sweep();
    await world.advance(30 * MINUTE);
    await putByHand(byAge, "younger");
    await world.database.query("update outside set password = 'younger' where account = $1", [byAge]);
    await replica.clockwork.sweep();
    await world.advance(40 * MINUTE);
    await replica.clockwork.sweep();
    expect((await world.rotation(byAge)).generation).toBe(0);
    const [clock] = await world.database.query<{ now: Date }>("select leasehold_now() as now");
    await putByHand(byExpiry, "ends", clock!.now.getTime() + 60 * MINUTE);
    await replica.clockwork.sweep();
    await world.advance(51 * MINUTE);
    for (const [path, cause] of [
      [byAge, "age"],
      [byExpiry, "expiry"],
    ] as const) {
      await until(`${path} began`, async () => {
        await replica.clockwork.sweep();
        return (await world.rotation(path)).generation === 1;
      });
      expect(await world.settle(replica, path)).toMatchObject({ cause });
    }
  });

  it("begins when a finding is raised about its target, and about no other", async () => {
    const uids = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"];
    for (const [i, uid] of uids.entries())
      await world.database.query(
        "insert into target (uid, namespace_id, name, engine, document, generation, updated_at, updated_by) values ($1, 1, $2, 'postgres', '{}', 1, now(), '')",
        [uid, `t${i}`],
      );
    const by = await world.replica();
    const watchful = { conditions: { maxReads: 0, onFinding: true } };
    const [mine, other] = [await world.account(by, watchful, { target: "t0" }), await world.account(by, watchful, { target: "t1" })];
    await by.clockwork.sweep();
    await world.database.query(
      "insert into finding (id, namespace_id, kind, target_uid, name, first_seen, last_seen) values (gen_random_uuid(), 1, 'ORPHAN', $1, 'lh_x', leasehold_now(), leasehold_now())",
      [uids[0]],
    );
    await until("it began", async () => {
      await by.clockwork.sweep();
      return (await world.rotation(mine)).generation === 1;
    });
    expect(await world.settle(by, mine)).toMatchObject({ cause: "finding" });
    expect((await world.rotation(other)).generation).toBe(0);
    await isWhole(mine);
  });
});
