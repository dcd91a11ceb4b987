import type { Gap, OnLoss, SnapshotPlace, SubscriptionDocument, SubscriptionRecord } from "../model/subscription.ts";
import type { Db } from "./db.ts";

interface GapRow {
  readonly id: string;
  readonly reason: Gap["reason"];
  readonly intact: boolean;
  readonly from_epoch: number;
  readonly from_revision: number;
  readonly epoch: number;
  readonly revision: number;
  readonly at: number;
}

interface Row {
  readonly uid: string;
  readonly name: string;
  readonly owner: string;
  readonly document: SubscriptionDocument;
  readonly on_loss: OnLoss;
  readonly signing_key: number;
  readonly paused: boolean;
  readonly generation: number;
  readonly updated_at: Date;
  readonly updated_by: string;
  readonly epoch: number;
  readonly revision: number;
  readonly snapshot: Partial<SnapshotPlace> | null;
  readonly gap: GapRow | null;
  readonly lost: GapRow | null;
  readonly delivered: number;
  readonly skipped: number;
  readonly dead_letters: number;
  readonly moved_at: Date;
  readonly attempts: number;
  readonly refusals: number;
  readonly batch_limit: number;
  readonly last_error: string;
  readonly failing_since: Date | null;
  readonly next_attempt_at: Date | null;
  readonly claimed: boolean;
  readonly claim_generation: number;
}

const COLUMNS = `uid, name, owner, document, on_loss, signing_key, paused, generation, updated_at, updated_by, epoch, revision, snapshot, gap, lost, delivered, skipped,
  (select count(*) from dead_letter d where d.subscription_uid = s.uid) as dead_letters, moved_at, attempts, refusals, batch_limit, last_error, failing_since, next_attempt_at,
  coalesce(claim_until > leasehold_now(), false) as claimed, claim_generation`;
const FIND = { name: "subscription_find", text: `select ${COLUMNS} from subscription s where namespace_id = 1 and name = $1` };
const PAGE = { name: "subscription_page", text: `select ${COLUMNS} from subscription s where namespace_id = 1 and name > $1 order by name limit $2` };
const SEALED = { name: "subscription_sealed", text: "select sealed from subscription where uid = $1" };

export async function findSubscription(db: Db, name: string): Promise<SubscriptionRecord | undefined> {
  const [row] = await db.query<Row>(FIND, [name]);
  return row === undefined ? undefined : recordOf(row);
}

/** In name order, after `after`. */
export async function subscriptionPage(db: Db, after: string, limit: number): Promise<SubscriptionRecord[]> {
  const rows = await db.query<Row>(PAGE, [after, limit]);
  return rows.map(recordOf);
}

/** The sealed secrets of a sink; undefined when it has none. */
export async function sealedSinkSecrets(db: Db, uid: string): Promise<Uint8Array | undefined> {
  const [row] = await db.query<{ sealed: Buffer | null }>(SEALED, [uid]);
  return row?.sealed ?? undefined;
}

const CLAIM = {
  name: "subscription_claim",
  text: `update subscription s set claim_holder = $1, claim_until = leasehold_now() + $2 * interval '1 ms', claim_generation = claim_generation + 1 where uid in (
           select uid from subscription where sink <> '' and not paused and lost is null and (claim_until is null or claim_until <= leasehold_now())
               and (next_attempt_at is null or next_attempt_at <= leasehold_now()) order by claim_until nulls first limit $3 for update skip locked)
         returning ${COLUMNS}`,
};
const CLAIM_ONE = {
  name: "subscription_claim_one",
  text: `update subscription s set claim_holder = $1, claim_until = leasehold_now() + $2 * interval '1 ms', claim_generation = claim_generation + 1
          where uid = $3 and not paused and lost is null and (claim_until is null or claim_until <= leasehold_now()) returning ${COLUMNS}`,
};
const KEEP = {
  name: "subscription_keep",
  text: `update subscription s set claim_until = leasehold_now() + $2 * interval '1 ms' from unnest($3::uuid[], $4::bigint[]) mine (uid, claim)
          where s.uid = mine.uid and s.claim_generation = mine.claim and s.claim_holder = $1 returning s.uid`,
};
const RELEASE = {
  name: "subscription_release",
  text: "update subscription set claim_until = leasehold_now() where uid = $1 and claim_generation = $2",
};

/** Subscriptions with a sink that nobody works on and that are due, at most `limit`: claimed for `ms`, by the database's clock. The one statement that decides who works. */
export async function claimSubscriptions(db: Db, holder: string, ms: number, limit: number): Promise<SubscriptionRecord[]> {
  const rows = await db.query<Row>(CLAIM, [holder, ms, limit]);
  return rows.map(recordOf);
}

