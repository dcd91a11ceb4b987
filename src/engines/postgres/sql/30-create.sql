-- Version 2 has p_login.
DROP FUNCTION IF EXISTS leasehold.create_logins(text, text[], text[], bigint[], text[], integer, bigint);

-- Creates logins, all or none, or with p_login false (for a warm pool) as roles that can't log in yet. The deadline is read from this server's own clock before and after the work, so that a caller that was
-- frozen can't make a login under a lease that was given up meanwhile. VALID UNTIL counts from this server's now().
--
-- The verifier is a secret. An error inside EXECUTE carries the statement's text as context to the caller and to the server's log, a
-- cancelled one too; so every error is caught here and raised anew without it.
CREATE OR REPLACE FUNCTION leasehold.create_logins(
  p_instance text, p_names text[], p_verifiers text[], p_valid_for_ms bigint[], p_groups text[], p_connection_limit integer, p_deadline_ms bigint, p_login boolean
) RETURNS TABLE (login text, role_oid oid, system_identifier text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
  v_deadline timestamptz := to_timestamp(p_deadline_ms / 1000.0);
  v_system text := (SELECT c.system_identifier::text FROM pg_control_system() c);
  v_groups text := (SELECT string_agg(quote_ident(g), ', ') FROM unnest(p_groups) g);
  v_until text[];
  v_group text;
  v_problem text;
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  PERFORM leasehold.check_server(NULL);
  PERFORM leasehold.check_deadline(v_deadline);
  PERFORM leasehold.check_lengths(cardinality(p_names), cardinality(p_verifiers), cardinality(p_valid_for_ms));
  IF coalesce(p_connection_limit, 0) < -1 THEN
    RAISE EXCEPTION USING ERRCODE = 'LH011', MESSAGE = 'malformed connection limit';
  END IF;
  FOREACH v_group IN ARRAY p_groups LOOP
    v_problem := leasehold.group_problem(p_instance, v_group);
    IF v_problem IS NOT NULL THEN
      RAISE EXCEPTION USING ERRCODE = CASE v_problem WHEN 'too_powerful' THEN 'LH003' ELSE 'LH002' END, MESSAGE = 'group ' || v_problem;
    END IF;
  END LOOP;

  PERFORM leasehold.check_name(p_instance, n) FROM unnest(p_names) n;
  PERFORM leasehold.check_verifier(v) FROM unnest(p_verifiers) v;
  v_until := ARRAY(SELECT leasehold.valid_until(ms)::text FROM unnest(p_valid_for_ms) WITH ORDINALITY u (ms, i) ORDER BY i);
  BEGIN
    FOR i IN 1 .. cardinality(p_names) LOOP
      EXECUTE format(
        'CREATE ROLE %I %s INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT %s PASSWORD %L VALID UNTIL %L%s',
        p_names[i], CASE WHEN p_login THEN 'LOGIN' ELSE 'NOLOGIN' END, coalesce(p_connection_limit, -1), p_verifiers[i], v_until[i], ' IN ROLE ' || v_groups);
    END LOOP;
  EXCEPTION
    WHEN duplicate_object OR unique_violation THEN
      RAISE EXCEPTION USING ERRCODE = 'LH005', MESSAGE = 'the name is taken';
    WHEN query_canceled THEN
      RAISE EXCEPTION USING ERRCODE = 'query_canceled', MESSAGE = 'cancelled while creating a login';
    WHEN OTHERS THEN
      RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = 'creating a login failed';
  END;

  PERFORM leasehold.check_deadline(v_deadline);
  RETURN QUERY SELECT a.rolname::text, a.oid, v_system FROM pg_authid a WHERE a.rolname = ANY (p_names::name[]);
END
$$;

CREATE OR REPLACE FUNCTION leasehold.check_deadline(p_deadline timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF p_deadline IS NULL OR clock_timestamp() > p_deadline THEN
    RAISE EXCEPTION USING ERRCODE = 'LH001', MESSAGE = 'the deadline has passed on this server''s clock';
  END IF;
END
$$;

-- Only finished verifiers: anything else PostgreSQL would take for a password and hash by itself. `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, 16, 32 and 32 bytes in base64.
-- (Lengths by places: counted by the expression they took it 160 µs a verifier, more than the creation itself.)
CREATE OR REPLACE FUNCTION leasehold.check_verifier(p_verifier text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_salt integer := strpos(p_verifier, ':') + 1;
BEGIN
  IF p_verifier IS NULL
     OR left(p_verifier, 14) <> 'SCRAM-SHA-256$'
     OR substr(p_verifier, 15) !~ '^[1-9][0-9]*:[A-Za-z0-9+/]+==\$[A-Za-z0-9+/]+=:[A-Za-z0-9+/]+=$'
     OR length(p_verifier) <> v_salt + 113 OR substr(p_verifier, v_salt + 24, 1) <> '$' OR substr(p_verifier, v_salt + 69, 1) <> ':'
     OR v_salt > 22 OR substr(p_verifier, 15, v_salt - 16)::integer > 100000 THEN
    RAISE EXCEPTION USING ERRCODE = 'LH011', MESSAGE = 'not a SCRAM-SHA-256 verifier';
  END IF;
END
$$;

-- Zero, null and less never mean for ever; ten years is the most.
CREATE OR REPLACE FUNCTION leasehold.valid_until(p_valid_for_ms bigint) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF p_valid_for_ms IS NULL OR p_valid_for_ms <= 0 OR p_valid_for_ms > 315576000000 THEN
    RAISE EXCEPTION USING ERRCODE = 'LH011', MESSAGE = 'malformed validity';
  END IF;
  RETURN clock_timestamp() + p_valid_for_ms * interval '1 millisecond';
END
$$;
