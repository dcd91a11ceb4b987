-- The ledger: what the broker knows, and the one way in which it changes (0002_commit.sql).
-- Every table carries a namespace id; there is one namespace, `default` (1), until tenancy is built.
-- Paths sort and compare bytewise (collate "C"), so that no collation makes two names one (lesson 57).

create table namespace (
  id smallint primary key,
  name text not null unique
);
insert into namespace (id, name) values (1, 'default');

-- One row. `instance` is part of every leased login's name; `epoch` counts the store's histories (architecture 4.4).
create table store_state (
  only_row boolean primary key default true check (only_row),
  instance text not null,
  epoch bigint not null,
  system_identifier text not null,
  timeline bigint not null,
  floor_revision bigint not null default 0
);

-- The clock of everything that is due or expired in the ledger, in whole milliseconds (what a JavaScript Date holds, so that a time read back compares equal). Tests replace this function; nothing else may.
create function leasehold_now() returns timestamptz language sql volatile parallel safe as $$ select date_trunc('milliseconds', clock_timestamp()) $$;

create table keyring_seed (
  id integer primary key,
  provider text not null,
  kms_key_id text not null,
  wrapped bytea not null,
  created_at timestamptz not null default clock_timestamp(),
  retired_at timestamptz
);

create table secret (
  uid uuid primary key,
  namespace_id smallint not null references namespace,
  path text collate "C" not null,
  latest_version bigint not null,
  current_version bigint not null,
  previous_version bigint not null default 0,
  labels jsonb not null default '{}',
  annotations jsonb not null default '{}',
  max_versions integer not null default 10,
  generation bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  deleted_at timestamptz,
  purge_at timestamptz,
  unique (namespace_id, path)
);
create index secret_purge on secret (purge_at) where purge_at is not null;

create table secret_version (
  secret_uid uuid not null references secret on delete cascade,
  version bigint not null,
  sealed bytea,
  key_id integer,
  created_at timestamptz not null,
  created_by text not null,
  not_before timestamptz,
  expire_at timestamptz,
  deleted_at timestamptz,
  destroyed_at timestamptz,
  primary key (secret_uid, version)
);
create index secret_version_key on secret_version (key_id) where key_id is not null;

create table policy (
  uid uuid primary key,
  namespace_id smallint not null references namespace,
  name text collate "C" not null,
  document json not null,
  generation bigint not null,
  updated_at timestamptz not null,
  updated_by text not null,
  unique (namespace_id, name)
);

create table target (
  uid uuid primary key,
  namespace_id smallint not null references namespace,
  name text collate "C" not null,
  engine text not null,
  document json not null,
  sealed_password bytea,
  key_id integer,
  generation bigint not null,
  updated_at timestamptz not null,
  updated_by text not null,
  unique (namespace_id, name)
);

create table role (
  uid uuid primary key,
  namespace_id smallint not null references namespace,
  path text collate "C" not null,
  target_uid uuid not null references target,
  document json not null,
  generation bigint not null,
  updated_at timestamptz not null,
  updated_by text not null,
  unique (namespace_id, path)
);
create index role_target on role (target_uid);

-- States and moves: see src/model/lease.ts. `next_action_at` is the schedule's truth: what the row waits for next, whatever its state.
create table lease (
  id uuid primary key,
  namespace_id smallint not null references namespace,
  path text collate "C" not null,
  target_uid uuid not null references target,
  principal text collate "C" not null,
  request_id uuid,
  request_hash text,
  state text not null check (state in ('PENDING', 'ACTIVE', 'REVOKING', 'REVOKED', 'ROLLED_BACK')),
  generation bigint not null default 1,
  username text collate "C" not null,
  login_oid text,
  system_identifier text,
  connection jsonb,
  owned_objects jsonb not null,
  sealed bytea,
  key_id integer,
  default_ttl_ms bigint not null,
  issued_at timestamptz not null,
  expire_at timestamptz not null,
  renew_at timestamptz not null,
  max_expire_at timestamptz not null,
  renewing_to timestamptz,
  deadline_at timestamptz not null,
  next_action_at timestamptz,
  attempts integer not null default 0,
  problem text,
  stalled boolean not null default false,
  end_cause text check (end_cause in ('EXPIRED', 'REVOKED', 'UNDELIVERED', 'ISSUE_FAILED')),
  ended_at timestamptz,
  delivered boolean not null default true,
  trace_id text not null default '',
  unique (namespace_id, principal, request_id)
);
create index lease_due on lease (next_action_at) where next_action_at is not null;
create index lease_by_path on lease (namespace_id, path, issued_at desc, id desc);
create index lease_by_principal on lease (namespace_id, principal, issued_at desc, id desc);
create index lease_newest on lease (namespace_id, issued_at desc, id desc);
create index lease_live_by_target on lease (target_uid) where state in ('PENDING', 'ACTIVE', 'REVOKING');
create index lease_key on lease (key_id) where key_id is not null;