/** One subscription, for a consumer; undefined when somebody has it, or it is paused or lost. */
export async function claimSubscription(db: Db, holder: string, ms: number, uid: string): Promise<SubscriptionRecord | undefined> {
  const [row] = await db.query<Row>(CLAIM_ONE, [holder, ms, uid]);
  return row === undefined ? undefined : recordOf(row);
}

/** Holds on to claims for `ms` more; answers the uids of those that are still the holder's. */
export async function keepClaims(db: Db, holder: string, ms: number, claims: readonly { readonly uid: string; readonly claim: number }[]): Promise<string[]> {
  const rows = await db.query<{ uid: string }>(KEEP, [holder, ms, claims.map(({ uid }) => uid), claims.map(({ claim }) => claim)]);
  return rows.map((row) => row.uid);
}

/** Gives a claim back; does nothing when it is another's by now. */
export async function releaseClaim(db: Db, uid: string, claim: number): Promise<void> {
  await db.query(RELEASE, [uid, claim]);
}

const PASS = {
  name: "subscription_pass",
  text: `update subscription set revision = $4, mark = change_mark($4) where uid = $1 and claim_generation = $2 and epoch = $3 and revision < $4 and snapshot is null and lost is null`,
};
const CURSOR = {
  name: "subscription_cursor",
  text: "select revision, snapshot, gap->>'id' as gap, claim_generation as claim from subscription where uid = $1",
};
const BEHIND = {
  name: "subscription_behind",
  text: `select s.uid, s.name, case when s.epoch <> st.epoch then 'EPOCH_CHANGED' else 'COMPACTED' end as reason from subscription s, store_state st
          where s.lost is null and (s.epoch <> st.epoch or s.revision < st.floor_revision) order by s.name limit $1`,
};

/** Moves a cursor past changes that the subscription does not want: nothing was delivered, so there is nothing to record. */
export async function passChanges(db: Db, uid: string, claim: number, epoch: number, revision: number): Promise<void> {
  await db.query(PASS, [uid, claim, epoch, revision]);
}

/** Where the cursor is; `gap`: id of the one that is still to be told, or null. */
export interface Cursor {
  readonly revision: number;
  readonly snapshot: SnapshotPlace | null;
  readonly gap: string | null;
  readonly claim: number;
}

/** Undefined when the subscription is gone. */
export async function cursorOf(db: Db, uid: string): Promise<Cursor | undefined> {
  const [row] = await db.query<Omit<Cursor, "snapshot"> & { snapshot: Partial<SnapshotPlace> | null }>(CURSOR, [uid]);
  return row === undefined ? undefined : { ...row, snapshot: placeOf(row.snapshot) ?? null };
}

/** Subscriptions whose cursor's place is gone or uncertain, though nobody has said so yet. */
export function subscriptionsBehind(
  db: Db,
  limit: number,
): Promise<{ readonly uid: string; readonly name: string; readonly reason: "EPOCH_CHANGED" | "COMPACTED" }[]> {
  return db.query(BEHIND, [limit]);
}

function recordOf(row: Row): SubscriptionRecord {
  return {
    uid: row.uid,
    name: row.name,
    owner: row.owner,
    document: row.document,
    onLoss: row.on_loss,
    signingKey: row.signing_key,
    paused: row.paused,
    generation: row.generation,
    updatedAt: row.updated_at.getTime(),
    updatedBy: row.updated_by,
    epoch: row.epoch,
    revision: row.revision,
    snapshot: placeOf(row.snapshot),
    gap: gapOf(row.gap),
    lost: gapOf(row.lost),
    delivered: row.delivered,
    skipped: row.skipped,
    deadLetters: row.dead_letters,
    movedAt: row.moved_at.getTime(),
    attempts: row.attempts,
    refusals: row.refusals,
    batchLimit: row.batch_limit,
    lastError: row.last_error,
    failingSince: row.failing_since?.getTime(),
    nextAttemptAt: row.next_attempt_at?.getTime(),
    claimed: row.claimed,
    claim: row.claim_generation,
  };
}

/** `{}` is a snapshot's start. */
function placeOf(stored: Partial<SnapshotPlace> | null): SnapshotPlace | undefined {
  return stored === null ? undefined : { ...stored, scope: stored.scope ?? 0 };
}

function gapOf(row: GapRow | null): Gap | undefined {
  if (row === null) return undefined;
  const { from_epoch: fromEpoch, from_revision: fromRevision, ...rest } = row;
  return { ...rest, fromEpoch, fromRevision };
}
