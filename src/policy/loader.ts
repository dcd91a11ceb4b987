import { type Change, POLICY_CHANGED } from "../model/event.ts";
import type { PolicyDocument } from "../model/policy.ts";
import type { Db } from "../store/db.ts";
import { policiesNamed, policyPage } from "../store/policies.ts";
import type { PolicyStore } from "./store.ts";

const PAGE = 500;
const ROOT = "policies/";

/** Keeps the compiled policies up with the change feed. A document that does not compile holds the feed: nobody goes on as if it were applied. */
export class PolicyLoader {
  readonly #db: Db;
  readonly #store: PolicyStore;
  readonly #known = new Set<string>();

  constructor(db: Db, store: PolicyStore) {
    this.#db = db;
    this.#store = store;
  }

  async reset(): Promise<void> {
    // All pages in one change: between two of them a later page's denies would be missing.
    const put: PolicyDocument[] = [];
    for (let after = ""; ;) {
      const page = await policyPage(this.#db, after, PAGE);
      put.push(...page.map((record) => record.document));
      if (page.length < PAGE) break;
      after = page.at(-1)!.document.name;
    }
    const found = new Set(put.map((document) => document.name));
    const remove = [...this.#known].filter((name) => !found.has(name));
    await this.#store.apply({ revision: this.#store.current.revision, put, remove });
    this.#known.clear();
    for (const name of found) this.#known.add(name);
  }

  async apply(changes: readonly Change[]): Promise<void> {
    const names = [...new Set(changes.filter((change) => change.type === POLICY_CHANGED).map((change) => change.path.slice(ROOT.length)))];
    const { revision } = changes.at(-1)!;
    if (names.length === 0) return;
    const records = await policiesNamed(this.#db, names);
    const put = records.map((record) => record.document);
    const written = new Set(put.map((document) => document.name));
    const remove = names.filter((name) => !written.has(name));
    await this.#store.apply({ revision, put, remove });
    for (const name of written) this.#known.add(name);
    for (const name of remove) this.#known.delete(name);
  }
}