-- Idempotency of every mutation but issue (whose key lives in the lease row). `result` holds what was answered, never a secret.
create table request (
  namespace_id smallint not null references namespace,
  principal text collate "C" not null,
  action text not null,
  request_id uuid not null,
  request_hash text not null,
  result json not null,
  created_at timestamptz not null,
  primary key (namespace_id, principal, action, request_id)
);
create index request_age on request (created_at);

create table operation (
  id uuid primary key,
  namespace_id smallint not null references namespace,
  kind text not null,
  state text not null check (state in ('RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
  args jsonb not null,
  cursor jsonb,
  done bigint not null default 0,
  total bigint not null default 0,
  problem text not null default '',
  principal text collate "C" not null,
  claimed_until timestamptz,
  created_at timestamptz not null,
  updated_at timestamptz not null
);
create index operation_newest on operation (namespace_id, created_at desc, id desc);
create index operation_running on operation (claimed_until) where state = 'RUNNING';

-- The change log: revision order is commit order, without gaps. `type` is leasehold.v1.EventType's number.
create table change_log (
  revision bigint primary key,
  namespace_id smallint not null,
  at timestamptz not null,
  type smallint not null,
  path text collate "C" not null,
  version bigint not null default 0,
  versions bigint[] not null default '{}',
  lease_id uuid,
  principal text not null default '',
  expire_at timestamptz,
  removed boolean not null default false,
  decides_reads boolean not null
);
-- The newest change that decides what a read may answer: asked by every durable audit insert.
create index change_log_decides_reads on change_log (revision desc) where decides_reads;

-- Audit. `record` is type json, which keeps the exact text that was hashed. One head per group commit: sha256(previous head || records as a JSON array).
create table audit_chain (
  chain text primary key,
  kind text not null check (kind in ('changes', 'reads')),
  process_id text not null,
  opening json not null,
  opening_signature bytea not null,
  opened_at timestamptz not null default clock_timestamp(),
  alive_at timestamptz not null default clock_timestamp(),
  closing json,
  closing_signature bytea
);
create table audit_batch (
  chain text not null,
  batch bigint not null,
  last_seq bigint not null,
  head bytea not null,
  written_at timestamptz not null default clock_timestamp(),
  primary key (chain, batch)
);
create table audit_head (
  chain text not null,
  batch bigint not null,
  last_seq bigint not null,
  head bytea not null,
  signed_text text not null,
  signature bytea not null,
  signed_at timestamptz not null default clock_timestamp(),
  primary key (chain, batch, signed_at)
);
-- Partitioned by day; partitions are made ahead, standalone, then attached (finding 20).
create table audit_record (
  chain text not null,
  seq bigint not null,
  day date not null default (clock_timestamp() at time zone 'UTC')::date,
  record json not null,
  primary key (chain, seq, day)
) partition by range (day);

-- Makes the partitions of `days` days from yesterday on that do not exist yet. Waits for nobody longer than lock_timeout.
create function ensure_audit_partitions(days integer) returns integer language plpgsql as $$
declare
  d date := (clock_timestamp() at time zone 'UTC')::date - 1;
  name text;
  made integer := 0;
begin
  for i in 0..days loop
    name := 'audit_record_' || to_char(d + i, 'YYYYMMDD');
    if to_regclass(name) is null then
      execute format('create table %I (like audit_record including defaults including constraints)', name);
      execute format('alter table %I add primary key (chain, seq, day)', name);
      execute format('alter table %I add constraint %I check (day >= %L and day < %L)', name, name || '_day', d + i, d + i + 1);
      execute format('alter table audit_record attach partition %I for values from (%L) to (%L)', name, d + i, d + i + 1);
      made := made + 1;
    end if;
  end loop;
  return made;
end $$;
select ensure_audit_partitions(8);

-- Results of the newest batch of each process: how a process learns the outcome of a COMMIT whose answer was lost.
create table commit_result (
  chain text primary key,
  batch bigint not null,
  outcome json not null
) with (fillfactor = 50);
