import type { Change } from "../model/event.ts";
import { ROLE_CHANGED, TARGET_CHANGED } from "../model/event.ts";
import type { RoleRecord, TargetRecord } from "../model/target.ts";
import { allRoles, allTargets, findRole, findTarget } from "../store/catalog.ts";
import type { Db } from "../store/db.ts";

/**
 * Targets and roles in memory, kept up by the change feed. Reads are as fresh as the feed; whoever changes a row says which generation he
 * decided on, so a stale read here can only cost a retry.
 */
export class Catalog {
  readonly #db: Db;
  #targets = new Map<string, TargetRecord>();
  #roles = new Map<string, RoleRecord>();

  constructor(db: Db) {
    this.#db = db;
  }

  role(path: string): RoleRecord | undefined {
    return this.#roles.get(path);
  }

  target(name: string): TargetRecord | undefined {
    return this.#targets.get(name);
  }

  targetByUid(uid: string): TargetRecord | undefined {
    for (const target of this.#targets.values()) if (target.uid === uid) return target;
    return undefined;
  }

  /** In name order. */
  targets(): TargetRecord[] {
    return [...this.#targets.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** In path order. */
  roles(): RoleRecord[] {
    return [...this.#roles.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
  }

  async reset(): Promise<void> {
    const [targets, roles] = await Promise.all([allTargets(this.#db), allRoles(this.#db)]);
    this.#targets = new Map(targets.map((target) => [target.name, target]));
    this.#roles = new Map(roles.map((role) => [role.path, role]));
  }

  async apply(changes: readonly Change[]): Promise<void> {
    const names = new Set(changes.filter((change) => change.type === TARGET_CHANGED).map((change) => change.path.slice("targets/".length)));
    const paths = new Set(changes.filter((change) => change.type === ROLE_CHANGED).map((change) => change.path));
    await Promise.all([...names].map((name) => this.refreshTarget(name)));
    await Promise.all([...paths].map((path) => this.refreshRole(path)));
  }

  /** Reads one target anew, as after a STALE answer. */
  async refreshTarget(name: string): Promise<TargetRecord | undefined> {
    const found = await findTarget(this.#db, name);
    if (found === undefined) this.#targets.delete(name);
    else this.#targets.set(name, found);
    return found;
  }

  async refreshRole(path: string): Promise<RoleRecord | undefined> {
    const found = await findRole(this.#db, path);
    if (found === undefined) this.#roles.delete(path);
    else this.#roles.set(path, found);
    return found;
  }
}
