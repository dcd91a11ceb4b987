-- What every function below asks first. None of these is granted to the broker, except version() and problem_groups().
-- Own SQLSTATEs (src/engines/postgres/faults.ts): LH001 deadline passed, LH002 group not allowed, LH003 group too powerful,
-- LH004 another server, LH005 name taken, LH006 role not ours, LH007 role renamed, LH008 still enabled, LH009 still owns objects,
-- LH010 not a broker of this instance, LH011 malformed argument, LH012 new owner not allowed, LH013 login gone,
-- LH014 login not allowed, LH015 a newer candidate was set, LH016 login not a member of its owner, LH017 another rotation was here,
-- LH020 statement of a set failed, LH021 no such set, LH022 its statements went too far.

CREATE OR REPLACE FUNCTION leasehold.version() RETURNS integer
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS 'SELECT 6';

CREATE OR REPLACE FUNCTION leasehold.check_caller(p_instance text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- session_user: inside a SECURITY DEFINER function current_user is the owner.
  IF NOT EXISTS (SELECT FROM leasehold.instance i JOIN pg_roles b ON b.oid = i.broker
                 WHERE i.name = p_instance AND pg_has_role(session_user, b.oid, 'MEMBER')) THEN
    RAISE EXCEPTION USING ERRCODE = 'LH010', MESSAGE = 'not a broker of this instance';
  END IF;
END
$$;

-- A null p_system means that the caller doesn't know which server the login was made on.
CREATE OR REPLACE FUNCTION leasehold.check_server(p_system text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = 'in recovery';
  END IF;
  IF p_system <> (SELECT system_identifier::text FROM pg_control_system()) THEN
    RAISE EXCEPTION USING ERRCODE = 'LH004', MESSAGE = 'not the server that this login was made on';
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION leasehold.check_name(p_instance text, p_name text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF p_name IS NULL OR octet_length(p_name) > 63 OR p_name !~ ('^lh_' || p_instance || '_[a-z0-9_]+$') THEN
    RAISE EXCEPTION USING ERRCODE = 'LH006', MESSAGE = 'outside this instance''s names';
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION leasehold.check_lengths(VARIADIC p_lengths integer[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF (SELECT count(DISTINCT l) <> 1 OR bool_or(l IS NULL) FROM unnest(p_lengths) l) THEN
    RAISE EXCEPTION USING ERRCODE = 'LH011', MESSAGE = 'arrays of different lengths';
  END IF;
END
$$;

-- Finds the role of a lease; null when it is gone. With an oid, a role made again under the old name is not it, and one that was
-- renamed is an error rather than absent, for it may be alive. Refuses roles that no lease of ours can be.
CREATE OR REPLACE FUNCTION leasehold.locate(p_instance text, p_name text, p_oid oid) RETURNS oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_role record;
BEGIN
  PERFORM leasehold.check_name(p_instance, p_name);
  -- Two statements: one for both cases was planned anew at every call (60 µs, five times what the ALTER ROLE after it takes).
  IF p_oid IS NULL THEN
    SELECT a.oid, a.rolname, a.rolsuper OR a.rolcreaterole OR a.rolreplication OR a.rolbypassrls AS powerful INTO v_role FROM pg_authid a WHERE a.rolname = p_name;
  ELSE
    SELECT a.oid, a.rolname, a.rolsuper OR a.rolcreaterole OR a.rolreplication OR a.rolbypassrls AS powerful INTO v_role FROM pg_authid a WHERE a.oid = p_oid;
  END IF;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  IF v_role.rolname <> p_name THEN
    RAISE EXCEPTION USING ERRCODE = 'LH007', MESSAGE = 'the role was renamed';
  END IF;
  IF v_role.powerful THEN
    RAISE EXCEPTION USING ERRCODE = 'LH006', MESSAGE = 'the role has attributes that no leased login has';
  END IF;
  RETURN v_role.oid;
END
$$;

-- Null when the group may be given; else `missing`, `not_allowed` or `too_powerful`. Asked anew at every creation: a group that was
-- harmless at bootstrap may have become powerful, itself or through what it is a member of.
CREATE OR REPLACE FUNCTION leasehold.group_problem(p_instance text, p_group text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_oid oid := (SELECT oid FROM pg_roles WHERE rolname = p_group);
BEGIN
  IF v_oid IS NULL THEN
    RETURN 'missing';
  END IF;
  IF leasehold.too_powerful(v_oid) THEN
    RETURN 'too_powerful';
  END IF;
  IF NOT EXISTS (SELECT FROM leasehold.allowed_group g WHERE g.instance = p_instance AND g.role = v_oid) THEN
    RETURN 'not_allowed';
  END IF;
  RETURN NULL;
END
$$;

-- The role, what it is a member of, and so on upwards. Step by step over arrays: as one recursive query it was planned at every call (0.6 ms), or kept with a plan that read every role there is
-- (3.4 ms at 4,000 logins); for the same reason no scan, and the plan is kept (0.17 ms a call without, 0.04 with).
CREATE OR REPLACE FUNCTION leasehold.too_powerful(p_role oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  v_reach oid[] := ARRAY[p_role];
  v_next oid[] := v_reach;
BEGIN
  WHILE cardinality(v_next) > 0 LOOP
    v_next := ARRAY(SELECT DISTINCT m.roleid FROM pg_auth_members m WHERE m.member = ANY (v_next) AND m.roleid <> ALL (v_reach));
    v_reach := v_reach || v_next;
  END LOOP;
  RETURN EXISTS (
    SELECT FROM pg_authid a WHERE a.oid = ANY (v_reach)
      AND (a.rolsuper OR a.rolcreaterole OR a.rolreplication OR a.rolbypassrls
           OR a.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files', 'pg_create_subscription',
                            'pg_signal_backend', 'pg_signal_autovacuum_worker')
           OR a.rolname LIKE 'lh\_%' OR a.rolname LIKE 'leasehold\_%')
  );
END
$$;

-- The groups of p_groups that can't be given, and why. For preflight.
CREATE OR REPLACE FUNCTION leasehold.problem_groups(p_instance text, p_groups text[]) RETURNS TABLE (group_name text, problem text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  RETURN QUERY SELECT g, leasehold.group_problem(p_instance, g) FROM unnest(p_groups) g
    WHERE leasehold.group_problem(p_instance, g) IS NOT NULL;
END
$$;
