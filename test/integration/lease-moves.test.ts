import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createLog } from "../../src/base/log.ts";
import type { LeaseState } from "../../src/model/lease.ts";
import type { CommandKind } from "../../src/store/command.ts";
import { Pool } from "../../src/store/db.ts";
import { GroupCommitter } from "../../src/store/group-committer.ts";
import { freshDatabase, type TestDatabase } from "../support/postgres.ts";

const MINUTE = 60_000;
const CREATING_MS = 30_000;

interface Row {
  readonly state: LeaseState;
  readonly generation: number;
  readonly has_oid: boolean;
  readonly has_secret: boolean;
  readonly has_next: boolean;
  readonly renewing: boolean;
  readonly within_max: boolean;
  readonly creating: boolean;
  readonly expire_at: Date;
}

/** What may follow what; anything else is refused and changes nothing. */
const MOVES: Readonly<Record<LeaseState, readonly LeaseState[]>> = {
  PENDING: ["READY", "ACTIVE", "REVOKING", "ROLLED_BACK"],
  READY: ["ACTIVE", "REVOKING"],
  ACTIVE: ["REVOKING"],
  REVOKING: ["REVOKED"],
  REVOKED: ["REVOKING"],
  ROLLED_BACK: ["REVOKING"],
};

/** A move by somebody who read the row now, or before its last move (`late`). */
interface Step {
  readonly kind: CommandKind | "advance";
  readonly late: boolean;
  readonly ms: number;
  readonly cause: "EXPIRED" | "REVOKED" | "UNDELIVERED";
  readonly flag: boolean;
}

const KINDS = [
  "lease.activate",
  "lease.confirm",
  "lease.roll_back",
  "lease.begin_renew",
  "lease.finish_renew",
  "lease.begin_revoke",
  "lease.finish_revoke",
  "lease.fail_action",
  "lease.delivery",
  "lease.settle",
  "lease.reopen",
  "advance",
] as const;

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    kind: fc.constantFrom(...KINDS),
    late: fc.boolean(),
    ms: fc.constantFrom(1000, CREATING_MS, 10 * MINUTE, 60 * MINUTE, 600 * MINUTE),
    cause: fc.constantFrom("EXPIRED" as const, "REVOKED" as const, "UNDELIVERED" as const),
    flag: fc.boolean(),
  }),
  { minLength: 1, maxLength: 14 },
);

const READ = {
  name: "test_lease",
  text: `select state, generation, login_oid is not null as has_oid, sealed is not null as has_secret, next_action_at is not null as has_next, renewing_to is not null as renewing,
                expire_at <= max_expire_at and coalesce(renewing_to <= max_expire_at, true) as within_max, leasehold_now() < deadline_at as creating, expire_at from lease where id = $1`,
};
/** Arguments of every kind of move; each takes its own. */
const FIXED = {
  oid: "7",
  system_identifier: "1",
  connection: {},
  claim_ms: 1000,
  grace_ms: MINUTE,
  redo_ms: 15_000,
  renew_share: 0.6,
  problem: "test",
  next_ms: 1000,
  wait_ms: MINUTE,
};
const ADVANCE = { name: "test_advance", text: "update test_offset set ms = $1" };

function brokenRules(before: Row, after: Row, step: Step, ok: boolean, refused: boolean): string[] {
  const moved = after.state !== before.state;
  const ended = after.state === "REVOKED" || after.state === "ROLLED_BACK";
  const unchanged = isDeepStrictEqual({ ...after, creating: true }, { ...before, creating: true });
  const rules: Readonly<Record<string, boolean>> = {
    "only the moves of the state machine": !moved || MOVES[before.state].includes(after.state),
    "each move is a new generation": !moved || after.generation > before.generation,
    "who read an older row moves nothing; a revocation needs no reading": !moved || !step.late || step.kind === "lease.begin_revoke",
    "a refusal changes nothing": ok || unchanged,
    "the end never comes nearer": after.expire_at >= before.expire_at,
    "nor goes beyond the maximum": after.within_max,
    "an ended lease has no password and no renewal": !ended || (!after.has_secret && !after.renewing),
    "a live lease waits for something": ended || after.has_next,
    "only what is active is renewed": !after.renewing || after.state === "ACTIVE",
    "nothing is said to be gone while it may still come (finding 8)": !moved || !ended || after.has_oid || !after.creating || refused,
  };
  const what = `${before.state} ${JSON.stringify(step)} → ${after.state}`;
  return Object.entries(rules).flatMap(([rule, kept]) => (kept ? [] : [`${rule}: ${what}`]));
}

