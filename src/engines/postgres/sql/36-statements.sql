-- Statements of the superuser's, which a role names (docs/adr/0013). They run as leasehold_owner, a superuser, so their text never comes from the broker: only setup_statement_set() writes it, which
-- only superusers may call. The broker chooses a set and a login's name, and check_name() leaves no name that means anything but itself in SQL.

-- One login's way through a phase of a set: all statements or none. The search path holds nothing that the broker could fill: see check_no_temporaries().
CREATE OR REPLACE FUNCTION leasehold.run_statements(p_instance text, p_set text, p_phase text, p_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on SET lock_timeout = '2s' SET enable_seqscan = on
AS $$
DECLARE
  v_statements text[] := leasehold.statements_of(p_instance, p_set, p_phase);
  v_at integer;
BEGIN
  PERFORM leasehold.check_name(p_instance, p_name);
  PERFORM leasehold.check_no_temporaries();
  BEGIN
    FOR i IN 1 .. cardinality(v_statements) LOOP
      v_at := i;
      EXECUTE leasehold.fill_in(v_statements[i], p_name);
    END LOOP;
  EXCEPTION
    -- Anew, without the statement's text and without what it said: only which it was. What may go well the next time keeps its code.
    WHEN OTHERS OR assert_failure THEN
      RAISE EXCEPTION USING ERRCODE = CASE WHEN SQLSTATE ~ '^(40|53|55P03)' THEN SQLSTATE ELSE 'LH020' END,
        MESSAGE = 'a statement of the set failed', DETAIL = format('%s %s: %s', p_phase, v_at, SQLSTATE);
  END;
  PERFORM leasehold.check_no_temporaries();
END
$$;

CREATE OR REPLACE FUNCTION leasehold.statements_of(p_instance text, p_set text, p_phase text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_statements text[];
BEGIN
  SELECT s.statements INTO v_statements FROM leasehold.statement_set s WHERE s.instance = p_instance AND s.name = p_set AND s.phase = p_phase;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'LH021', MESSAGE = 'no such statement set';
  END IF;
  RETURN v_statements;
END
$$;

-- A temporary table of the broker's, with a trigger, would stand in for a table that a statement names without its schema, and the trigger would run as superuser. pg_temp can't be left out of a search path.
CREATE OR REPLACE FUNCTION leasehold.check_no_temporaries() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF pg_my_temp_schema() <> 0 THEN
    RAISE EXCEPTION USING ERRCODE = 'LH022', MESSAGE = 'statement sets are not run in a session with temporary objects';
  END IF;
END
$$;

-- In one pass: what was filled in is not looked through again.
CREATE OR REPLACE FUNCTION leasehold.fill_in(p_statement text, p_name text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT array_to_string(ARRAY(SELECT replace(part, '{{name_literal}}', quote_literal(p_name))
    FROM unnest(string_to_array(p_statement, '{{name}}')) WITH ORDINALITY u (part, i) ORDER BY i), quote_ident(p_name))
$$;

-- As create_logins, and then the set's `create` statements for each login, one after the other; all or none. A login that comes out of them as more than a leased login may be undoes all of it.
CREATE OR REPLACE FUNCTION leasehold.create_logins_of_set(
  p_instance text, p_names text[], p_verifiers text[], p_valid_for_ms bigint[], p_groups text[], p_connection_limit integer, p_deadline_ms bigint, p_login boolean, p_set text
) RETURNS TABLE (login text, role_oid oid, system_identifier text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  v_made record;
  v_until timestamptz;
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  PERFORM leasehold.statements_of(p_instance, p_set, 'create');
  PERFORM leasehold.lock_statements();
  FOR v_made IN SELECT c.login, c.role_oid, c.system_identifier
      FROM leasehold.create_logins(p_instance, p_names, p_verifiers, p_valid_for_ms, p_groups, p_connection_limit, p_deadline_ms, p_login) c LOOP
    SELECT a.rolvaliduntil INTO v_until FROM pg_authid a WHERE a.oid = v_made.role_oid;
    PERFORM leasehold.run_statements(p_instance, p_set, 'create', v_made.login);
    PERFORM leasehold.check_made(v_made.login, v_made.role_oid, p_login, p_verifiers[array_position(p_names, v_made.login)], v_until);
    login := v_made.login;
    role_oid := v_made.role_oid;
    system_identifier := v_made.system_identifier;
    RETURN NEXT;
  END LOOP;
  PERFORM leasehold.check_deadline(to_timestamp(p_deadline_ms / 1000.0));
END
$$;

-- GRANTs on one object by two transactions at a time end in "tuple concurrently updated", and so do those of settle_owned(): one after the other, in each database.
-- A table's lock, for which one needs a right: any login here could hold an advisory one, and so every revocation of a set up.
CREATE OR REPLACE FUNCTION leasehold.lock_statements() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  LOCK TABLE leasehold.statement_set IN SHARE UPDATE EXCLUSIVE MODE;
END
$$;

-- The same role, with what create_logins gave it, and in no group that a lease may not have, or could hand on (the option of an administrator outlives the lease).
CREATE OR REPLACE FUNCTION leasehold.check_made(p_name text, p_oid oid, p_login boolean, p_verifier text, p_until timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_authid a WHERE a.oid = p_oid AND a.rolname = p_name AND a.rolcanlogin = p_login AND a.rolpassword = p_verifier AND a.rolvaliduntil = p_until
                 AND NOT (a.rolsuper OR a.rolcreaterole OR a.rolcreatedb OR a.rolreplication OR a.rolbypassrls))
     OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = p_oid AND (m.admin_option OR leasehold.too_powerful(m.roleid))) THEN
    RAISE EXCEPTION USING ERRCODE = 'LH022', MESSAGE = 'the statements made of the login what no leased login may be';
  END IF;
END
$$;

-- Drops a login that can't log in any more, after the set's `drop` statements, which may have dropped it already. All or nothing: they have run if and only if the login is gone.
-- Answers dropped or absent; a login that still owns something then is an error.
CREATE OR REPLACE FUNCTION leasehold.drop_login_of_set(p_instance text, p_name text, p_oid oid, p_system text, p_set text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_oid oid;
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  PERFORM leasehold.check_server(p_system);
  v_oid := leasehold.locate(p_instance, p_name, p_oid);
  IF v_oid IS NULL THEN
    RETURN 'absent';
  END IF;
  PERFORM leasehold.check_disabled(v_oid);
  PERFORM leasehold.lock_statements();
  PERFORM leasehold.run_statements(p_instance, p_set, 'drop', p_name);
  IF EXISTS (SELECT FROM leasehold.drop_logins(p_instance, ARRAY[p_name], ARRAY[v_oid], p_system) d WHERE d.outcome = 'owned') THEN
    RAISE EXCEPTION USING ERRCODE = 'LH009', MESSAGE = 'the login still owns objects, or was granted privileges';
  END IF;
  RETURN 'dropped';
END
$$;

-- For preflight.
CREATE OR REPLACE FUNCTION leasehold.has_statement_set(p_instance text, p_set text) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  RETURN EXISTS (SELECT FROM leasehold.statement_set s WHERE s.instance = p_instance AND s.name = p_set);
END
$$;

-- For superusers alone. Replaces the set of this name; logins that are live end by what it says then.
CREATE OR REPLACE FUNCTION leasehold.setup_statement_set(p_instance text, p_name text, p_create text[], p_drop text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF p_create IS NULL OR p_drop IS NULL OR p_name IS NULL THEN
    RAISE EXCEPTION 'a statement set needs a name and both lists';
  END IF;
  PERFORM leasehold.check_statement(p_name, s) FROM unnest(p_create || p_drop) s;
  INSERT INTO leasehold.statement_set (instance, name, phase, statements) VALUES (p_instance, p_name, 'create', p_create), (p_instance, p_name, 'drop', p_drop)
    ON CONFLICT (instance, name, phase) DO UPDATE SET statements = excluded.statements;
END
$$;

CREATE OR REPLACE FUNCTION leasehold.check_statement(p_set text, p_statement text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF p_statement IS NULL OR p_statement !~ '\S' THEN
    RAISE EXCEPTION 'statement set %: a statement is empty', p_set;
  END IF;
  IF replace(replace(p_statement, '{{name}}', ' '), '{{name_literal}}', ' ') LIKE '%{{%' THEN
    RAISE EXCEPTION 'statement set %: only {{name}} and {{name_literal}} are filled in', p_set;
  END IF;
  -- A setting made so would stay in the broker's session.
  IF p_statement ~* '^\s*(set|reset)\y' AND p_statement !~* '^\s*set\s+local\y' THEN
    RAISE EXCEPTION 'statement set %: of SET only SET LOCAL is taken', p_set;
  END IF;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA leasehold FROM PUBLIC;
