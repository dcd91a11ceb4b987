import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createLog } from "../../src/base/log.ts";
import type { Command } from "../../src/store/command.ts";
import { GroupCommitter } from "../../src/store/group-committer.ts";
import { freshDatabase, type TestDatabase } from "../support/postgres.ts";

const log = createLog("silent");
const actor = {
  principal: "spiffe://acme.test/a",
  requestId: "r",
  traceId: "",
  action: "SecretService/PutSecret",
  capability: "write",
  peer: "192.0.2.1",
} as const;

describe("committer", () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await freshDatabase();
  });
  afterAll(() => database.drop());

  const open = (chain: string = randomUUID()): GroupCommitter => {
    const config = { url: database.url, poolSize: 2, statementTimeoutMs: 5000, connectTimeoutMs: 3000, requireSyncStandby: false };
    const hooks = { fingerprint: (value: string) => `#${value.length}`, committed: () => {} };
    return new GroupCommitter(config, { chain, batch: 0, seq: 0, head: "00".repeat(32) }, hooks, log);
  };
  const put = (path: string, version: number, uid: string, more: Partial<Command> = {}): Command => ({
    kind: "secret.put",
    path,
    actor,
    args: { uid, version, sealed: "AAAA", key_id: 1 },
    ...more,
  });

  it("numbers changes in commit order, without gaps, over two writers", async () => {
    const writers = [open(), open()];
    const outcomes = await Promise.all(Array.from({ length: 400 }, (_, i) => writers[i % 2]!.commit(put(`secrets/gap/${i}`, 1, randomUUID()))));
    expect(outcomes.every((outcome) => outcome.ok)).toBe(true);
    const revisions = outcomes.map((outcome) => (outcome.ok ? outcome.revision : 0)).sort((a, b) => a - b);
    expect(revisions).toEqual(revisions.map((_, i) => revisions[0]! + i));
    await Promise.all(writers.map((writer) => writer.close()));
  });

  it("finding 22: one bad command does not sink its batch", async () => {
    const writer = open();
    const good = randomUUID();
    const settled = await Promise.allSettled([
      writer.commit(put("secrets/split/a", 1, good)),
      writer.commit({ ...put("secrets/split/b", 1, randomUUID()), kind: "no.such.kind" as never }),
      writer.commit(put("secrets/split/c", 1, randomUUID())),
    ]);
    expect(settled.map((result) => result.status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    await writer.close();
  });

  it("does a request once, and refuses another request under its id", async () => {
    const writer = open();
    const request = { id: randomUUID(), hash: "h1" };
    const uid = randomUUID();
    const first = await writer.commit(put("secrets/once", 1, uid, { request }));
    const again = await writer.commit(put("secrets/once", 1, uid, { request }));
    const other = await writer.commit(put("secrets/once", 2, uid, { request: { ...request, hash: "h2" } }));
    expect(first).toMatchObject({ ok: true });
    expect(again).toMatchObject({ ok: true, replay: true, result: { version: 1 } });
    expect(other).toMatchObject({ ok: false, reason: "CONFLICT" });
    await writer.close();
  });

  it("finding 4: the audit record and the change are one transaction", async () => {
    const writer = open("chain-4");
    await writer.commit(put("secrets/audited", 1, randomUUID()));
    const refused = await writer.commit(put("secrets/audited", 1, randomUUID()));
    expect(refused).toMatchObject({ ok: false, reason: "STALE" });
    const records = await database.query<{ record: { path: string; revision: number; peer: string } }>(
      "select record from audit_record where chain = 'chain-4'",
    );
    expect(records).toHaveLength(1);
    expect(records[0]!.record).toMatchObject({ path: "secrets/audited", outcome: "ok", peer: "#9" });
    await writer.close();
  });

  it("lesson 57: names that differ only in case or normalisation are different secrets", async () => {
    const writer = open();
    const outcomes = await Promise.all(["secrets/case/A", "secrets/case/a"].map((path) => writer.commit(put(path, 1, randomUUID()))));
    expect(outcomes.map((outcome) => outcome.ok)).toEqual([true, true]);
    await writer.close();
  });

  it("finds out what became of a batch whose answer was lost", async () => {
    const writer = open("chain-lost");
    await writer.commit(put("secrets/lost/0", 1, randomUUID()));
    // Every connection of this writer dies again and again while commands go on: each is done exactly once.
    let killing = true;
    const killer = (async () => {
      while (killing)
        await database.query(
          "with pause as materialized (select pg_sleep(0.04 * random())) select pg_terminate_backend(pid) from pause, pg_stat_activity where application_name = 'leasehold' and datname = current_database()",
        );
    })();
    const outcomes = await Promise.all(Array.from({ length: 60 }, (_, i) => writer.commit(put(`secrets/lost/n${i}`, 1, randomUUID()))));
    for (let i = 0; i < 20; i++) expect(await writer.commit(put(`secrets/lost/m${i}`, 1, randomUUID()))).toMatchObject({ ok: true });
    killing = false;
    await killer;
    expect(outcomes.every((outcome) => outcome.ok)).toBe(true);
    const [count] = await database.query<{ n: string }>("select count(*) as n from change_log where path like 'secrets/lost/%'");
    expect(Number(count!.n)).toBe(81);
    await writer.close();
  });
});
