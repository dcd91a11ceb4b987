import { LeaseholdError } from "../base/errors.ts";
import type { Change } from "../model/event.ts";
import { changesAfter, readHead } from "../store/changes.ts";
import type { Db } from "../store/db.ts";

const PAGE = 1000;
/** For those who read ahead: a page of a thousand spends a third of its time on its own round trip. */
const LARGE_PAGE = 4000;
/** Watches that may read ahead at a time: each holds some megabytes. */
const MOST_AHEAD = 8;

let ahead = 0;

/** The log page by page; the next one is read while the one before is given. */
export class Replay {
  readonly #db: Db;
  #next: { readonly after: number; readonly page: Promise<Change[]> } | undefined;

  constructor(db: Db) {
    this.#db = db;
  }

  /** Some changes after a revision, at least one. @param applied at or above which nothing is given. Throws REVISION_COMPACTED when the next one is gone. */
  async after(revision: number, applied: number): Promise<readonly Change[]> {
    const next = this.#next;
    this.#next = undefined;
    const page = await (next?.after === revision ? next.page : changesAfter(this.#db, revision, PAGE));
    if (page[0]?.revision !== revision + 1) {
      const head = await readHead(this.#db);
      throw new LeaseholdError("REVISION_COMPACTED", "compacted", {
        metadata: { floor: String(head.floor), current: String(head.revision), epoch: String(head.epoch) },
      });
    }
    const last = page.at(-1)!.revision;
    if (last < applied) this.#readAhead(last);
    // What is committed but not applied may be judged by a policy that is not there yet.
    return last <= applied ? page : page.slice(0, applied - revision);
  }

  #readAhead(after: number): void {
    if (ahead >= MOST_AHEAD) return;
    ahead++;
    const page = changesAfter(this.#db, after, LARGE_PAGE);
    const done = (): void => void ahead--;
    page.then(done, done);
    this.#next = { after, page };
  }
}
