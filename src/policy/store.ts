import type { PolicyDocument } from "../model/policy.ts";
import { compilePolicy, type CompiledPolicy } from "./compile.ts";
import { GrantEditor } from "./principals.ts";
import type { RuleSet } from "./rule-set.ts";
import { runSliced, type Work } from "./slices.ts";
import { type Now, PolicySnapshot } from "./snapshot.ts";

/** What changed up to `revision`. */
export interface PolicyChange {
  readonly revision: number;
  /** Written: new ones, and new versions of old ones. */
  readonly put?: readonly PolicyDocument[];
  /** Names of deleted ones; unknown names are passed over. */
  readonly remove?: readonly string[];
}

export interface PolicyStore {
  /** The newest snapshot. Ask again for every decision: that is how a change takes effect. */
  readonly current: PolicySnapshot;
  /**
   * Compiles the change in slices of some milliseconds and then swaps the snapshot, whole. Changes are applied in the order of the
   * calls. Rejects, changing nothing, when a document can't be compiled: the caller must then not go on as if it were applied.
   */
  apply(change: PolicyChange): Promise<PolicySnapshot>;
}

/** Rules held in merged tries, all sets together: some 400 bytes each. Sets beyond it are walked one variant at a time. */
const MAX_MERGED_RULES = 1_000_000;

/** An empty store: revision 0, nothing allowed. */
export function createPolicyStore(now: Now = Date.now): PolicyStore {
  let last: Promise<unknown> = Promise.resolve();
  const enqueue = <T>(run: () => Promise<T>): Promise<T> => {
    const result = last.then(run);
    last = result.catch(() => undefined);
    return result;
  };
  const mergeLater = (set: RuleSet): void => {
    void enqueue(async () => {
      if (current.largeSets().includes(set) && set.needsMerge && hasRoom(current, set)) await runSliced(set.merge());
    });
  };
  const snapshot = (parts: PolicySnapshot["parts"]): PolicySnapshot => new PolicySnapshot(parts, now, mergeLater);
  let current = snapshot({ revision: 0, policies: new Map(), grants: new GrantEditor(undefined).root });
  return {
    get current() {
      return current;
    },
    apply: (change) =>
      enqueue(async () => {
        current = await runSliced(changed(current, change, snapshot));
        return current;
      }),
  };
}

function* changed(old: PolicySnapshot, change: PolicyChange, snapshot: (parts: PolicySnapshot["parts"]) => PolicySnapshot): Work<PolicySnapshot> {
  const policies = new Map(old.parts.policies);
  const editor = new GrantEditor(old.parts.grants);
  const replace = function* (name: string, policy: CompiledPolicy | undefined): Work<void> {
    for (const grant of policies.get(name)?.grants ?? []) {
      editor.remove(grant);
      yield;
    }
    for (const grant of policy?.grants ?? []) {
      editor.insert(grant);
      yield;
    }
    if (policy === undefined) policies.delete(name);
    else policies.set(name, policy);
  };
  for (const name of change.remove ?? []) yield* replace(name, undefined);
  for (const document of change.put ?? []) yield* replace(document.name, yield* compilePolicy(document));
  const next = snapshot({ revision: Math.max(change.revision, old.revision), policies, grants: editor.root });
  // Large sets are made ready before the swap, so that no decision after it pays for the change.
  for (const set of old.largeSets()) yield* succeed(next, set);
  return next;
}

/** Makes in `next` the set that the callers of `set` will have. */
function* succeed(next: PolicySnapshot, set: RuleSet): Work<void> {
  const own = next.find(set.sample);
  if (own.key === set.key) return next.adopt(set);
  if (!own.needsMerge || !hasRoom(next, own)) return;
  yield* own.merge(set);
  next.adopt(own);
}

function hasRoom(snapshot: PolicySnapshot, set: RuleSet): boolean {
  const held = snapshot.largeSets().reduce((sum, each) => sum + (each === set || each.needsMerge ? 0 : each.weight), 0);
  return held + set.weight <= MAX_MERGED_RULES;
}
