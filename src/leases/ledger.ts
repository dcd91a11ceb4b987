import type { ActSpans } from "../base/act-spans.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Catalog } from "../catalog/catalog.ts";
import type { Keyring } from "../crypto/keyring.ts";
import { addressOfTarget } from "../model/target.ts";
import type { Work } from "../operations/operations.ts";
import { Clockwork } from "../schedule/clockwork.ts";
import type { DueIndex } from "../schedule/due-index.ts";
import type { Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { dueLeases, type DueLease } from "../store/due-leases.ts";
import type { LedgerClock } from "../store/ledger-clock.ts";
import { LeaseActor } from "./act.ts";
import { DrawnLogins } from "./drawn.ts";
import type { Due } from "./due.ts";
import { TargetGate } from "./gate.ts";
import { LeaseIssuer } from "./issue.ts";
import { TargetReach, type Targets } from "./reach.ts";
import { WarmPool } from "./pool.ts";
import { LeaseOwners } from "./owners.ts";
import { LeaseRenewer } from "./renew.ts";
import { LeaseRevoker } from "./revoke.ts";
import { ENGINES } from "../engines/registry.ts";
import { scanTargetWork } from "./scan.ts";
import { ScanSchedule } from "./scan-schedule.ts";
import type { LeaseSettings } from "./settings.ts";
import { TargetClocks } from "./target-clock.ts";

export interface LedgerDeps {
  readonly db: Db;
  readonly clock: LedgerClock;
  readonly catalog: Catalog;
  readonly targets: Targets;
  readonly keyring: Keyring;
  readonly committer: Committer;
  readonly index: DueIndex | undefined;
  readonly instance: string;
  readonly settings: LeaseSettings;
  readonly sweepMs: number;
  /** Are clients being served right now? */
  readonly serving: () => boolean;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly spans?: ActSpans | undefined;
}

/**
 * The schedule's budget: leases worked on at a time, in all and on one target. Most of a revocation is waiting for sessions that may still appear, and engines gather what waits into few round trips:
 * how many connections that takes is the target's own limit.
 */
const CONCURRENCY = 12_000;
const PER_TARGET = 4000;
/** While clients are served: a storm of expirations takes its time then, rather than theirs. (At 2,500 a second it left GetSecret's p99 within three times its quiet value on two cores.) */
const PER_TARGET_SERVING = 800;
/** The budget of calls, on one target. */
const CALLS = { perTarget: 256, waiting: 2000 } as const;

/** The lease ledger: who issues, renews and revokes, and the clockwork that does what is due. */
export interface Ledger {
  readonly issuer: LeaseIssuer;
  readonly renewer: LeaseRenewer;
  readonly revoker: LeaseRevoker;
  readonly clockwork: Clockwork<DueLease>;
  readonly pool: WarmPool;
  readonly drawn: DrawnLogins;
  readonly gate: TargetGate;
  readonly owners: LeaseOwners;
  /** The background work of `target scan`. */
  readonly scan: Work;
  /** Begins scans that are due. */
  readonly scans: ScanSchedule;
}

export function createLedger(deps: LedgerDeps): Ledger {
  const { db, clock, targets, committer, settings, log, metrics, spans } = deps;
  // The clockwork acts through the revoker, and the revoker tells the clockwork what is due next.
  const due: Due = { scheduled: (id, at) => clockwork.scheduled(id, at), changed: (id) => clockwork.changed(id), ended: (id) => clockwork.ended(id) };
  const pathOf = (uid: string): string => `targets/${deps.catalog.targetByUid(uid)?.name ?? uid}`;
  const addressOf = (uid: string): string => addressOfTarget(deps.catalog.targetByUid(uid));
  const gate = new TargetGate({ db, committer, open: (uid) => targets.open(uid), pathOf, addressOf, graceMs: settings.graceMs, log });
  const reach = new TargetReach(targets, gate, CALLS);
  const revoker = new LeaseRevoker({
    db,
    reach,
    committer,
    due,
    settings,
    log,
    revoked: metrics.counter("leasehold_leases_revoked_total", "Logins taken away, expired ones included."),
    failed: metrics.counter("leasehold_lease_actions_failed_total", "Tries on a target that failed and will be repeated."),
  });
  const clocks = new TargetClocks();
  const actor = new LeaseActor({ db, reach, committer, revoker, due, clocks, settings, log, spans });
  const clockwork = new Clockwork(
    {
      source: dueLeases(db),
      clock,
      index: deps.index,
      act: (found) => actor.act(found),
      log,
      serving: deps.serving,
      claimed: metrics.counter("leasehold_leases_due_total", "Due leases this process took up."),
    },
    { sweepMs: deps.sweepMs, claimMs: settings.claimMs, concurrency: CONCURRENCY, perTarget: PER_TARGET, perTargetServing: PER_TARGET_SERVING },
  );
  const owners = new LeaseOwners();
  const drawn = new DrawnLogins({ clocks, committer, settings, log });
  const making = {
    db,
    revoker,
    drawn,
    clock,
    owners,
    catalog: deps.catalog,
    reach,
    clocks,
    keyring: deps.keyring,
    committer,
    due,
    instance: deps.instance,
    settings,
    log,
  };
  const pool = new WarmPool(making);
  const issuer = new LeaseIssuer(making);
  const renewer = new LeaseRenewer({ db, reach, committer, due, settings, log });
  const scan = scanTargetWork({ db, committer, gate, revoker, due, open: (uid) => targets.open(uid), pathOf, graceMs: settings.graceMs });
  const engines = ENGINES.filter((engine) => engine.abilities.enumerable).map((engine) => engine.name);
  const scans = new ScanSchedule({ db, committer, catalog: deps.catalog, pathOf, engines, log });
  return { issuer, renewer, revoker, clockwork, pool, drawn, gate, scan, scans, owners };
}
