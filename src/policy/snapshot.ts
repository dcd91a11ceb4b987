import type { Capability } from "../model/capability.ts";
import type { PathScope } from "../model/path.ts";
import type { PolicyDecision } from "../model/policy.ts";
import type { Principal } from "../model/principal.ts";
import type { CompiledPolicy } from "./compile.ts";
import type { Question, RequestFacts } from "./condition.ts";
import { decideOn } from "./decide.ts";
import { explainOn, type Explanation } from "./explain.ts";
import { isFolderAllowed } from "./folder.ts";
import { prefixesOf } from "./prefixes.ts";
import { Recent } from "./recent.ts";
import { grantCells, type GrantNode } from "./principals.ts";
import { bitOf } from "./rule.ts";
import { MAX_WALKED, RuleSet } from "./rule-set.ts";

/** Callers remembered with their rules; one more than that costs some microseconds to look up. */
const MAX_CALLERS = 32_768;
/** Large rule sets remembered. Sets are few: callers who match the same policies share one. */
const MAX_SETS = 64;

/** What the engine is made of at one revision. */
export interface SnapshotParts {
  readonly revision: number;
  readonly policies: ReadonlyMap<string, CompiledPolicy>;
  readonly grants: GrantNode;
}

/** Unix milliseconds, for conditions that look at the time. */
export type Now = () => number;

/** The policies of one revision. Answers never change; what it remembers of callers only makes it faster. */
export class PolicySnapshot {
  readonly parts: SnapshotParts;
  readonly #now: Now;
  readonly #mergeLater: (set: RuleSet) => void;
  readonly #callers = new Recent<string, RuleSet>(MAX_CALLERS);
  readonly #large = new Recent<string, RuleSet>(MAX_SETS);

  /** @param mergeLater is told of every large set that is met unmerged. */
  constructor(parts: SnapshotParts, now: Now, mergeLater: (set: RuleSet) => void) {
    this.parts = parts;
    this.#now = now;
    this.#mergeLater = mergeLater;
  }

  /** Highest change-log revision that is in it. */
  get revision(): number {
    return this.parts.revision;
  }

  /** Never throws: whatever is not allowed in so many words is not. `path` must be canonical. */
  decide(principal: Principal, capability: Capability, path: string, facts?: RequestFacts): PolicyDecision {
    const set = this.#callers.get(principal.id) ?? this.#meet(principal);
    return decideOn(set.roots, this.#question(principal, capability, path, facts));
  }

  /** Scopes outside of which nothing is allowed; an over-approximation of bounded length. Empty when nothing at all. */
  allowedPrefixes(principal: Principal, capability: Capability): readonly PathScope[] {
    return prefixesOf(this.setOf(principal).roots, principal.segments, bitOf(capability));
  }

  /** True when everything below the folder (`policies/`, with its slash) is allowed, whatever the request and without exception. */
  allowsFolder(principal: Principal, capability: Capability, folder: string): boolean {
    return isFolderAllowed(this.setOf(principal).roots, folder.slice(0, -1).split("/"), principal.segments, bitOf(capability));
  }

  /** Why, for people: the deciding rule, or the nearest ones and what they lacked. Costs up to some milliseconds. */
  explain(principal: Principal, capability: Capability, path: string, facts?: RequestFacts): Explanation {
    return explainOn(this.setOf(principal), this.parts.policies.values(), this.#question(principal, capability, path, facts));
  }

  setOf(principal: Principal): RuleSet {
    return this.#callers.get(principal.id) ?? this.#meet(principal);
  }

  /** The large sets in use. */
  largeSets(): RuleSet[] {
    return [...this.#large.values()];
  }

  /** Takes over a set whose key still holds here. */
  adopt(set: RuleSet): void {
    this.#large.set(set.key, set);
  }

  /** The caller's set, whether or not it is remembered, without asking for a merge. */
  find(principal: Principal): RuleSet {
    const cells = grantCells(this.parts.grants, principal);
    const only = cells.length === 1 ? cells[0] : undefined;
    if (only?.alone !== undefined) return only.alone;
    const variants = new Set(cells.flatMap((cell) => cell.entries));
    const key = variants.size > MAX_WALKED ? cells.map((cell) => cell.id).join() : "";
    const set = (key === "" ? undefined : this.#large.get(key)) ?? new RuleSet(key, [...variants], principal);
    if (only !== undefined && key === "") only.alone = set;
    return set;
  }

  #meet(principal: Principal): RuleSet {
    const set = this.find(principal);
    if (set.needsMerge) {
      if (this.#large.get(set.key) === undefined) this.#mergeLater(set);
      this.#large.set(set.key, set);
    }
    this.#callers.set(principal.id, set);
    return set;
  }

  #question(principal: Principal, capability: Capability, path: string, facts: RequestFacts | undefined): Question {
    return { principal, capability, path, facts, now: this.#now() };
  }
}
