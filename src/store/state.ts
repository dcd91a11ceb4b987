import { randomBytes } from "node:crypto";
import { LeaseholdError } from "../base/errors.ts";
import type { Db } from "./db.ts";

/** The store's identity, and which of its histories this is (architecture 4.4). */
export interface StoreState {
  /** Eight characters, chosen once per installation; part of the names of leased logins. */
  readonly instance: string;
  readonly epoch: number;
  readonly floorRevision: number;
}

interface Facts {
  readonly fsync: string;
  readonly in_recovery: boolean;
  readonly system_identifier: string;
  readonly timeline: number;
  readonly version: number;
  readonly sync_standbys: string;
  readonly same_backend: boolean;
  readonly encoding: string;
}

const FACTS = {
  name: "state_facts",
  text: `select current_setting('fsync') as fsync, pg_is_in_recovery() as in_recovery, (select system_identifier::text from pg_control_system()) as system_identifier,
           case when pg_is_in_recovery() then 0 else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint end as timeline,
           current_setting('server_version_num')::int as version, current_setting('synchronous_standby_names') as sync_standbys,
           pg_backend_pid() = $1::int or $1::int = 0 as same_backend, current_setting('server_encoding') as encoding`,
};
const PID = { name: "state_pid", text: "select pg_backend_pid() as pid" };
const INSERT = {
  name: "state_insert",
  text: "insert into store_state (instance, epoch, system_identifier, timeline) values ($1, 1, $2, $3) on conflict do nothing",
};
const BUMP = {
  name: "state_bump",
  text: `update store_state set epoch = epoch + 1, system_identifier = $1, timeline = $2
           where (system_identifier, timeline) is distinct from ($1, $2::bigint) returning epoch`,
};
const READ = { name: "state_read", text: `select instance, epoch, floor_revision as "floorRevision" from store_state` };

/**
 * Refuses a store that can't keep its word (finding 37), then answers its state, bumping the epoch when the server is another one or on another
 * timeline than the one that wrote the state. Throws STORE_UNAVAILABLE with one clear line.
 * @param single a database that promises to run both statements on one session unless a transaction pooler stands between.
 */
export async function openState(single: Db, options: { readonly requireSyncStandby: boolean; readonly allowNoFsync: boolean }): Promise<StoreState> {
  const [pid] = await single.query<{ pid: number }>(PID);
  const [facts] = await single.query<Facts>(FACTS, [pid!.pid]);
  const problem = findProblem(facts!, options);
  if (problem !== undefined) throw new LeaseholdError("STORE_UNAVAILABLE", problem);
  await single.query(INSERT, [randomInstance(), facts!.system_identifier, facts!.timeline]);
  await single.query(BUMP, [facts!.system_identifier, facts!.timeline]);
  const [state] = await single.query<StoreState>(READ);
  return state!;
}

function findProblem(facts: Facts, options: { readonly requireSyncStandby: boolean; readonly allowNoFsync: boolean }): string | undefined {
  if (facts.in_recovery) return "the store is a standby (in recovery); connect to the primary";
  if (facts.version < 140_000) return `the store is PostgreSQL ${Math.floor(facts.version / 10_000)}; leasehold needs 14 or newer`;
  if (facts.encoding !== "UTF8") return `the store's encoding is ${facts.encoding}; leasehold needs UTF8`;
  if (facts.fsync !== "on" && !options.allowNoFsync)
    return "the store runs with fsync=off: a committed lease or audit record could be lost; turn it on, or set store.allow_no_fsync for tests";
  if (!facts.same_backend) return "a transaction pooler stands before the store; connect to PostgreSQL directly or use session pooling";
  if (options.requireSyncStandby && facts.sync_standbys === "") return "store.require_sync_standby is set, but synchronous_standby_names is empty";
  return undefined;
}

/** Lower-case letters and digits: it becomes part of role names on targets. */
function randomInstance(): string {
  return randomBytes(16).toString("hex").slice(0, 8);
}
