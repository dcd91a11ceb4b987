import { LeaseholdError } from "../base/errors.ts";
import { Gather } from "../base/gather.ts";
import type { Target } from "../engines/engine.ts";
import type { DueLease } from "../store/due-leases.ts";
import type { TargetReach } from "./reach.ts";

type Found = { readonly oid: string } | undefined;

const LANES = 2;
const MAX = 500;

/**
 * Is a lease's login still on its target? Asked for many at a time: each lease is looked for once more after its end, and a minute after a storm of expirations a look apiece (two calls of the target each) took the target, and the
 * committer, from those who revoke: 10,000 revocations took 15 s instead of 3.
 */
export class LoginFinder {
  readonly #reach: Pick<TargetReach, "use">;
  readonly #looks = new Map<string, Gather<DueLease, Found>>();

  constructor(reach: Pick<TargetReach, "use">) {
    this.#reach = reach;
  }

  /** On the server it was made on: absent elsewhere, or on a standby, means nothing (finding 12). Throws TARGET_*, TARGET_MISCONFIGURED `different_server` among them. */
  find(lease: DueLease): Promise<Found> {
    const { targetUid } = lease;
    let look = this.#looks.get(targetUid);
    if (look === undefined) {
      const run = (leases: readonly DueLease[]) => this.#reach.use(targetUid, (target) => findAll(target, leases));
      this.#looks.set(targetUid, (look = new Gather({ run, lanes: LANES, max: MAX })));
    }
    return look.add(lease);
  }
}

async function findAll(target: Target<unknown>, leases: readonly DueLease[]): Promise<(Found | Error)[]> {
  const { inRecovery, systemIdentifier } = await target.identify();
  const present = await target.present?.(leases.map((lease) => lease.username));
  const found: (Found | Error)[] = [];
  for (const { username, systemIdentifier: made } of leases) {
    if (inRecovery || (made !== undefined && made !== systemIdentifier))
      found.push(new LeaseholdError("TARGET_MISCONFIGURED", "another server", { metadata: { problem: "different_server" } }));
    else if (present?.has(username) === false) found.push(undefined);
    // oxlint-disable-next-line no-await-in-loop -- hardly ever one
    else found.push(await target.find(username).catch((error: Error) => error));
  }
  return found;
}
