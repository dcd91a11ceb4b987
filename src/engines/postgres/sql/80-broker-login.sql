-- The broker's own login has a twin, and they take turns: who is logged in as one may set the other's password, and nothing else. So a rotation never touches the password in use.
-- The twin is a login that is a member of this instance's broker role already, or `leasehold_<instance>_2`, which is made. Fenced by a deadline, as creations are.
CREATE OR REPLACE FUNCTION leasehold.set_broker_login(p_instance text, p_login text, p_verifier text, p_deadline_ms bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_broker text := 'leasehold_broker_' || p_instance;
  v_twin boolean;
  v_deadline timestamptz := to_timestamp(p_deadline_ms / 1000.0);
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  PERFORM leasehold.check_server(NULL);
  PERFORM leasehold.check_deadline(v_deadline);
  PERFORM leasehold.check_verifier(p_verifier);
  SELECT CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = p_login)
    -- A direct member alone, without any power of its own: an application's login that was made a member by mistake keeps its password.
    THEN EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member JOIN pg_roles b ON b.oid = m.roleid
                 WHERE r.rolname = p_login AND b.rolname = v_broker AND r.rolcanlogin
                   AND NOT (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls)
                   AND NOT EXISTS (SELECT FROM pg_auth_members o WHERE o.member = r.oid AND o.roleid <> b.oid))
    ELSE p_login = 'leasehold_' || p_instance || '_2' END INTO v_twin;
  IF p_login IS NULL OR p_login = session_user OR v_twin IS NOT TRUE THEN
    RAISE EXCEPTION USING ERRCODE = 'LH006', MESSAGE = 'not a twin of this login';
  END IF;
  BEGIN
    PERFORM leasehold.setup_login(v_broker, p_login, p_verifier);
  EXCEPTION
    WHEN query_canceled THEN
      RAISE EXCEPTION USING ERRCODE = 'query_canceled', MESSAGE = 'cancelled while setting a login';
    WHEN OTHERS THEN
      RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = 'setting a login failed';
  END;
  PERFORM leasehold.check_deadline(v_deadline);
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA leasehold FROM PUBLIC;
