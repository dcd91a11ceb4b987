import { randomBytes } from "node:crypto";
import { Agent, request } from "node:http";
import { SubscriptionService } from "../../src/gen/leasehold/v1/subscription_service_pb.ts";
import { Sensitive } from "../../src/base/sensitive.ts";
import { signatureOf } from "../../src/base/webhook-signature.ts";
import { type Child, startChild } from "../child.ts";
import { type Bench, median, type Result } from "../result.ts";
import { usage } from "../serve.ts";
import type { WatchWorld } from "../watch/world.ts";

const EVENTS = 20_000;
const ROUNDS = 3;
const SECRETS = 1000;
const NAME = "bench";

interface Took {
  readonly ms: number;
  readonly requests: number;
  readonly bytes: number;
}

/** A backlog of changes, written straight into the log while no broker runs, pushed to a webhook in batches, one after the other. Floor: as many bytes in as many requests, signed, from a bare HTTP client. */
export function pushBench(world: () => Promise<WatchWorld>): Bench {
  return {
    name: "subscription_push",
    reach: "-",
    async run(): Promise<Result> {
      const { broker: start, sql } = await world();
      const receiver = await startChild("subscriptions/receiver-child.ts");
      const { port } = receiver.ready as { readonly port: number };
      const url = `http://127.0.0.1:${port}/`;
      const setup = await start();
      const secret = { kind: { case: "text" as const, value: randomBytes(32).toString("hex") } };
      const subscription = { name: NAME, paths: ["secrets/demo/**"], sink: { case: "webhook" as const, value: { url, signingSecret: secret } } };
      await setup.admin.call(SubscriptionService.method.putSubscription, { subscription });
      await setup.stop();
      const [costs, rates, floors]: [number[], number[], number[]] = [[], [], []];
      let last: Took | undefined;
      for (let round = 0; round < ROUNDS; round++) {
        await sql.query(
          `insert into change_log (revision, namespace_id, at, type, path, version, versions, principal, decides_reads)
             select (select max(revision) from change_log) + i, 1, leasehold_now(), 1, 'secrets/demo/app-' || i % ${SECRETS} || '/password', 1 + i / ${SECRETS}, array[1 + i / ${SECRETS}], '', true from generate_series(1, ${EVENTS}) i`,
        );
        await sql.query("vacuum analyze change_log");
        const broker = await start();
        const cpu = async () => ((await broker.child.ask({})) as { cpu: number }).cpu;
        const before = await cpu();
        last = (await receiver.ask({ events: EVENTS })) as Took;
        costs.push(((await cpu()) - before) / EVENTS);
        rates.push((EVENTS / last.ms) * 1000);
        await broker.stop();
        floors.push(await floorOf(receiver, url, last));
      }
      await receiver.stop();
      const [value, floor] = [median(costs), median(floors)];
      return {
        value,
        unit: "µs",
        floor,
        ratio: value / floor,
        detail: { events_per_second: median(rates), events_per_request: EVENTS / last!.requests, bytes_per_event: last!.bytes / EVENTS },
      };
    },
  };
}

/** Microseconds of CPU an event, of this process. */
async function floorOf(receiver: Child, url: string, { requests, bytes }: Took): Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const body = Buffer.alloc(Math.round(bytes / requests), "x");
  const key = { id: 1, secret: Sensitive.text(randomBytes(32).toString("hex")) };
  const each = String(Math.ceil(EVENTS / requests));
  const before = usage().cpu;
  for (let i = 0; i < requests; i++) {
    await new Promise<void>((resolve, reject) => {
      const headers = {
        "content-type": "application/json",
        "content-length": String(body.length),
        "x-events": each,
        "leasehold-signature": signatureOf([key], body, Date.now()),
      };
      request(url, { method: "POST", agent, headers }, (response) => response.resume().once("end", resolve))
        .once("error", reject)
        .end(body);
    });
  }
  const cost = (usage().cpu - before) / EVENTS;
  agent.destroy();
  await receiver.ask({ events: EVENTS });
  return cost;
}
