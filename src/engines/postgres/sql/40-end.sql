-- Everything after creation, in the order of a lease's life. Each works on arrays of the same length: name, and oid where it is known.

-- Moves VALID UNTIL, never the right to log in. A row per login that is there.
CREATE OR REPLACE FUNCTION leasehold.renew_logins(p_instance text, p_names text[], p_oids oid[], p_valid_for_ms bigint[], p_system text)
RETURNS TABLE (login text, role_oid oid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
AS $$
DECLARE
  v_oid oid;
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  PERFORM leasehold.check_server(p_system);
  PERFORM leasehold.check_lengths(cardinality(p_names), cardinality(p_oids), cardinality(p_valid_for_ms));
  FOR i IN 1 .. cardinality(p_names) LOOP
    v_oid := leasehold.locate(p_instance, p_names[i], p_oids[i]);
    CONTINUE WHEN v_oid IS NULL;
    EXECUTE format('ALTER ROLE %I VALID UNTIL %L', p_names[i], leasehold.valid_until(p_valid_for_ms[i]));
    PERFORM leasehold.check_still(p_names[i], v_oid);
    login := p_names[i];
    role_oid := v_oid;
    RETURN NEXT;
  END LOOP;
END
$$;

-- Takes the right to log in. A row per login; role_oid is null for one that is gone.
CREATE OR REPLACE FUNCTION leasehold.disable_logins(p_instance text, p_names text[], p_oids oid[], p_system text)
RETURNS TABLE (login text, role_oid oid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_oid oid;
  v_oids oid[] := '{}';
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  PERFORM leasehold.check_server(p_system);
  PERFORM leasehold.check_lengths(cardinality(p_names), cardinality(p_oids));
  FOR i IN 1 .. cardinality(p_names) LOOP
    v_oid := leasehold.locate(p_instance, p_names[i], p_oids[i]);
    IF v_oid IS NOT NULL THEN
      EXECUTE format('ALTER ROLE %I NOLOGIN', p_names[i]);
    END IF;
    v_oids := v_oids || v_oid;
    login := p_names[i];
    role_oid := v_oid;
    RETURN NEXT;
  END LOOP;
  PERFORM leasehold.check_still(p_names, v_oids);
END
$$;

-- Ends every session of these roles, dropped ones included (their usename is NULL, their usesysid is not), and says how many it saw.
-- Filters on usesysid alone. A login that was past its password check may appear later: call again until nothing is seen.
CREATE OR REPLACE FUNCTION leasehold.terminate_sessions(p_instance text, p_oids oid[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_foreign integer;
  v_seen integer;
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  SELECT count(*) INTO v_foreign FROM pg_authid a
    WHERE a.oid = ANY (p_oids) AND (a.rolname !~ ('^lh_' || p_instance || '_[a-z0-9_]+$') OR a.rolsuper);
  IF v_foreign > 0 THEN
    RAISE EXCEPTION USING ERRCODE = 'LH006', MESSAGE = 'outside this instance''s names';
  END IF;
  SELECT count(pg_terminate_backend(s.pid)) INTO v_seen FROM pg_stat_activity s WHERE s.usesysid = ANY (p_oids);
  RETURN v_seen;
END
$$;

-- Drops logins that can't log in any more and own nothing. outcome: dropped, absent, or owned (nothing was done to it).
CREATE OR REPLACE FUNCTION leasehold.drop_logins(p_instance text, p_names text[], p_oids oid[], p_system text)
RETURNS TABLE (login text, outcome text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_oid oid;
  v_dropped oid[] := '{}';
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  PERFORM leasehold.check_server(p_system);
  PERFORM leasehold.check_lengths(cardinality(p_names), cardinality(p_oids));
  FOR i IN 1 .. cardinality(p_names) LOOP
    v_oid := leasehold.locate(p_instance, p_names[i], p_oids[i]);
    IF v_oid IS NULL THEN
      outcome := 'absent';
    ELSE
      PERFORM leasehold.check_disabled(v_oid);
      IF EXISTS (SELECT FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = v_oid) THEN
        outcome := 'owned';
      ELSE
        EXECUTE format('DROP ROLE %I', p_names[i]);
        v_dropped := v_dropped || v_oid;
        outcome := 'dropped';
      END IF;
    END IF;
    login := p_names[i];
    RETURN NEXT;
  END LOOP;
  IF EXISTS (SELECT FROM pg_authid a WHERE a.oid = ANY (v_dropped)) THEN
    RAISE EXCEPTION USING ERRCODE = 'LH007', MESSAGE = 'a role changed under our hands';
  END IF;
END
$$;

-- Our logins by name, or all of this instance's when p_names is null.
CREATE OR REPLACE FUNCTION leasehold.find_logins(p_instance text, p_names text[])
RETURNS TABLE (login text, role_oid oid, can_login boolean, valid_until timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  RETURN QUERY SELECT a.rolname::text, a.oid, a.rolcanlogin, a.rolvaliduntil FROM pg_authid a
    WHERE a.rolname ~ ('^lh_' || p_instance || '_[a-z0-9_]+$') AND (p_names IS NULL OR a.rolname = ANY (p_names::name[]));
END
$$;

-- DDL names roles, leases know oids: raises, and so undoes the statement before it, unless the name still means that oid.
CREATE OR REPLACE FUNCTION leasehold.check_still(p_name text, p_oid oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_authid a WHERE a.oid = p_oid AND a.rolname = p_name) THEN
    RAISE EXCEPTION USING ERRCODE = 'LH007', MESSAGE = 'the role changed under our hands';
  END IF;
END
$$;

-- The same for many; an oid that is null is nobody's.
CREATE OR REPLACE FUNCTION leasehold.check_still(p_names text[], p_oids oid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
  IF EXISTS (SELECT FROM unnest(p_names, p_oids) u (name, oid) LEFT JOIN LATERAL (SELECT x.rolname FROM pg_authid x WHERE x.oid = u.oid LIMIT 1) a ON true
             WHERE u.oid IS NOT NULL AND a.rolname IS DISTINCT FROM u.name) THEN
    RAISE EXCEPTION USING ERRCODE = 'LH007', MESSAGE = 'a role changed under our hands';
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION leasehold.check_disabled(p_oid oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_authid a WHERE a.oid = p_oid AND a.rolcanlogin) THEN
    RAISE EXCEPTION USING ERRCODE = 'LH008', MESSAGE = 'the login is still enabled';
  END IF;
END
$$;
