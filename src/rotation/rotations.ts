import type { ActSpans } from "../base/act-spans.ts";
import { systemClock } from "../base/clock.ts";
import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Catalog } from "../catalog/catalog.ts";
import type { OpenTargets } from "../catalog/open-targets.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { DueRotation } from "../model/rotation.ts";
import type { SecretData } from "../model/secret.ts";
import { Clockwork } from "../schedule/clockwork.ts";
import type { DueIndex } from "../schedule/due-index.ts";
import type { Job } from "../schedule/jobs.ts";
import type { Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import type { LedgerClock } from "../store/ledger-clock.ts";
import { countStuck, dueRotations, peekRotation } from "../store/rotations.ts";
import { findSecret } from "../store/secrets.ts";
import { RotationActor } from "./act.ts";
import type { ReadCounter } from "./reads.ts";
import type { RotatorDefinition, RotatorHost } from "./rotator.ts";
import { Rotators } from "./rotators.ts";
import type { RotationSettings } from "./settings.ts";
import { OpenedValues } from "./values.ts";
import { RotationWriter, type RotationWrite, type Written } from "./write.ts";

export interface RotationsDeps {
  readonly db: Db;
  readonly clock: LedgerClock;
  readonly catalog: Catalog;
  readonly targets: OpenTargets;
  readonly keyring: Keyring;
  readonly committer: Committer;
  /** Of rotations; undefined without Redis. */
  readonly index: DueIndex | undefined;
  readonly instance: string;
  /** Throws for a target (by uid) on which nothing automatic may happen. */
  readonly gate: (targetUid: string) => Promise<void>;
  readonly settings: RotationSettings;
  readonly sweepMs: number;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly reads: ReadCounter;
  readonly spans?: ActSpans | undefined;
  /** Beside those of the registry; for tests of the steps. */
  readonly rotators?: readonly RotatorDefinition[];
}

/** At a time, by this replica; and on one target. */
const CONCURRENCY = 64;
const PER_TARGET = 4;
const FLUSH_MS = 5000;
const STUCK_MS = 10_000;

/** Rotations: what operators ask, and the clockwork that does what is due. */
export interface Rotations {
  readonly writer: RotationWriter;
  readonly rotators: Rotators;
  readonly clockwork: Clockwork<DueRotation>;
  readonly jobs: readonly Job[];
  /** Aborts, and takes the candidate back outside in the background where a rotator can. */
  abort(path: string, write: RotationWrite): Promise<Written>;
  stop(): Promise<void>;
}

export function createRotations(deps: RotationsDeps): Rotations {
  const { db, catalog, keyring, committer, reads, log, metrics } = deps;
  const host: RotatorHost = {
    clock: systemClock,
    instance: deps.instance,
    catalog,
    targets: deps.targets,
    secret: (path) => currentOf(db, keyring, path),
    log,
  };
  const rotators = new Rotators(host, deps.rotators);
  const changed = (uid: string): Promise<void> => clockwork.changed(uid);
  const actor = new RotationActor({
    db,
    keyring,
    committer,
    rotators,
    clock: deps.clock,
    settings: deps.settings,
    log,
    spans: deps.spans,
    changed,
    gate: async (name) => {
      const target = catalog.target(name);
      if (target === undefined) throw new LeaseholdError("TARGET_NOT_FOUND");
      await deps.gate(target.uid);
    },
    succeeded: metrics.counter("leasehold_rotations_total", "Rotations whose candidate became CURRENT."),
    failed: metrics.counter("leasehold_rotation_steps_failed_total", "Steps of rotations that failed and will be repeated."),
  });
  const clockwork = new Clockwork<DueRotation>(
    {
      source: dueRotations(db),
      clock: deps.clock,
      index: deps.index,
      act: (due) => actor.act(due),
      log,
      serving: () => false,
      claimed: metrics.counter("leasehold_rotations_due_total", "Due rotations this process took up."),
    },
    { sweepMs: deps.sweepMs, claimMs: deps.settings.claimMs, concurrency: CONCURRENCY, perTarget: PER_TARGET, perTargetServing: PER_TARGET },
  );
  const writer = new RotationWriter(db, committer, rotators, changed);
  let stuck = 0;
  metrics.observe("leasehold_rotations_stuck", "Rotations that do not get on, of all replicas.", () => stuck);
  const discards = new Set<Promise<void>>();
  const discard = async (uid: string, version: number, generation: number): Promise<void> => {
    const found = await peekRotation(db, uid);
    if (found === undefined) return;
    // As it was before the abort, and whatever was asked for since, counted on.
    await actor.discard({ ...found, pendingVersion: version, generation, baseVersion: found.secret.current });
  };
  return {
    writer,
    rotators,
    clockwork,
    jobs: [
      { name: "count-reads", everyMs: FLUSH_MS, run: () => reads.flush() },
      { name: "stuck-rotations", everyMs: STUCK_MS, run: async () => void (stuck = await countStuck(db)) },
    ],
    async abort(path, write) {
      const written = await writer.abort(path, write);
      const { uid, given_up: version, generation } = written.result;
      if (written.recorded && typeof uid === "string" && typeof version === "number" && typeof generation === "number") {
        const work = discard(uid, version, generation)
          .catch((error: Error) => log.warn({ rotation: path, error: error.message }, "a candidate that was given up could not be taken back"))
          .finally(() => discards.delete(work));
        discards.add(work);
      }
      return written;
    },
    async stop() {
      actor.stop();
      await clockwork.stop();
      await Promise.all(discards);
      await reads.flush().catch(() => {});
      await rotators.close();
    },
  };
}

/** CURRENT of a secret that a rotator uses. Throws SECRET_NOT_FOUND. */
async function currentOf(db: Db, keyring: Keyring, path: string): Promise<SecretData> {
  const secret = await findSecret(db, path);
  const data = secret === undefined || secret.deletedAt !== undefined ? undefined : await new OpenedValues(db, keyring).of(secret.uid, secret.currentVersion);
  if (data === undefined) throw new LeaseholdError("SECRET_NOT_FOUND");
  return data;
}
