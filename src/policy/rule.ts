import { CAPABILITIES, type Capability } from "../model/capability.ts";
import type { Condition } from "./condition.ts";
import type { Cell } from "./trie.ts";

/** One bit per capability, in the order of CAPABILITIES. */
const BITS: ReadonlyMap<string, number> = new Map(CAPABILITIES.map((name, i) => [name, 1 << i]));
export const ALL_BITS = (1 << CAPABILITIES.length) - 1;

/** The bit of a capability; 0 for a name that is none, which no rule ever allows. */
export function bitOf(capability: Capability): number {
  return BITS.get(capability) ?? 0;
}

export function bitsOf(names: readonly (Capability | "*")[]): number {
  let bits = 0;
  for (const name of names) bits |= name === "*" ? ALL_BITS : bitOf(name);
  return bits;
}

/** One path of one rule, ready to decide. */
export interface RuleEntry {
  readonly policy: string;
  /** Place in the policy's list, from 0. */
  readonly ruleIndex: number;
  /** The path pattern as written. Its steps are parsed anew when they are needed (bind.ts): kept, they would be most of the memory. */
  readonly path: string;
  readonly allow: number;
  readonly deny: number;
  readonly condition: Condition | undefined;
  /** Capture names and the SPIFFE segments they are bound to. */
  readonly captures: readonly (readonly [name: string, position: number])[];
}

const NO_RULES: readonly RuleEntry[] = [];

/** The rules at one place of the trie, summed up so that a decision looks at two numbers and at the conditional rules only. */
export class RuleCell implements Cell<RuleEntry> {
  readonly owner: object;
  readonly entries: RuleEntry[];
  conditional: readonly RuleEntry[] = NO_RULES;
  /** Bits of the unconditional rules. */
  allow = 0;
  deny = 0;

  /** The cell keeps the array. */
  constructor(owner: object, entries: RuleEntry[]) {
    this.owner = owner;
    this.entries = entries;
    for (const entry of entries) this.#sum(entry);
  }

  add(entry: RuleEntry): void {
    this.entries.push(entry);
    this.#sum(entry);
  }

  #sum(entry: RuleEntry): void {
    if (entry.condition !== undefined) {
      this.conditional = [...this.conditional, entry];
    } else {
      this.allow |= entry.allow;
      this.deny |= entry.deny;
    }
  }
}

export function newRuleCell(owner: object, entries: RuleEntry[]): RuleCell {
  return new RuleCell(owner, entries);
}
