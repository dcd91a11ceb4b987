import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AuditService, type VerifyAuditResponse } from "../../src/gen/leasehold/v1/audit_service_pb.ts";
import { IdentityService } from "../../src/gen/leasehold/v1/identity_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { testWorld, type TestBroker, type TestWorld, texts } from "../support/broker.ts";
import { until } from "../support/until.ts";

describe("audit, over the wire", () => {
  let world: TestWorld;
  let broker: TestBroker;
  beforeAll(async () => {
    world = await testWorld();
    const gone = await world.start();
    await gone.as("admin").call(SecretService.method.putSecret, { path: "secrets/a/one", data: texts({ k: "v" }) });
    await gone.stop();
    broker = await world.start();
    for (let i = 0; i < 20; i++) await broker.as("admin").call(SecretService.method.getSecret, { path: "secrets/a/one" });
  });
  afterAll(() => world.close());

  const verify = (): Promise<VerifyAuditResponse> => broker.as("admin").call(AuditService.method.verifyAudit, {});
  /** Does something to the tables, says what verify finds, and undoes it. */
  const after = async (change: string, undo: string): Promise<string[]> => {
    await world.store.query(change);
    const found = await verify();
    await world.store.query(undo);
    expect(found.ok).toBe(false);
    return [...new Set(found.problems.map((problem) => problem.kind))].sort();
  };

  it("has a record of every call: allowed, refused and denied", async () => {
    await broker
      .as("app")
      .call(SecretService.method.getSecret, { path: "secrets/a/one" })
      .catch(() => {});
    await broker
      .as("admin")
      .call(SecretService.method.getSecret, { path: "secrets/a/none" })
      .catch(() => {});
    await broker.as("app").call(IdentityService.method.whoAmI, {});
    const lines: string[] = [];
    const seen = async (): Promise<boolean> => {
      lines.length = 0;
      for await (const { records } of broker.as("admin").stream(AuditService.method.tailAudit, { last: 100, noFollow: true }))
        for (const record of records) lines.push(`${record.principal} ${record.action} ${record.path} ${record.outcome}`);
      return lines.some((line) => line.includes("WhoAmI"));
    };
    await until("the records", seen);
    expect(lines).toContain("spiffe://acme.test/ns/payments/sa/app SecretService/GetSecret secrets/a/one PERMISSION_DENIED");
    expect(lines).toContain("spiffe://acme.test/admin SecretService/GetSecret secrets/a/none SECRET_NOT_FOUND");
    expect(lines).toContain("spiffe://acme.test/admin SecretService/PutSecret secrets/a/one ok");
  });

  it("verifies what was written, over restarts", async () => {
    const found = await verify();
    expect(found).toMatchObject({ ok: true, problems: [] });
    expect(Number(found.records)).toBeGreaterThan(20);
    expect(Number(found.chains)).toBe(4);
  });

  it("finding 19: names an edited, a deleted, an added, a reordered and a truncated record, and a chain that was taken away", async () => {
    await until("a signed head over these records", async () => {
      const [row] = await world.store.query<{ ok: boolean }>(
        "select bool_and(h.last is not null) as ok from (select c.chain, max(h.last_seq) as last from audit_chain c left join audit_head h on h.chain = c.chain where c.kind = 'reads' and c.closing is null group by c.chain) h",
      );
      return row!.ok;
    });
    const [chain] = await world.store.query<{ chain: string }>(
      "select c.chain from audit_chain c join audit_head h on h.chain = c.chain where c.kind = 'reads' and c.closing is null limit 1",
    );
    const of = `chain = '${chain!.chain}'`;
    await world.store.query(
      `create table kept as select * from audit_record where ${of}; create table kept_batch as select * from audit_batch where ${of}; create table kept_chain as select * from audit_chain`,
    );
    const back = `delete from audit_record where ${of} and seq in (select seq from kept); insert into audit_record select * from kept`;
    expect(await after(`update audit_record set record = replace(record::text, '"ok"', '"no"')::json where ${of} and seq = 3`, back)).toEqual(["edited"]);
    expect(await after(`delete from audit_record where ${of} and seq = 3`, back)).toEqual(["edited", "missing"]);
    expect(
      await after(
        `update audit_record a set record = b.record from audit_record b where a.chain = b.chain and a.${of} and a.seq in (3, 4) and b.seq = 7 - a.seq`,
        back,
      ),
    ).toEqual(["edited", "reordered"]);
    const [last] = await world.store.query<{ seq: string }>(`select max(last_seq) as seq from audit_batch where ${of}`);
    expect(
      await after(
        `insert into audit_record (chain, seq, record) values ('${chain!.chain}', ${Number(last!.seq) + 1000}, '{"seq":1}')`,
        `delete from audit_record where ${of} and seq = ${Number(last!.seq) + 1000}`,
      ),
    ).toEqual(["edited"]);
    // The chain grows with every verification: what is cut off now is what must be put back.
    await world.store.query(
      `truncate kept, kept_batch; insert into kept select * from audit_record where ${of}; insert into kept_batch select * from audit_batch where ${of}`,
    );
    const cut = `delete from audit_record where ${of} and seq > 2; delete from audit_batch where ${of} and last_seq > 2`;
    expect(
      await after(
        cut,
        `${back}; delete from audit_batch where ${of} and batch in (select batch from kept_batch); insert into audit_batch select * from kept_batch`,
      ),
    ).toContain("truncated");
    const whole = `delete from audit_chain where ${of}`;
    expect(await after(whole, `insert into audit_chain select * from kept_chain where ${of}`)).toContain("missing");
    expect(
      await after(
        `update audit_chain set opening = replace(opening::text, 'reads', 'reids')::json where ${of}`,
        `update audit_chain set opening = (select opening from kept_chain where ${of}) where ${of}`,
      ),
    ).toContain("bad_signature");
    expect((await verify()).ok).toBe(true);
  });
});
