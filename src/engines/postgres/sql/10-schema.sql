-- Owner, schema and tables. Run by a superuser, inside the one transaction of the bootstrap (bootstrap.ts).
-- The owner must be a superuser: on PG >= 16 any lesser creator becomes a member of each role it makes, and every later
-- CREATE or DROP reads all those memberships again (24 ms at 8,000 roles). It can't log in, and owns nothing but this schema.
DO $$
BEGIN
  IF current_setting('server_version_num')::int < 140000 THEN
    RAISE EXCEPTION 'leasehold needs PostgreSQL 14 or newer';
  END IF;
  IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
    RAISE EXCEPTION 'the bootstrap must be run by a superuser';
  END IF;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'leasehold_owner') THEN
    CREATE ROLE leasehold_owner SUPERUSER NOLOGIN NOINHERIT;
  ELSIF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'leasehold_owner' AND rolsuper AND NOT rolcanlogin) THEN
    RAISE EXCEPTION 'a role leasehold_owner exists that is not ours (a superuser without login)';
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE roleid = 'leasehold_owner'::regrole) THEN
    RAISE EXCEPTION 'nobody may be a member of leasehold_owner';
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'leasehold' AND nspowner <> 'leasehold_owner'::regrole) THEN
    RAISE EXCEPTION 'a schema leasehold exists that is not ours';
  END IF;
END
$$;

SET LOCAL ROLE leasehold_owner;

CREATE SCHEMA IF NOT EXISTS leasehold;
REVOKE ALL ON SCHEMA leasehold FROM PUBLIC;

-- `broker` is the NOLOGIN role that may call the functions; the brokers' logins are its members, so that they can alternate.
CREATE TABLE IF NOT EXISTS leasehold.instance (
  name text PRIMARY KEY CHECK (name ~ '^[a-z0-9]{1,16}$' AND name <> 'w'), -- lh_w_<instance>_<epoch> is kept for the witness role
  broker oid NOT NULL
);

-- What a leased login may be a member of. By oid: a role renamed into an allowed name gains nothing.
CREATE TABLE IF NOT EXISTS leasehold.allowed_group (
  instance text NOT NULL REFERENCES leasehold.instance (name) ON DELETE CASCADE,
  role oid NOT NULL,
  PRIMARY KEY (instance, role)
);

REVOKE ALL ON leasehold.instance, leasehold.allowed_group FROM PUBLIC;

-- What a superuser lets roles of this instance do beyond groups (36-statements.sql). A set has a row for each phase.
CREATE TABLE IF NOT EXISTS leasehold.statement_set (
  instance text NOT NULL REFERENCES leasehold.instance (name) ON DELETE CASCADE,
  name text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  phase text NOT NULL CHECK (phase IN ('create', 'drop')),
  statements text[] NOT NULL,
  PRIMARY KEY (instance, name, phase)
);
REVOKE ALL ON leasehold.statement_set FROM PUBLIC;

-- Never back: a newer broker may rely on what a newer bootstrap installed.
DO $$
DECLARE
  v_installed int;
BEGIN
  IF to_regprocedure('leasehold.version()') IS NOT NULL THEN
    EXECUTE 'SELECT leasehold.version()' INTO v_installed;
    IF v_installed > current_setting('leasehold.bootstrap_version')::int THEN
      RAISE EXCEPTION 'this target has bootstrap version %, newer than the one being installed', v_installed;
    END IF;
  END IF;
END
$$;
