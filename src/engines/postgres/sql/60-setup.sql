-- One broker instance in this database: its NOLOGIN role, its login, the groups it may give. For superusers alone. Idempotent: a null
-- verifier keeps the login's password, null groups keep the list; a list replaces the old one.
CREATE OR REPLACE FUNCTION leasehold.setup_instance(p_instance text, p_login text, p_verifier text, p_groups text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_broker text := 'leasehold_broker_' || p_instance;
  v_problem text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_broker) THEN
    EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', v_broker);
  ELSIF EXISTS (SELECT FROM pg_roles WHERE rolname = v_broker
                AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)) THEN
    RAISE EXCEPTION 'the role % has attributes that a broker must not have', v_broker;
  END IF;
  INSERT INTO leasehold.instance (name, broker) VALUES (p_instance, (SELECT oid FROM pg_roles WHERE rolname = v_broker))
    ON CONFLICT (name) DO UPDATE SET broker = excluded.broker;

  PERFORM leasehold.setup_login(v_broker, p_login, p_verifier);

  IF p_groups IS NOT NULL THEN
    DELETE FROM leasehold.allowed_group WHERE instance = p_instance;
    INSERT INTO leasehold.allowed_group (instance, role)
      SELECT DISTINCT p_instance, r.oid FROM unnest(p_groups) g JOIN pg_roles r ON r.rolname = g;
    SELECT g || ': ' || leasehold.group_problem(p_instance, g) INTO v_problem
      FROM unnest(p_groups) g WHERE leasehold.group_problem(p_instance, g) IS NOT NULL LIMIT 1;
    IF v_problem IS NOT NULL THEN
      RAISE EXCEPTION 'group %', v_problem;
    END IF;
  END IF;

  PERFORM leasehold.grant_functions();
END
$$;

-- Every instance gets every function, so that an upgrade for one is an upgrade for all.
CREATE OR REPLACE FUNCTION leasehold.grant_functions() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_broker text;
  v_function regprocedure;
BEGIN
  FOR v_broker IN SELECT r.rolname FROM leasehold.instance i JOIN pg_roles r ON r.oid = i.broker LOOP
    EXECUTE format('GRANT USAGE ON SCHEMA leasehold TO %I', v_broker);
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), v_broker);
    FOR v_function IN SELECT p.oid FROM pg_proc p
                      WHERE p.pronamespace = 'leasehold'::regnamespace AND (p.prosecdef OR p.proname = 'version') LOOP
      EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_function, v_broker);
    END LOOP;
  END LOOP;
END
$$;

-- The settings keep verifiers, which pass as parameters, out of the server's log and out of pg_stat_statements, whatever the server logs.
-- Only a superuser can set most of them, and the login can't undo those.
CREATE OR REPLACE FUNCTION leasehold.setup_login(p_broker text, p_login text, p_verifier text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_setting text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = p_login) THEN
    IF p_verifier IS NULL THEN
      RAISE EXCEPTION 'a new login needs a password';
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN IN ROLE %I', p_login, p_broker);
  ELSIF NOT EXISTS (SELECT FROM pg_auth_members m WHERE m.member = (SELECT oid FROM pg_roles WHERE rolname = p_login)
                    AND m.roleid = (SELECT oid FROM pg_roles WHERE rolname = p_broker)) THEN
    RAISE EXCEPTION 'the role % exists and is no login of this broker', p_login;
  END IF;
  EXECUTE format('ALTER ROLE %I LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', p_login);
  IF p_verifier IS NOT NULL THEN
    PERFORM leasehold.check_verifier(p_verifier);
    EXECUTE format('ALTER ROLE %I PASSWORD %L', p_login, p_verifier);
  END IF;
  FOREACH v_setting IN ARRAY ARRAY[
    'log_statement=none', 'log_duration=off', 'log_min_duration_statement=-1', 'log_min_duration_sample=-1', 'log_transaction_sample_rate=0',
    'log_min_error_statement=panic', 'log_error_verbosity=terse', 'log_parameter_max_length=0', 'log_parameter_max_length_on_error=0',
    'pg_stat_statements.track_utility=off', 'auto_explain.log_min_duration=-1'] LOOP
    CONTINUE WHEN NOT EXISTS (SELECT FROM pg_settings WHERE name = split_part(v_setting, '=', 1));
    EXECUTE format('ALTER ROLE %I SET %s = %L', p_login, split_part(v_setting, '=', 1), split_part(v_setting, '=', 2));
  END LOOP;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA leasehold FROM PUBLIC;
