import { readdirSync, readFileSync } from "node:fs";

/** Kernel ticks are 10 ms on every Linux that Node runs on. */
const TICK_US = 10_000;

/** CPU time of a PostgreSQL, microseconds: its postmaster, what descends from it now, and what has ended already. 0 where there is no /proc. */
export function postgresCpu(postmaster: number): number {
  const all = new Map<number, { parent: number; ticks: number; ended: number }>();
  let entries: string[];
  try {
    entries = readdirSync("/proc");
  } catch {
    return 0;
  }
  for (const entry of entries) {
    const stat = /^[0-9]+$/.test(entry) ? statOf(Number(entry)) : undefined;
    if (stat !== undefined) all.set(Number(entry), stat);
  }
  let ticks = 0;
  for (const [pid, stat] of all) if (descends(pid, postmaster, all)) ticks += stat.ticks + stat.ended;
  return ticks * TICK_US;
}

function descends(pid: number, ancestor: number, all: ReadonlyMap<number, { readonly parent: number }>): boolean {
  for (let at: number | undefined = pid; at !== undefined && at > 1; at = all.get(at)?.parent) if (at === ancestor) return true;
  return false;
}

function statOf(pid: number): { parent: number; ticks: number; ended: number } | undefined {
  try {
    // The second field may hold blanks; what follows its parenthesis does not. Fields from there on: state, ppid, …, 12 and 13 own time, 14 and 15 that of ended children.
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ")
      .map(Number);
    return { parent: fields[1]!, ticks: fields[11]! + fields[12]!, ended: fields[13]! + fields[14]! };
  } catch {
    return undefined;
  }
}
