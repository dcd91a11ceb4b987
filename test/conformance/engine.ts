import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { isReason } from "../../src/base/errors.ts";
import type { Sensitive } from "../../src/base/sensitive.ts";
import type { CreatedLogin, EngineDefinition, LoginRef, OpenOptions, Target } from "../../src/engines/engine.ts";
import { newLoginSuffix, newPassword } from "../../src/engines/generate.ts";
import { loginName } from "../../src/engines/names.ts";

/** A session of a leased login on the target. */
export interface LeasedSession {
  /** Resolves when the server has ended the session. */
  readonly ended: Promise<void>;
  /** Rejects when the session is dead. */
  use(): Promise<void>;
  close(): Promise<void>;
}

export interface EngineUnderTest<Config, Role> {
  readonly engine: EngineDefinition<Config, Role>;
  readonly config: Config;
  /** The same with an address where nothing answers. */
  readonly unreachable: Config;
  readonly password: Sensitive;
  readonly instance: string;
  readonly role: Role;
  /** Logs in as a client would, with what it was given and nothing else. Rejects when refused. */
  connect(connection: CreatedLogin["connection"], password: Sensitive): Promise<LeasedSession>;
  stop(): Promise<void>;
}

export const OPTIONS: Omit<OpenOptions, "instance"> = { clock: systemClock, connectTimeoutMs: 3000, statementTimeoutMs: 5000, maxConnections: 4 };

const MINUTE = 60_000;

