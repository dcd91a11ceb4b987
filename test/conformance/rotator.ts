import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import type { SecretData } from "../../src/model/secret.ts";
import type { CandidateStep, CreateStep, Rotator, RotatorDefinition, RotatorHost } from "../../src/rotation/rotator.ts";
import type { TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

/** A rotator with a real outside, for `rotatorConformance`. */
export interface RotatorUnderTest<Config> {
  readonly definition: RotatorDefinition<Config>;
  readonly config: Config;
  readonly host: RotatorHost;
  /** What is CURRENT before the first rotation; it works. */
  readonly initial: SecretData;
  /** As an application would, past the proxy. Throws when the outside does not accept it. */
  login(data: SecretData): Promise<void>;
  /** Where the rotator reaches the outside. */
  readonly proxy: TcpProxy;
  /** That CURRENT works at every moment; with `definition.abilities.overlap`, PREVIOUS too, until the next rotation. */
  readonly currentAlwaysWorks: boolean;
  stop(): Promise<void>;
}

const STEP_MS = 20_000;

/** What every rotator must do, whatever it changes: the contract of src/rotation/rotator.ts. */
export function rotatorConformance<Config>(name: string, start: () => Promise<RotatorUnderTest<Config>>): void {
  describe(`${name} is a rotator`, () => {
    let it_: RotatorUnderTest<Config>;
    let rotator: Rotator<Config>;
    let generation = 0;
    let current: SecretData;
    let previous: SecretData | undefined;

    beforeAll(async () => {
      it_ = await start();
      rotator = it_.definition.open(it_.host);
      current = it_.initial;
    }, 240_000);
    afterAll(async () => {
      await rotator?.close?.();
      await it_?.stop();
    });
    // What a test before has left half done is over: each begins with a CURRENT that works.
    beforeEach(() => it_.login(current));

    const created = (more: Partial<CreateStep<Config>> = {}): CreateStep<Config> => ({
      path: "secrets/team/app",
      rotationUid: "0b9a4c7e-6a0e-4c5e-9d86-6f6a2d1f0c11",
      config: it_.config,
      generation: ++generation,
      candidateId: randomUUID(),
      deadlineAt: Date.now() + STEP_MS,
      signal: AbortSignal.timeout(STEP_MS),
      traceId: "",
      current,
      ...more,
    });
    const begin = async (more: Partial<CreateStep<Config>> = {}): Promise<CandidateStep<Config>> => {
      const step = created(more);
      const { data } = await rotator.create(step);
      return { ...step, version: generation + 1, candidate: data, previous: current, givenUp: [] };
    };
    /** What the ledger does between test and finish. */
    const promote = (step: CandidateStep<Config>): CandidateStep<Config> => {
      [previous, current] = [current, step.candidate];
      return { ...step, current, previous };
    };
    const finish = async (step: CandidateStep<Config>): Promise<void> => rotator.finish?.(step);
    const rotate = async (): Promise<void> => {
      const step = await begin();
      await rotator.set(step);
      expect(await rotator.test(step)).toBe("works");
      await finish(promote(step));
    };
    const works = (data: SecretData): Promise<boolean> =>
      it_.login(data).then(
        () => true,
        () => false,
      );

    it("a candidate has every field, works once it is set and not before, and CURRENT and PREVIOUS work as declared", async () => {
      const before = current;
      const step = await begin();
      expect([...step.candidate.keys()].sort()).toEqual([...before.keys()].sort());
      expect(step.candidate.get("note")?.value.revealText()).toBe("kept");
      expect(await works(step.candidate)).toBe(false);
      expect(await rotator.test(step)).toBe("refused");
      await rotator.set(step);
      expect(await rotator.test(step)).toBe("works");
      await it_.login(step.candidate);
      if (it_.currentAlwaysWorks) await it_.login(before);
      await finish(promote(step));
      await it_.login(current);
      expect(await works(before)).toBe(it_.definition.abilities.overlap || it_.currentAlwaysWorks);
    });

    it("every step may be done again: what had its answer lost is recognised", async () => {
      const step = await begin();
      await rotator.set(step);
      // As the runner does from the second try on: it works already, so it is not set again. And if it were, nothing changes.
      expect(await rotator.test(step)).toBe("works");
      await rotator.set(step);
      expect(await rotator.test(step)).toBe("works");
      const finishing = promote(step);
      await finish(finishing);
      await finish(finishing);
      await it_.login(current);
      // What was CURRENT is set again after the move, as when the test before `finish` fails.
      await rotator.set(finishing);
      await it_.login(current);
    });

    it("an application that logs in all the time always has a value that works", async () => {
      const failures: string[] = [];
      let logins = 0;
      let over = false;
      const application = (async () => {
        while (!over) {
          // It may hold what was CURRENT when it looked, or learn the new one; with overlap the one it holds is enough.
          const held = current;
          if (!(await works(held)) && (it_.currentAlwaysWorks || !(await works(current)))) failures.push(`login ${logins}`);
          logins++;
          await new Promise((resolve) => setImmediate(resolve)); // a login that answers at once would leave nobody else a turn
        }
      })();
      for (let round = 0; round < 5; round++) {
        const [so, far] = [logins, round];
        await rotate();
        await until(`a login in round ${far}`, () => logins > so);
      }
      over = true;
      await application;
      if (it_.currentAlwaysWorks) expect(failures).toEqual([]);
      await it_.login(current);
    });

    it("finding 18: a worker that wakes up late, with an older candidate or after its deadline, does not win", async () => {
      const old = await begin();
      const next = await begin();
      await rotator.set(next);
      await expect(rotator.set(old)).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "generation_passed" } });
      expect(await rotator.test(next)).toBe("works");
      await finish(promote(next));
      const late = { ...(await begin()), deadlineAt: Date.now() - 1 };
      const outcome = await rotator.set(late).catch((error: unknown) => error);
      expect(outcome).toMatchObject({ reason: "TARGET_UNAVAILABLE" });
      await it_.login(current);
      expect(await works(late.candidate)).toBe(false);
    });

    it("a candidate that was given up is taken back: CURRENT works, and the next rotation goes on", async () => {
      const step = await begin();
      await rotator.set(step);
      await rotator.discard?.({ ...step, previous });
      await it_.login(current);
      if (rotator.discard !== undefined && it_.definition.abilities.fencing) {
        await expect(rotator.set(step)).rejects.toMatchObject({ metadata: { problem: "generation_passed" } });
        expect(await works(step.candidate)).toBe(false);
      }
      await rotate();
      await it_.login(current);
    });

    it("the outside down in any step: nothing is known, and it goes on from there", async () => {
      const step = await begin();
      const down = async (run: () => Promise<unknown> | undefined): Promise<void> => {
        await it_.proxy.down();
        const outcome = await Promise.resolve(run()).catch((error: unknown) => error);
        await it_.proxy.up();
        expect(outcome).toBeInstanceOf(LeaseholdError);
        expect(outcome).toMatchObject({ reason: "TARGET_UNAVAILABLE" });
        expect(`${JSON.stringify(outcome)} ${String(outcome)} ${String((outcome as Error).cause)}`).not.toContain(
          step.candidate.get("password")!.value.revealText(),
        );
        if (it_.currentAlwaysWorks) await it_.login(current);
      };
      await down(() => rotator.set(step));
      await rotator.set(step);
      await down(() => rotator.test(step));
      expect(await rotator.test(step)).toBe("works");
      const finishing = promote(step);
      if (rotator.finish !== undefined) await down(() => rotator.finish?.(finishing));
      await finish(finishing);
      await it_.login(current);
    });

    it("says what whoever puts it must be allowed besides", () => {
      expect(it_.definition.needs(it_.config, "secrets/team/app").length).toBeGreaterThan(0);
      expect(it_.definition.check(it_.config)).toEqual([]);
    });
  });
}
