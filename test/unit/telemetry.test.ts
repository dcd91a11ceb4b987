import { describe, expect, test } from "vitest";
import type { LogRecord } from "@opentelemetry/api";
import { Metrics } from "../../src/base/metrics.ts";
import { otelLogDestination, tee } from "../../src/telemetry/otel-logs.ts";
import { renderPrometheus } from "../../src/telemetry/prometheus.ts";
import { PrometheusListener } from "../../src/telemetry/prometheus-listener.ts";
import { samplerOf } from "../../src/telemetry/sampler.ts";
import { signalsOf } from "../../src/telemetry/signals.ts";
import { startTelemetry } from "../../src/telemetry/telemetry.ts";

describe("which signals", () => {
  test("nothing named, nothing sent; an endpoint means all; an exporter means one; none and disabled win", () => {
    const none = { traces: false, metrics: false, logs: false };
    expect(signalsOf({})).toEqual(none);
    expect(signalsOf({ OTEL_SERVICE_NAME: "x" })).toEqual(none);
    expect(signalsOf({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://c" })).toEqual({ traces: true, metrics: true, logs: true });
    expect(signalsOf({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://c", OTEL_LOGS_EXPORTER: "none" })).toEqual({ traces: true, metrics: true, logs: false });
    expect(signalsOf({ OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: "http://c" })).toEqual({ ...none, logs: true });
    expect(signalsOf({ OTEL_TRACES_EXPORTER: "otlp" })).toEqual({ ...none, traces: true });
    expect(signalsOf({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://c", OTEL_SDK_DISABLED: "TRUE" })).toEqual(none);
  });

  test("the SDK is not loaded when nothing is asked for", async () => {
    const env: NodeJS.ProcessEnv = {};
    const telemetry = await startTelemetry(env, new Metrics(), "0");
    expect([telemetry.spans, telemetry.logDestination, env]).toEqual([undefined, undefined, {}]);
    await telemetry.stop(1);
  });
});

describe("sampling", () => {
  const of = (name: string, arg?: string, random = 0.5) =>
    samplerOf({ OTEL_TRACES_SAMPLER: name, ...(arg === undefined ? {} : { OTEL_TRACES_SAMPLER_ARG: arg }) }, () => random);
  test("by ratio, by the caller, and by default", () => {
    expect([of("traceidratio", "0.6")(undefined), of("traceidratio", "0.4")(undefined)]).toEqual([true, false]);
    expect([of("traceidratio", "0")({ sampled: true }), of("parentbased_traceidratio", "0")({ sampled: true })]).toEqual([false, true]);
    expect([of("parentbased_always_on")({ sampled: false }), of("always_on")({ sampled: false })]).toEqual([false, true]);
    expect([of("parentbased_always_off")(undefined), of("always_off")(undefined)]).toEqual([false, false]);
    expect([of("nonsense")(undefined), of("nonsense")({ sampled: false }), of("traceidratio", "7")(undefined)]).toEqual([true, false, true]);
  });
});

describe("Prometheus", () => {
  test("text: help, type, labels escaped, histograms cumulative", () => {
    const metrics = new Metrics();
    metrics.counter("c_total", "Counts\nthings.", { a: 'q"\\' }).add(2);
    metrics.observe("g", "Gauge.", () => Number.POSITIVE_INFINITY);
    const h = metrics.histogram("h", "H.", [0.5, 1], { m: "x" });
    for (const value of [0.1, 0.7, 0.7, 9]) h.observe(value);
    expect(renderPrometheus(metrics)).toBe(
      [
        "# HELP c_total Counts\\nthings.",
        "# TYPE c_total counter",
        'c_total{a="q\\"\\\\"} 2',
        "# HELP g Gauge.",
        "# TYPE g gauge",
        "g +Inf",
        "# HELP h H.",
        "# TYPE h histogram",
        'h_bucket{m="x",le="0.5"} 1',
        'h_bucket{m="x",le="1"} 3',
        'h_bucket{m="x",le="+Inf"} 4',
        'h_sum{m="x"} 10.5',
        'h_count{m="x"} 4',
        "",
      ].join("\n"),
    );
  });

  test("the listener serves /metrics and nothing else, and frees its port", async () => {
    const metrics = new Metrics();
    metrics.counter("c_total", "h").add(3);
    const listener = new PrometheusListener(metrics, "127.0.0.1:0");
    await listener.start();
    const { port } = listener;
    const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "text/plain; version=0.0.4; charset=utf-8"]);
    const text = await answer.text();
    expect(text).toContain("c_total 3\n");
    expect(text).toContain("process_resident_memory_bytes");
    expect((await fetch(`http://127.0.0.1:${port}/other`)).status).toBe(404);
    const second = new PrometheusListener(metrics, `127.0.0.1:${port}`);
    await expect(second.start()).rejects.toMatchObject({ code: "EADDRINUSE" });
    await listener.stop();
    await listener.stop();
    await second.start();
    await second.stop();
  });
});

describe("logs", () => {
  test("a line becomes a record with severity, body and attributes; anything else is dropped", () => {
    const records: LogRecord[] = [];
    const lines: string[] = [];
    const destination = tee(
      { write: (line) => void lines.push(line) },
      otelLogDestination({ emit: (record) => void records.push(record), enabled: () => true }),
    );
    destination.write('{"level":"warn","time":"2026-01-02T03:04:05.000Z","requestId":"r1","msg":"hello"}\n');
    destination.write("not json\n");
    destination.write("null\n");
    expect(lines.length).toBe(3);
    expect(records).toEqual([
      { severityText: "warn", severityNumber: 13, timestamp: new Date("2026-01-02T03:04:05.000Z"), body: "hello", attributes: { requestId: "r1" } },
    ]);
  });
});
