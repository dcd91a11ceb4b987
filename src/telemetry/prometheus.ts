import type { Family, Labels, Metrics } from "../base/metrics.ts";

export const CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** The Prometheus text format, version 0.0.4. */
export function renderPrometheus(metrics: Metrics): string {
  let text = "";
  for (const family of metrics.families()) text += render(family);
  return text;
}

function render(family: Family): string {
  let text = `# HELP ${family.name} ${escapeHelp(family.help)}\n# TYPE ${family.name} ${family.kind}\n`;
  if (family.kind !== "histogram") {
    for (const { labels, cell } of family.samples) text += line(family.name, labels, cell.value);
    return text;
  }
  for (const { labels, cell } of family.samples) {
    let below = 0;
    cell.bounds.forEach((bound, i) => {
      below += cell.counts[i]!;
      text += line(`${family.name}_bucket`, { ...labels, le: String(bound) }, below);
    });
    text += line(`${family.name}_bucket`, { ...labels, le: "+Inf" }, cell.count);
    text += line(`${family.name}_sum`, labels, cell.sum) + line(`${family.name}_count`, labels, cell.count);
  }
  return text;
}

function line(name: string, labels: Labels, value: number): string {
  const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
  return `${name}${pairs.length > 0 ? `{${pairs.join(",")}}` : ""} ${number(value)}\n`;
}

function number(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  return String(value);
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}