describe("the moves of a lease", () => {
  let database: TestDatabase;
  let committer: GroupCommitter;
  let db: Pool;
  const target = randomUUID();
  const role = randomUUID();
  let offset = 0;

  beforeAll(async () => {
    database = await freshDatabase();
    const config = { url: database.url, poolSize: 2, statementTimeoutMs: 5000, connectTimeoutMs: 3000, requireSyncStandby: false };
    const tail = { chain: "moves", batch: 0, seq: 0, head: "00".repeat(32) };
    db = new Pool(config, createLog("silent"));
    committer = new GroupCommitter(config, tail, { fingerprint: (value) => value, committed: () => {} }, createLog("silent"));
    await database.query(
      "insert into target (uid, namespace_id, name, engine, document, generation, updated_at, updated_by) values ($1, 1, 't', 'postgres', '{}', 1, now(), 'a')",
      [target],
    );
    await database.query(
      "insert into role (uid, namespace_id, path, target_uid, document, generation, updated_at, updated_by) values ($1, 1, 'credentials/postgres/a', $2, '{}', 1, now(), 'a')",
      [role, target],
    );
    // The clock reads a table, so that it can be moved without DDL.
    await database.query("create table test_offset (ms bigint)");
    await database.query("insert into test_offset values (0)");
    await database.query("grant select, update on test_offset to public");
    await database.query(
      "create or replace function leasehold_now() returns timestamptz language sql volatile as $$ select date_trunc('milliseconds', clock_timestamp() + ms * interval '1 ms') from test_offset $$",
    );
  });
  afterAll(async () => {
    await Promise.all([committer?.close(), db?.close()]);
    await database?.drop();
  });

  const commit = async (kind: CommandKind, args: Record<string, unknown>): Promise<boolean> => {
    const actor = { principal: "spiffe://acme.test/a", requestId: "", traceId: "", action: kind, capability: "", peer: "" } as const;
    return (await committer.commit({ kind, path: "credentials/postgres/a", actor, lease: String(args["id"]), args })).ok;
  };
  const read = async (id: string): Promise<Row> => {
    const [row] = await db.query<Row>(READ, [id]);
    return row!;
  };
  const advance = async (ms: number): Promise<void> => {
    offset += ms;
    await db.query(ADVANCE, [offset]);
  };

  it("are those of the state machine, by compare-and-set, whatever is tried in whatever order", async () => {
    const seen = new Set<string>();
    await fc.assert(
      fc.asyncProperty(steps, async (sequence) => {
        const id = randomUUID();
        const create = {
          id,
          role_uid: role,
          role_generation: 1,
          target_uid: target,
          username: `u_${id}`,
          owned_objects: { kind: "refuse" },
          sealed: "AAAA",
          key_id: 1,
        };
        const ttl = { default_ttl_ms: 60 * MINUTE, ttl_ms: 60 * MINUTE, renew_ms: 40 * MINUTE, max_ttl_ms: 240 * MINUTE, rollback_ms: CREATING_MS };
        expect(await commit("lease.create", { ...create, ...ttl })).toBe(true);
        let before = await read(id);
        for (const step of sequence) {
          if (step.kind === "advance") await advance(step.ms);
          const refused = step.kind === "lease.roll_back" && step.flag;
          const generation = before.generation - (step.late ? 1 : 0);
          const args = {
            ...FIXED,
            id,
            generation,
            cause: step.cause,
            increment_ms: step.ms,
            stalled: step.flag,
            delivered: step.flag,
            refused,
          };
          const ok = step.kind !== "advance" && (await commit(step.kind, args));
          const after = await read(id);
          if (after.state !== before.state) seen.add(`${before.state} → ${after.state}`);
          expect(brokenRules(before, after, step, ok, refused)).toEqual([]);
          before = after;
        }
      }),
      { numRuns: 150 },
    );
    // Those that one or two right steps lead to; the rest (a login found under an ended lease) so few sequences may miss.
    expect([...seen]).toEqual(expect.arrayContaining(["PENDING → ACTIVE", "PENDING → REVOKING", "ACTIVE → REVOKING"]));
  });
});
