import type { Meter, ObservableResult } from "@opentelemetry/api";
import type { Family, Metrics } from "../base/metrics.ts";

/**
 * Shows the cells to an OTel meter. Histograms go as the counters that Prometheus knows (`_bucket` with `le`, `_sum`, `_count`), because OTel has no observable
 * histogram. Families that appear later are found at the next collection.
 */
export function observeMetrics(meter: Meter, metrics: Metrics): void {
  const known = new Set<string>();
  const find = (): void => {
    for (const family of metrics.families()) {
      if (known.has(family.name)) continue;
      known.add(family.name);
      register(meter, metrics, family);
    }
  };
  find();
  meter.createObservableGauge("leasehold_up", { description: "1 while the process runs." }).addCallback((result) => {
    find();
    result.observe(1);
  });
}

function register(meter: Meter, metrics: Metrics, { name, help: description, kind }: Family): void {
  const observe = (suffix: string, report: (family: Family, result: ObservableResult) => void): void => {
    const instrument = kind === "gauge" ? meter.createObservableGauge(name, { description }) : meter.createObservableCounter(name + suffix, { description });
    instrument.addCallback((result) => {
      for (const family of metrics.families()) if (family.name === name) report(family, result);
    });
  };
  if (kind !== "histogram") {
    observe("", (family, result) => {
      if (family.kind !== "histogram") for (const { labels, cell } of family.samples) result.observe(cell.value, labels);
    });
    return;
  }
  observe("_sum", (family, result) => {
    if (family.kind === "histogram") for (const { labels, cell } of family.samples) result.observe(cell.sum, labels);
  });
  observe("_count", (family, result) => {
    if (family.kind === "histogram") for (const { labels, cell } of family.samples) result.observe(cell.count, labels);
  });
  observe("_bucket", (family, result) => {
    if (family.kind !== "histogram") return;
    for (const { labels, cell } of family.samples) {
      let below = 0;
      cell.bounds.forEach((bound, i) => result.observe((below += cell.counts[i]!), { ...labels, le: String(bound) }));
      result.observe(cell.count, { ...labels, le: "+Inf" });
    }
  });
}
