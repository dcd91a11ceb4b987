import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Metrics } from "../../src/base/metrics.ts";
import { startTelemetry, type Telemetry } from "../../src/telemetry/telemetry.ts";

/** What an OTLP collector was sent, by path. */
const received = new Map<string, string>();
const collector = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    received.set(request.url!, (received.get(request.url!) ?? "") + Buffer.concat(chunks).toString("latin1"));
    response.writeHead(200, { "content-type": "application/x-protobuf" }).end();
  });
});
const metrics = new Metrics();
let telemetry: Telemetry;

beforeAll(async () => {
  await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve));
  process.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`;
  process.env["OTEL_NODE_RESOURCE_DETECTORS"] = "all";
  telemetry = await startTelemetry(process.env, metrics, "1.2.3");
});

afterAll(() => collector.close());

test("spans, metrics and logs reach an OTLP collector, without the command line of this process", async () => {
  const parent = { traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331", sampled: true };
  const span = telemetry.spans!.start("SecretService/GetSecret", parent)!;
  span.setAttribute("leasehold.path", "secrets/a/b");
  span.end();
  expect(span.spanContext().traceId).toBe(parent.traceId);
  expect(telemetry.spans!.start("unsampled", { ...parent, sampled: false })).toBeUndefined();
  metrics.counter("leasehold_test_total", "h", { method: "x" }).add(3);
  metrics.histogram("leasehold_test_seconds", "h", [1]).observe(0.5);
  telemetry.logDestination!.write('{"level":"info","msg":"the log line"}\n');
  await telemetry.stop(10_000);
  expect([...received.keys()].toSorted()).toEqual(["/v1/logs", "/v1/metrics", "/v1/traces"]);
  expect(received.get("/v1/traces")).toContain("SecretService/GetSecret");
  expect(received.get("/v1/traces")).toContain("secrets/a/b");
  expect(received.get("/v1/metrics")).toContain("leasehold_up");
  expect(received.get("/v1/logs")).toContain("the log line");
  const all = [...received.values()].join("");
  expect(all).toContain("leasehold");
  for (const never of ["process.command", process.argv[1]!]) expect(all).not.toContain(never);
});
