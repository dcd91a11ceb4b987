import { randomUUID } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { Sensitive } from "../../src/base/sensitive.ts";
import type { SecretData } from "../../src/model/secret.ts";
import { encodePayload } from "../../src/secrets/payload.ts";
import { gate } from "../support/leases.ts";
import { CLAIM_OVER_MS, dieAt, type Outside, rotationActor, type RotationReplica, rotationWorld, type RotationWorld } from "../support/rotation-world.ts";
import { until } from "../support/until.ts";

const MINUTE = 60_000;

/** Rotations that do not get on: each is seen, and none is what nobody can end. */
describe("rotations that do not get on", () => {
  let world: RotationWorld;
  let replica: RotationReplica;
  // Each has its own: a replica acts on whatever is due, and these would act on each other's.
  beforeEach(async () => {
    world = await rotationWorld();
    replica = await world.replica();
  });
  afterEach(() => world?.close());

  const asked = () => ({ actor: rotationActor(), request: undefined });
  const now = (path: string, by = replica) => by.writer.rotateNow(path, asked());
  const putByHand = (path: string, password: string, by = replica) =>
    by.secrets.put(
      path,
      encodePayload(new Map([["password", { kind: "text", value: Sensitive.text(password) }]])),
      { expectedVersion: undefined, notBefore: undefined, expireAt: undefined },
      rotationActor("SecretService/PutSecret"),
      undefined,
    );
  const findings = (path: string) =>
    world.database.query<{ state: string; resolution: string }>(
      "select state, resolution from finding where kind = 'ROTATION_STUCK' and name = $1 order by first_seen",
      [path],
    );
  const target = async (name: string): Promise<string> => {
    const uid = randomUUID();
    const row =
      "insert into target (uid, namespace_id, name, engine, document, generation, updated_at, updated_by) values ($1, 1, $2, 'postgres', '{}', 1, now(), '')";
    await world.database.query(row, [uid, name]);
    return uid;
  };
  const due = async (path: string) => (await world.rotation(path)).dueAt;
  /** Looks again and again, with the clock moved on. */
  const tries = (what: string, by: RotationReplica, done: () => Promise<boolean>) =>
    until(what, async () => {
      await by.clockwork.sweep();
      await world.advance(MINUTE);
      return done();
    });
  const stuck = (path: string, by: RotationReplica) => tries(`${path} is stuck`, by, async () => (await world.rotation(path)).stuckSince !== undefined);
  const down: Outside = {
    beforeSet: async () => {
      throw new LeaseholdError("TARGET_UNAVAILABLE", "down");
    },
  };

  it("of a secret that was deleted is tried no more, and goes on when it is restored; the finding ends with the secret", async () => {
    await replica.stop();
    const by = await world.replica({ outside: down });
    const path = await world.account(by);
    await now(path, by);
    await stuck(path, by);
    await by.secrets.delete(path, 60 * MINUTE, "", rotationActor("SecretService/DeleteSecret"), undefined);
    expect(await findings(path)).toEqual([{ state: "RESOLVED", resolution: "secret deleted" }]);
    const { attempts } = await world.rotation(path);
    expect(await world.rotation(path)).toMatchObject({ dueAt: undefined, stuckSince: undefined, state: "RUNNING" });
    await expect(by.writer.resume(path, asked())).rejects.toMatchObject({ reason: "SECRET_DELETED" });
    await world.advance(10 * MINUTE);
    await by.clockwork.sweep();
    expect((await world.rotation(path)).attempts).toBe(attempts);

    await by.secrets.restore(path, rotationActor("SecretService/RestoreSecret"), undefined);
    await stuck(path, by);
    expect((await findings(path)).map(({ state }) => state)).toEqual(["RESOLVED", "OPEN"]);
    // Erased with its secret, by a cascade that no move of a rotation sees.
    await world.database.query("update secret set deleted_at = leasehold_now(), purge_at = leasehold_now() where path = $1", [path]);
    await world.advance(1000);
    expect(await by.secrets.purge(path, rotationActor("secret.purge"))).toBe(true);
    expect((await findings(path)).map(({ resolution }) => resolution)).toEqual(["secret deleted", "rotation gone"]);
  });

  it("a worker that has it in hand while its secret is deleted changes nothing any more", async () => {
    const held = gate();
    await replica.stop();
    const by = await world.replica({ outside: { beforeSet: () => held.pass() } });
    const path = await world.account(by);
    await now(path, by);
    void by.clockwork.sweep();
    await held.reached;
    await by.secrets.delete(path, 60 * MINUTE, "", rotationActor("SecretService/DeleteSecret"), undefined);
    held.open();
    await until("it has set it", async () => (await world.outside(path)).sets === 1);
    await by.clockwork.sweep();
    expect(await world.rotation(path)).toMatchObject({ step: "SET", dueAt: undefined });
    await by.secrets.restore(path, rotationActor("SecretService/RestoreSecret"), undefined);
    expect(await world.settle(by, path)).toMatchObject({ state: "WAITING", generation: 1 });
    expect((await world.outside(path)).sets).toBe(1);
    expect((await world.outside(path)).password).toBe(await world.password(path));
  });

  it("one that goes through candidate after candidate is stuck too, since the first of them, until one is CURRENT", async () => {
    let refuses = true;
    const outside: Outside = {
      beforeSet: async () => {
        if (refuses) throw new LeaseholdError("TARGET_MISCONFIGURED", "no", { metadata: { problem: "password_reused" } });
      },
    };
    await replica.stop();
    const by = await world.replica({ outside });
    const path = await world.account(by, {}, { maxCandidateFailures: 1 });
    await now(path, by);
    await stuck(path, by);
    const { stuckSince: since, generation } = await world.rotation(path);
    await tries("more candidates", by, async () => (await world.rotation(path)).generation >= generation + 2);
    expect(await world.rotation(path)).toMatchObject({ stuckSince: since, problem: "TARGET_MISCONFIGURED: password_reused" });
    expect((await findings(path)).map(({ state }) => state)).toEqual(["OPEN"]);
    // One that may have been set is not forgotten by deleting the rotation, or by naming something else.
    await expect(by.writer.delete(path, "", asked())).rejects.toMatchObject({ reason: "ROTATION_IN_PROGRESS" });
    refuses = false;
    expect(await world.settle(by, path)).toMatchObject({ state: "WAITING", stuckSince: undefined, problem: "" });
    expect(await findings(path)).toEqual([{ state: "RESOLVED", resolution: "went on" }]);
  });

  it("one that can't even be looked at while it waits is stuck", async () => {
    const path = await world.account(replica, { schedule: { kind: "cron", expression: "0 3 * * *", timeZone: "Europe/Berlin" } });
    const zone = (name: string) =>
      world.database.query(
        "update rotation set document = jsonb_set(document::jsonb, '{policy,schedule,timeZone}', to_jsonb($2::text))::json, planned_at = null, due_at = leasehold_now() where path = $1",
        [path, name],
      );
    await tries("its first look is over", replica, async () => (await world.rotation(path)).plannedAt !== undefined);
    await zone("Mars/Base"); // as if this binary's time zones lacked it
    await stuck(path, replica);
    expect(await world.rotation(path)).toMatchObject({ state: "WAITING", problem: "INTERNAL" });
    expect((await findings(path)).map(({ state }) => state)).toEqual(["OPEN"]);
    await zone("Europe/Berlin");
    await tries("it is planned", replica, async () => (await world.rotation(path)).plannedAt !== undefined);
    expect(await world.rotation(path)).toMatchObject({ state: "WAITING", problem: "", attempts: 0, stuckSince: undefined });
    expect(await findings(path)).toEqual([{ state: "RESOLVED", resolution: "went on" }]);
  });

  it("a target in quarantine is no failure of the candidate, and nothing is taken back there", async () => {
    await target("shut");
    const open = await world.replica(); // has the target in its catalog
    const path = await world.account(open, {}, { maxCandidateFailures: 1, target: "shut" });
    dieAt("rotate.staged");
    await now(path, open);
    await open.clockwork.sweep();
    await until("it is staged", async () => (await world.rotation(path)).step === "SET");
    await open.stop();
    await world.advance(CLAIM_OVER_MS);
    let discarded = 0;
    const shut = await world.replica({
      outside: { discard: async () => void discarded++ },
      gate: async () => {
        throw new LeaseholdError("TARGET_MISCONFIGURED", "in quarantine", { metadata: { problem: "quarantined" } });
      },
    });
    await stuck(path, shut);
    expect(await world.rotation(path)).toMatchObject({ step: "SET", generation: 1, failures: 0, problem: "TARGET_UNAVAILABLE: quarantined" });
    await shut.abort(path, asked());
    await shut.stop();
    expect(discarded).toBe(0);
    expect((await world.outside(path)).sets).toBe(0);
    await world.settle(await world.replica(), path);
    expect((await world.outside(path)).password).toBe(await world.password(path));
  });

  it("a finding that is raised while one is under way makes another follow", async () => {
    const uid = await target("found");
    const by = await world.replica();
    const path = await world.account(by, { conditions: { maxReads: 0, onFinding: true } }, { target: "found" });
    dieAt("rotate.tested");
    await now(path, by);
    await by.clockwork.sweep();
    await until("it died", async () => (await world.rotation(path)).step === "TEST");
    await world.database.query(
      "insert into finding (id, namespace_id, kind, target_uid, name, first_seen, last_seen) values (gen_random_uuid(), 1, 'ORPHAN', $1, 'lh_x', leasehold_now(), leasehold_now())",
      [uid],
    );
    await world.advance(CLAIM_OVER_MS);
    await until("another began", async () => {
      await world.settle(by, path);
      return (await world.rotation(path)).generation === 2;
    });
    expect(await world.settle(by, path)).toMatchObject({ cause: "finding", state: "WAITING" });
  });

  it("a login is one rotation's, and its target stays", async () => {
    await target("theirs");
    const theirs = { target: "theirs" };
    const path = await world.account(replica, {}, { ...theirs, logins: ["app_a", "app_b"] });
    await expect(world.account(replica, {}, { ...theirs, logins: ["app_b"] })).rejects.toMatchObject({
      reason: "IN_USE",
      metadata: { by: "rotation", login: "app_b" },
    });
    await world.account(replica, {}, { target: "elsewhere", logins: ["app_b"] });
    const again = (logins: readonly string[]) =>
      replica.writer.put({ path, rotator: "table", policy: {}, maxCandidateFailures: 5, config: { ...theirs, logins } }, "", false, false, asked());
    await again(["app_a"]);
    await world.account(replica, {}, { ...theirs, logins: ["app_b"] });
    await expect(again(["app_a", "app_b"])).rejects.toMatchObject({ reason: "IN_USE" });
    const write = { etag: "", dryRun: false, ...asked() };
    await expect(replica.targets.deleteTarget("theirs", write)).rejects.toMatchObject({ reason: "IN_USE", metadata: { by: "rotation" } });
    await replica.writer.delete(path, "", asked());
    await world.account(replica, {}, { ...theirs, logins: ["app_a"] });
  });

  describe("where the outside makes the candidate", () => {
    const text = (data: SecretData): string => data.get("password")?.value.revealText() ?? "";
    /** Takes a candidate back as the contract has it: CURRENT works again. */
    const takesBack = (seen: string[], fail: () => boolean = () => false): Outside => ({
      abilities: { candidateFromOutside: true },
      async discard({ path, candidate, current }) {
        if (fail()) throw new LeaseholdError("TARGET_UNAVAILABLE", "down");
        seen.push(text(candidate));
        await world.database.query("update outside set password = $2 where account = $1", [path, text(current!)]);
      },
    });

    it("an abort whose one chance to take it back was lost does it later, until CURRENT works", async () => {
      let fails = 2;
      const seen: string[] = [];
      await replica.stop();
      const by = await world.replica({ outside: takesBack(seen, () => fails-- > 0) });
      const path = await world.account(by);
      dieAt("rotate.set");
      await now(path, by);
      await by.clockwork.sweep();
      await until("it was set", async () => (await world.outside(path)).sets === 1);
      const { password: candidate } = await world.outside(path);
      await by.abort(path, asked());
      expect(await world.settle(by, path)).toMatchObject({ state: "ABORTED" });
      expect(seen).toEqual([candidate]);
      expect((await world.outside(path)).password).toBe(await world.password(path));
      expect(await world.password(path)).toBe("first");
    });

    it("one that could not be stored is taken back, not forgotten", async () => {
      const seen: string[] = [];
      const made: string[] = [];
      let first = true;
      const path = await (async () => {
        let mine = "";
        await replica.stop();
        const by = await world.replica({
          outside: {
            ...takesBack(seen),
            created: async (data) => {
              if (!first) return;
              first = false;
              made.push(text(data));
              await putByHand(mine, "by hand");
            },
          },
        });
        mine = await world.account(by);
        await now(mine, by);
        await world.settle(by, mine);
        return mine;
      })();
      expect(seen).toEqual(made);
      expect(await world.rotation(path)).toMatchObject({ state: "WAITING", generation: 2 });
      expect((await world.outside(path)).password).toBe(await world.password(path));
    });

    it("one that is given up is taken back before the next is made, by whomever", async () => {
      const acts: string[] = [];
      const outside: Outside = {
        abilities: { candidateFromOutside: true },
        created: async () => {
          if (acts.push("made") === 1) await putByHand(path, "by hand", by);
        },
        async discard() {
          acts.push("taking back");
          await other.clockwork.sweep();
          await other.clockwork.quiet();
          acts.push("taken back");
        },
      };
      const [by, other] = [await world.replica({ outside }), await world.replica({ outside })];
      const path = await world.account(by);
      await now(path, by);
      await until("the next is CURRENT", async () => (await by.clockwork.sweep(), (await world.rotation(path)).step === "FINISH"));
      expect(acts).toEqual(["made", "taking back", "taken back", "made"]);
    });

    it("one whose answer was lost before the secret was written by hand is taken back by its name", async () => {
      const seen: string[] = [];
      let made = 0;
      await replica.stop();
      const by = await world.replica({ outside: { ...takesBack(seen), created: async () => void made++ } });
      const path = await world.account(by);
      dieAt("rotate.created");
      await now(path, by);
      await by.clockwork.sweep();
      await until("it died", () => made === 1);
      await putByHand(path, "by hand", by);
      await world.advance(CLAIM_OVER_MS);
      expect(await world.settle(by, path)).toMatchObject({ generation: 2 });
      expect(seen).toEqual([""]);
    });
  });

  it("where CURRENT can't be set again, an operator sees why, and the pauses grow", async () => {
    const path = await world.account(replica);
    dieAt("rotate.set");
    await now(path);
    await replica.clockwork.sweep();
    await until("it was set", async () => (await world.outside(path)).sets === 1);
    await replica.stop();
    const by = await world.replica({
      outside: {
        beforeSet: async () => {
          throw new LeaseholdError("TARGET_MISCONFIGURED", "no", { metadata: { problem: "login_missing" } });
        },
      },
    });
    await by.abort(path, asked());
    await world.advance(CLAIM_OVER_MS);
    await stuck(path, by);
    expect(await world.rotation(path)).toMatchObject({ step: "RESTORE", problem: "TARGET_MISCONFIGURED: login_missing" });
    expect(await due(path)).toBeDefined();
    await by.stop();
    await world.settle(await world.replica(), path);
    expect((await world.outside(path)).password).toBe("first");
  });
});
