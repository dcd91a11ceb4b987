-- The witness: a NOLOGIN role lh_w_<instance>_<epoch> whose comment is the newest mark that a ledger of this instance has left here (docs/adr/0010). Whoever finds a mark that its own ledger
-- does not know works on another history than the one that was here last.

CREATE OR REPLACE FUNCTION leasehold.witness(p_instance text) RETURNS TABLE (epoch bigint, mark text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = 'in recovery';
  END IF;
  RETURN QUERY SELECT substring(a.rolname::text FROM '[0-9]+$')::bigint AS e, coalesce(shobj_description(a.oid, 'pg_authid'), '') FROM pg_authid a
    WHERE a.rolname ~ ('^lh_w_' || p_instance || '_[1-9][0-9]{0,17}$') AND NOT a.rolcanlogin ORDER BY e DESC LIMIT 1;
END
$$;

-- Compare-and-set from the mark p_from (null: there is no witness yet); false when another was faster. The epoch never goes back.
CREATE OR REPLACE FUNCTION leasehold.move_witness(p_instance text, p_from text, p_epoch bigint, p_to text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_now record;
  v_name text := 'lh_w_' || p_instance || '_' || p_epoch;
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  PERFORM leasehold.check_server(NULL);
  IF p_to IS NULL OR p_to !~ '^[0-9a-f-]{36}$' OR p_epoch IS NULL OR p_epoch < 1 OR p_epoch > 999999999999999999 THEN
    RAISE EXCEPTION USING ERRCODE = 'LH011', MESSAGE = 'malformed witness';
  END IF;
  -- The instance's row, for which one needs a right: any login here could hold an advisory lock, and so every first look at this target up, and with it every revocation.
  PERFORM FROM leasehold.instance WHERE name = p_instance FOR UPDATE;
  SELECT w.epoch, w.mark INTO v_now FROM leasehold.witness(p_instance) w;
  IF NOT FOUND THEN
    IF p_from IS NOT NULL THEN
      RETURN false;
    END IF;
    EXECUTE format('CREATE ROLE %I NOLOGIN', v_name);
  ELSIF p_from IS DISTINCT FROM v_now.mark OR v_now.epoch > p_epoch THEN
    RETURN false;
  ELSIF v_now.epoch < p_epoch THEN
    EXECUTE format('ALTER ROLE %I RENAME TO %I', 'lh_w_' || p_instance || '_' || v_now.epoch, v_name);
  END IF;
  EXECUTE format('COMMENT ON ROLE %I IS %L', v_name, p_to);
  RETURN true;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA leasehold FROM PUBLIC;