/** What the lease ledger relies on, whatever the engine. */
export function engineConformance<Config, Role>(title: string, setup: () => Promise<EngineUnderTest<Config, Role>>): void {
  describe(`engine: ${title}`, () => {
    let it: EngineUnderTest<Config, Role>;
    let target: Target<Role>;

    beforeAll(async () => {
      it = await setup();
      target = it.engine.open(it.config, it.password, { ...OPTIONS, instance: it.instance });
    }, 60_000);
    afterAll(async () => {
      await target?.close();
      await it?.stop();
    });

    const newName = (): string => loginName(it.instance, "credentials/any/payments/ro", newLoginSuffix(), { maxBytes: target.maxNameBytes });
    const soon = (): number => Date.now() + MINUTE;

    async function issue(name = newName()): Promise<{ ref: LoginRef; created: CreatedLogin; password: Sensitive }> {
      const password = newPassword();
      const created = await target.create({ name, password, role: it.role, validForMs: MINUTE, deadlineAt: soon() });
      const ref: LoginRef = { name, oid: created.oid, systemIdentifier: created.systemIdentifier, ownedObjects: { kind: "refuse" } };
      return { ref, created, password };
    }

    test("identify tells one server from another and both clocks apart", async () => {
      const [first, second] = await Promise.all([target.identify(), target.identify()]);
      expect(first.systemIdentifier).toBe(second.systemIdentifier);
      expect(first.inRecovery).toBe(false);
      expect(Math.abs(first.clockSkewMs)).toBeLessThan(10_000);
    });

    test("a created login works at once, with the returned connection and the password alone", async () => {
      const { ref, created, password } = await issue();
      const session = await it.connect(created.connection, password);
      await session.use();
      await session.close();
      expect(await target.find(ref.name)).toEqual({ oid: created.oid, canLogin: true });
      await expect(it.connect(created.connection, newPassword())).rejects.toThrow();
      await target.revoke(ref);
    });

    test("logins are listed in name order by the page, with what tells them from others of the name, and looked for by name", async () => {
      const made = [await issue(), await issue()].toSorted((a, b) => (a.ref.name < b.ref.name ? -1 : 1));
      const names = made.map(({ ref }) => ref.name);
      const first = await target.list!("", 1);
      expect(first).toHaveLength(1);
      const all = [...first, ...(await target.list!(first[0]!.name, 1000))];
      expect(all.filter(({ name }) => names.includes(name))).toEqual(made.map(({ ref, created }) => ({ name: ref.name, oid: created.oid })));
      await target.revoke(made[0]!.ref);
      expect([...(await target.present!(names)).keys()]).toEqual([names[1]]);
      await target.revoke(made[1]!.ref);
      expect((await target.list!("", 1000)).map(({ name }) => name)).not.toEqual(expect.arrayContaining([names[1]]));
    });

    test("creating a name twice is name_taken and leaves the first as it was", async () => {
      const { ref, created, password } = await issue();
      await expect(issue(ref.name)).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "name_taken" } });
      await (await it.connect(created.connection, password)).close();
      await target.revoke(ref);
    });

    test("revoke ends live sessions, refuses new ones, and is absent the second time", async () => {
      const { ref, created, password } = await issue();
      const session = await it.connect(created.connection, password);
      expect(await target.revoke(ref)).toBe("revoked");
      await session.ended;
      await expect(session.use()).rejects.toThrow();
      await expect(it.connect(created.connection, password)).rejects.toThrow();
      expect(await target.find(ref.name)).toBeUndefined();
      expect(await target.revoke(ref)).toBe("absent"); // lesson 5
    });

    test("revoking the same login twice at the same time is no failure of either, nor of others beside them", async () => {
      const [one, other] = [await issue(), await issue()];
      const outcomes = await Promise.all([one, other, one, one, other].map(({ ref }) => target.revoke(ref)));
      for (const outcome of outcomes) expect(["revoked", "absent"]).toContain(outcome);
      expect([await target.find(one.ref.name), await target.find(other.ref.name)]).toEqual([undefined, undefined]);
    });

    test("revoke works by name alone, for a creation whose answer was lost", async () => {
      const { ref } = await issue();
      expect(await target.revoke({ ...ref, oid: undefined, systemIdentifier: undefined })).toBe("revoked");
      expect(await target.find(ref.name)).toBeUndefined();
    });

    test("finding 12: on another server nothing is touched and absent is no success", async () => {
      const { ref, created, password } = await issue();
      const elsewhere = { ...ref, systemIdentifier: "1" };
      const different = { reason: "TARGET_MISCONFIGURED", metadata: { problem: "different_server" } };
      await expect(target.revoke(elsewhere)).rejects.toMatchObject(different);
      await (await it.connect(created.connection, password)).close();
      await expect(target.revoke({ ...elsewhere, name: newName() })).rejects.toMatchObject(different);
      await target.revoke(ref);
    });

    test("a login made again under the same name is not the old lease's", async () => {
      const { ref: old } = await issue();
      await target.revoke(old);
      const { ref: young, created, password } = await issue(old.name);
      expect(await target.revoke(old)).toBe("absent");
      await expect(target.renew(old, MINUTE)).rejects.toMatchObject({ metadata: { problem: "login_missing" } });
      await (await it.connect(created.connection, password)).close();
      await target.revoke(young);
    });

    test("finding 8: after the deadline on the target's clock nothing is created", async () => {
      if (!it.engine.abilities.fencing) return;
      const name = newName();
      const late = target.create({ name, password: newPassword(), role: it.role, validForMs: MINUTE, deadlineAt: Date.now() - MINUTE });
      await expect(late).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE", metadata: { problem: "deadline_passed" } });
      expect(await target.find(name)).toBeUndefined();
    });

    test("the target ends a login by itself; renewing gives it time again, and never the right to log in", async () => {
      if (!it.engine.abilities.serverExpiry) return;
      const { ref, created, password } = await issue();
      await target.renew(ref, 1);
      await expect
        .poll(
          () =>
            it.connect(created.connection, password).then(
              (session) => session.close(),
              () => "refused",
            ),
          { timeout: 10_000 },
        )
        .toBe("refused");
      await target.renew(ref, MINUTE);
      await (await it.connect(created.connection, password)).close();
      await target.revoke(ref);
      await expect(target.renew(ref, MINUTE)).rejects.toMatchObject({ metadata: { problem: "login_missing" } }); // lesson 11
      await expect(it.connect(created.connection, password)).rejects.toThrow();
    });

    test("zero, negative and endless lifetimes are refused", async () => {
      const { ref } = await issue();
      for (const validForMs of [0, -1, Number.MAX_SAFE_INTEGER]) {
        await expect(target.renew(ref, validForMs)).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED" });
        const create = target.create({ name: newName(), password: newPassword(), role: it.role, validForMs, deadlineAt: soon() });
        await expect(create).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED" });
      }
      await target.revoke(ref);
    });

    test("names outside this broker's are refused by every method", async () => {
      const foreign = "lh_other_payments_ro_aaaaaaaa";
      const refused = { metadata: { problem: "role_protected" } };
      const ref: LoginRef = { name: foreign, oid: undefined, systemIdentifier: undefined, ownedObjects: { kind: "refuse" } };
      await expect(issue(foreign)).rejects.toMatchObject(refused);
      await expect(target.renew(ref, MINUTE)).rejects.toMatchObject(refused);
      await expect(target.revoke(ref)).rejects.toMatchObject(refused);
    });

    test("lesson 2: many at once, over fewer connections", async () => {
      const issued = await Promise.all(Array.from({ length: 24 }, () => issue()));
      const results = await Promise.all(issued.map(({ ref }) => target.revoke(ref)));
      expect(results).toEqual(issued.map(() => "revoked"));
    });

    test("preflight passes, and leaves nothing behind", async () => {
      const checks = await target.preflight(it.role);
      expect(checks.filter((check) => !check.ok)).toEqual([]);
      expect(checks.length).toBeGreaterThan(3);
    });

    test("lesson 22: a target that does not answer is TARGET_UNAVAILABLE, and preflight says so", async () => {
      const dead = it.engine.open(it.unreachable, it.password, { ...OPTIONS, instance: it.instance, connectTimeoutMs: 300 });
      const error: unknown = await dead.identify().catch((thrown: unknown) => thrown);
      expect(isReason(error, "TARGET_UNAVAILABLE")).toBe(true);
      const checks = await dead.preflight(undefined);
      expect(checks).toMatchObject([{ name: "connect", ok: false }]);
      await dead.close();
    });

    test("close is idempotent, and a closed target refuses", async () => {
      const other = it.engine.open(it.config, it.password, { ...OPTIONS, instance: it.instance });
      await other.identify();
      await other.close();
      await other.close();
      await expect(other.identify()).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE" });
    });
  });
}
