-- What a disabled login owns or was granted, and what becomes of it.

-- Where pg_shdepend names the role: a row per database; database_name is null for objects shared by the whole server.
CREATE OR REPLACE FUNCTION leasehold.owned_objects(p_instance text, p_name text, p_oid oid) RETURNS TABLE (database_name text, objects bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_oid oid;
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  v_oid := leasehold.locate(p_instance, p_name, p_oid);
  RETURN QUERY SELECT b.datname::text, count(*) FROM pg_shdepend d LEFT JOIN pg_database b ON b.oid = d.dbid
    WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = v_oid GROUP BY b.datname;
END
$$;

-- Settles this database's share. p_new_owner null: the objects are dropped (never CASCADE). Else they go to that role, which must be a
-- NOLOGIN group the lease is a member of, hence without a right the lease lacks, and allowed to this instance.
-- Routines lose SECURITY DEFINER first: under the new owner they would run with its rights for whoever calls them.
CREATE OR REPLACE FUNCTION leasehold.settle_owned(p_instance text, p_name text, p_oid oid, p_system text, p_new_owner text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_oid oid;
  v_routine regprocedure;
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  PERFORM leasehold.check_server(p_system);
  v_oid := leasehold.locate(p_instance, p_name, p_oid);
  IF v_oid IS NULL THEN
    RETURN;
  END IF;
  PERFORM leasehold.check_disabled(v_oid);
  PERFORM leasehold.lock_statements();
  FOR v_routine IN SELECT p.oid FROM pg_proc p WHERE p.proowner = v_oid AND p.prosecdef LOOP
    EXECUTE format('ALTER ROUTINE %s SECURITY INVOKER', v_routine);
  END LOOP;
  IF p_new_owner IS NOT NULL THEN
    PERFORM leasehold.check_new_owner(p_instance, v_oid, p_new_owner);
    EXECUTE format('REASSIGN OWNED BY %I TO %I', p_name, p_new_owner);
    IF EXISTS (SELECT FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = v_oid AND d.deptype = 'o'
               AND d.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass, 'pg_auth_members'::regclass) -- go with DROP OWNED
               AND d.dbid IN (0, (SELECT b.oid FROM pg_database b WHERE b.datname = current_database()))) THEN
      RAISE EXCEPTION USING ERRCODE = 'LH009', MESSAGE = 'objects are left after reassigning';
    END IF;
  END IF;
  -- After a reassignment this only takes back the privileges that the role was granted.
  EXECUTE format('DROP OWNED BY %I RESTRICT', p_name);
  PERFORM leasehold.check_still(p_name, v_oid);
END
$$;

CREATE OR REPLACE FUNCTION leasehold.check_new_owner(p_instance text, p_lease oid, p_new_owner text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF leasehold.group_problem(p_instance, p_new_owner) IS NOT NULL
     OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = p_new_owner AND NOT r.rolcanlogin AND pg_has_role(p_lease, r.oid, 'MEMBER')) THEN
    RAISE EXCEPTION USING ERRCODE = 'LH012', MESSAGE = 'objects may only go to an allowed NOLOGIN group that the login is a member of';
  END IF;
END
$$;
