import { parseArgs } from "node:util";
import { callBenches } from "./calls.ts";
import { build } from "./compiled.ts";
import { leaseBenches } from "./leases/benches.ts";
import { policyBenches } from "./policy.ts";
import type { Bench, Result } from "./result.ts";
import { startBenches } from "./start.ts";
import { watchBenches } from "./watch/benches.ts";

// `npm run bench`: a table for people. `npm run -s bench -- --json [--only name,…]`: one JSON object a line on standard output, and nothing else there.
// `--profile folder` writes CPU profiles of the servers. How it is measured: docs/benchmarks.md.
const { values: options } = parseArgs({ options: { json: { type: "boolean" }, only: { type: "string" }, profile: { type: "string" } } });

build();
const calls = callBenches({ profile: options.profile });
const leases = leaseBenches();
const watches = watchBenches({ profile: options.profile });
const benches: readonly Bench[] = [...calls.benches, ...policyBenches, ...startBenches, ...leases.benches, ...watches.benches];
const chosen = options.only === undefined ? benches : options.only.split(",").map(benchOf);

try {
  for (const bench of chosen) {
    const result = await bench.run();
    process.stdout.write(`${options.json === true ? jsonLine(bench, result) : tableLine(bench, result)}\n`);
  }
} finally {
  await calls.close();
  await leases.close();
  await watches.close();
}

function benchOf(name: string): Bench {
  const found = benches.find((bench) => bench.name === name);
  if (found === undefined) throw new Error(`no bench ${name}; there are ${benches.map((bench) => bench.name).join(", ")}`);
  return found;
}

function jsonLine({ name }: Bench, { value, unit, floor, ratio, detail }: Result): string {
  return JSON.stringify({ name, value, unit, floor: floor ?? null, ratio: ratio ?? null, detail }, rounded);
}

function tableLine({ name, reach }: Bench, { value, unit, floor, ratio, detail = {} }: Result): string {
  const beside = floor === undefined ? "" : `floor ${round(floor)} ${unit}`;
  const compared = ratio === undefined ? "" : `× ${ratio.toFixed(2)}`;
  const more = Object.entries(detail).map(([key, each]) => `\n    ${key}: ${typeof each === "number" ? round(each) : JSON.stringify(each, rounded)}`);
  return `${name.padEnd(24)}${`${round(value)} ${unit}`.padEnd(14)}${beside.padEnd(18)}${compared.padEnd(8)}reach ${reach}${more.join("")}`;
}

function rounded(_key: string, value: unknown): unknown {
  return typeof value === "number" ? round(value) : value;
}

/** Three digits that matter. */
function round(value: number): number {
  return Number(value.toPrecision(3));
}
