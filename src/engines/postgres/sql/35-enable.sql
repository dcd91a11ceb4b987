-- Turns logins that were made unable to log in (create_logins with p_login false) into usable ones, all or none. Fenced as a creation is: after the deadline, on this server's clock, nothing happens.
-- A row per login; one that is gone is an error, for its lease was about to be answered.
CREATE OR REPLACE FUNCTION leasehold.enable_logins(p_instance text, p_names text[], p_oids oid[], p_valid_for_ms bigint[], p_deadline_ms bigint, p_system text)
RETURNS TABLE (login text, role_oid oid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
AS $$
DECLARE
  v_deadline timestamptz := to_timestamp(p_deadline_ms / 1000.0);
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  PERFORM leasehold.check_server(p_system);
  PERFORM leasehold.check_deadline(v_deadline);
  PERFORM leasehold.check_lengths(cardinality(p_names), cardinality(p_oids), cardinality(p_valid_for_ms));
  FOR i IN 1 .. cardinality(p_names) LOOP
    role_oid := leasehold.locate(p_instance, p_names[i], p_oids[i]);
    IF role_oid IS NULL THEN
      RAISE EXCEPTION USING ERRCODE = 'LH013', MESSAGE = 'the login is gone';
    END IF;
    EXECUTE format('ALTER ROLE %I LOGIN VALID UNTIL %L', p_names[i], leasehold.valid_until(p_valid_for_ms[i]));
    PERFORM leasehold.check_still(p_names[i], role_oid);
    login := p_names[i];
    RETURN NEXT;
  END LOOP;
  PERFORM leasehold.check_deadline(v_deadline);
END
$$;
