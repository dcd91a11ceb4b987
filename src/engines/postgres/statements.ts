import type { Statement } from "./sessions.ts";

/** Everything the broker ever says to a target. Parameters of the functions: sql/30-create.sql, 36-statements.sql, 40-end.sql and 50-owned.sql. */
export const IDENTIFY: Statement = {
  name: "lh_identify",
  // The control file learns of a new timeline only with the first checkpoint after a promotion.
  text: `SELECT s.system_identifier::text, pg_is_in_recovery() AS in_recovery, current_setting('server_version') AS server_version,
           CASE WHEN pg_is_in_recovery() THEN k.timeline_id ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END AS timeline_id,
           (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS now_ms
         FROM pg_control_system() s, pg_control_checkpoint() k`,
};
export const CREATE: Statement = {
  name: "lh_create",
  text: "SELECT login, role_oid::text, system_identifier FROM leasehold.create_logins($1, $2::text[], $3::text[], $4::bigint[], $5::text[], $6::integer, $7::bigint, $8::boolean)",
};
export const CREATE_OF_SET: Statement = {
  name: "lh_create_of_set",
  text: "SELECT login, role_oid::text, system_identifier FROM leasehold.create_logins_of_set($1, $2::text[], $3::text[], $4::bigint[], $5::text[], $6::integer, $7::bigint, $8::boolean, $9)",
};
export const ENABLE: Statement = {
  name: "lh_enable",
  text: "SELECT login FROM leasehold.enable_logins($1, $2::text[], $3::oid[], $4::bigint[], $5::bigint, $6)",
};
export const RENEW: Statement = {
  name: "lh_renew",
  text: "SELECT login FROM leasehold.renew_logins($1, $2::text[], $3::oid[], $4::bigint[], $5)",
};
export const DISABLE: Statement = {
  name: "lh_disable",
  text: "SELECT login, role_oid::text FROM leasehold.disable_logins($1, $2::text[], $3::oid[], $4)",
};
export const TERMINATE: Statement = {
  name: "lh_terminate",
  text: "SELECT leasehold.terminate_sessions($1, $2::oid[]) AS seen",
};
export const OWNED: Statement = {
  name: "lh_owned",
  text: "SELECT database_name FROM leasehold.owned_objects($1, $2, $3::oid) ORDER BY database_name",
};
export const SETTLE: Statement = {
  name: "lh_settle",
  text: "SELECT leasehold.settle_owned($1, $2, $3::oid, $4, $5)",
};
export const DROP: Statement = {
  name: "lh_drop",
  text: "SELECT login, outcome FROM leasehold.drop_logins($1, $2::text[], $3::oid[], $4)",
};
export const DROP_OF_SET: Statement = {
  name: "lh_drop_of_set",
  text: "SELECT leasehold.drop_login_of_set($1, $2, $3::oid, $4, $5) AS outcome",
};
export const SET_BROKER_LOGIN: Statement = {
  name: "lh_set_broker_login",
  text: "SELECT leasehold.set_broker_login($1, $2, $3, $4::bigint)",
};
export const SET_STATIC_LOGIN: Statement = {
  name: "lh_set_static_login",
  text: "SELECT leasehold.set_static_login($1, $2, $3, $4, $5, $6::bigint, $7::bigint)",
};
export const PROBLEM_STATIC_LOGINS: Statement = {
  name: "lh_problem_static_logins",
  text: "SELECT login, problem FROM leasehold.problem_static_logins($1, $2::text[], $3)",
};
export const FIND: Statement = {
  name: "lh_find",
  text: "SELECT role_oid::text, can_login FROM leasehold.find_logins($1, $2::text[])",
};
export const PRESENT: Statement = {
  name: "lh_present",
  text: `SELECT login, can_login, CASE WHEN isfinite(valid_until) THEN floor(extract(epoch FROM valid_until - clock_timestamp()) * 1000)::float8 END AS valid_for_ms
         FROM leasehold.find_logins($1, $2::text[])`,
};
export const LIST: Statement = {
  name: "lh_list",
  text: `SELECT login, role_oid::text FROM leasehold.find_logins($1, NULL) WHERE login COLLATE "C" > $2 ORDER BY login COLLATE "C" LIMIT $3`,
};
export const WITNESS: Statement = {
  name: "lh_witness",
  text: "SELECT epoch::float8 AS epoch, mark FROM leasehold.witness($1)",
};
export const MOVE_WITNESS: Statement = {
  name: "lh_move_witness",
  text: "SELECT leasehold.move_witness($1, $2, $3, $4) AS moved",
};
export const SELF: Statement = {
  name: "lh_self",
  text: `SELECT leasehold.version() AS version,
           (SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = session_user) AS powerful,
           ARRAY(SELECT name FROM pg_settings WHERE (name, setting) IN (('pg_stat_statements.track_utility', 'on'))
                 OR (name = 'log_statement' AND setting <> 'none') OR (name = 'log_min_error_statement' AND setting <> 'panic')
                 OR (name = 'log_error_verbosity' AND setting <> 'terse') OR (name = 'log_parameter_max_length' AND setting <> '0')
                 OR (name = 'log_min_duration_statement' AND setting <> '-1')) AS talkative`,
};
export const HAS_STATEMENT_SET: Statement = {
  name: "lh_has_statement_set",
  text: "SELECT leasehold.has_statement_set($1, $2) AS there",
};
export const PROBLEM_GROUPS: Statement = {
  name: "lh_problem_groups",
  text: "SELECT group_name, problem FROM leasehold.problem_groups($1, $2::text[])",
};
