-- Logins that applications have already and whose passwords a rotation may set: the superuser names each one. By oid, so that a role renamed into an allowed name gains nothing.
-- The fence: whose candidate was set last, and when. It moves in the transaction that sets the password, under the row's lock.
CREATE TABLE IF NOT EXISTS leasehold.static_login (
  instance text NOT NULL REFERENCES leasehold.instance (name) ON DELETE CASCADE,
  role oid NOT NULL,
  rotation text NOT NULL DEFAULT '',
  generation bigint NOT NULL DEFAULT 0,
  set_at timestamptz NOT NULL DEFAULT '-infinity',
  PRIMARY KEY (instance, role)
);
REVOKE ALL ON leasehold.static_login FROM PUBLIC;

-- Null when the password may be set; else `missing`, `too_powerful`, `not_allowed` or `not_a_member`. Asked anew each time: a login that was harmless when it was allowed may have become powerful.
-- Every predefined role is too much (pg_database_owner has only whom a database belongs to), and so are a broker's own logins and leased ones, by what `too_powerful` refuses.
CREATE OR REPLACE FUNCTION leasehold.static_login_problem(p_instance text, p_login text, p_owner text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_oid oid := (SELECT oid FROM pg_roles WHERE rolname = p_login);
BEGIN
  IF v_oid IS NULL THEN
    RETURN 'missing';
  END IF;
  IF p_login = session_user OR leasehold.too_powerful(v_oid)
     OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname LIKE 'pg\_%' AND r.rolname <> 'pg_database_owner' AND pg_has_role(v_oid, r.oid, 'MEMBER')) THEN
    RETURN 'too_powerful';
  END IF;
  IF NOT EXISTS (SELECT FROM leasehold.static_login s WHERE s.instance = p_instance AND s.role = v_oid) THEN
    RETURN 'not_allowed';
  END IF;
  IF p_owner IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles o WHERE o.rolname = p_owner AND NOT o.rolcanlogin AND pg_has_role(v_oid, o.oid, 'MEMBER')) THEN
    RETURN 'not_a_member';
  END IF;
  RETURN NULL;
END
$$;

-- The logins of p_logins that can't be set, and why. For preflight.
CREATE OR REPLACE FUNCTION leasehold.problem_static_logins(p_instance text, p_logins text[], p_owner text) RETURNS TABLE (login text, problem text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  RETURN QUERY SELECT l, leasehold.static_login_problem(p_instance, l, p_owner) FROM unnest(p_logins) l
    WHERE leasehold.static_login_problem(p_instance, l, p_owner) IS NOT NULL;
END
$$;

-- Sets the password of one allowed login. Refused after the deadline of this server's clock; and, within two minutes of the last change, for an older generation of the same rotation and for any other rotation:
-- a worker that was frozen meanwhile can't put an old candidate over a newer one (attack.md finding 18). No deadline is further away than these two minutes, so whoever comes with an older generation after
-- them is no worker left behind: the broker's store was restored, or the rotation was made anew. The same generation again is the same work again; true says that it had been done, so that the answer was
-- lost. p_owner: a NOLOGIN role that the login must be a member of, or null. Open sessions go on.
CREATE OR REPLACE FUNCTION leasehold.set_static_login(p_instance text, p_login text, p_owner text, p_verifier text, p_rotation text, p_generation bigint, p_deadline_ms bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_deadline timestamptz := to_timestamp(p_deadline_ms / 1000.0);
  v_oid oid := (SELECT oid FROM pg_roles WHERE rolname = p_login);
  v_last record;
  v_problem text;
BEGIN
  PERFORM leasehold.check_caller(p_instance);
  PERFORM leasehold.check_server(NULL);
  PERFORM leasehold.check_verifier(p_verifier);
  IF p_rotation IS NULL OR p_rotation !~ '^[0-9a-f-]{36}$' OR p_generation IS NULL OR p_generation < 1 OR v_deadline > clock_timestamp() + interval '2 minutes' THEN
    RAISE EXCEPTION USING ERRCODE = 'LH011', MESSAGE = 'malformed fence';
  END IF;
  -- The row's lock, and not an advisory one: whoever may set this login has to come by it, and it is free by itself at the end.
  SELECT s.rotation, s.generation, s.set_at INTO v_last FROM leasehold.static_login s WHERE s.instance = p_instance AND s.role = v_oid FOR UPDATE;
  PERFORM leasehold.check_deadline(v_deadline);
  v_problem := leasehold.static_login_problem(p_instance, p_login, p_owner);
  IF v_problem IS NOT NULL THEN
    RAISE EXCEPTION USING MESSAGE = 'login ' || v_problem,
      ERRCODE = CASE v_problem WHEN 'missing' THEN 'LH013' WHEN 'too_powerful' THEN 'LH006' WHEN 'not_a_member' THEN 'LH016' ELSE 'LH014' END;
  END IF;
  IF v_last.set_at > clock_timestamp() - interval '2 minutes' THEN
    IF v_last.rotation <> p_rotation THEN
      RAISE EXCEPTION USING ERRCODE = 'LH017', MESSAGE = 'another rotation has just set this login';
    ELSIF p_generation < v_last.generation THEN
      RAISE EXCEPTION USING ERRCODE = 'LH015', MESSAGE = 'a newer candidate was set';
    END IF;
  END IF;
  BEGIN
    EXECUTE format('ALTER ROLE %I PASSWORD %L', p_login, p_verifier);
  EXCEPTION
    WHEN query_canceled THEN
      RAISE EXCEPTION USING ERRCODE = 'query_canceled', MESSAGE = 'cancelled while setting a login';
    WHEN OTHERS THEN
      RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = 'setting a login failed';
  END;
  -- By name the role was found and by name it was altered: not one that took the name in between.
  PERFORM leasehold.check_still(p_login, v_oid);
  UPDATE leasehold.static_login SET rotation = p_rotation, generation = p_generation, set_at = clock_timestamp() WHERE instance = p_instance AND role = v_oid;
  PERFORM leasehold.check_deadline(v_deadline);
  RETURN v_last.rotation = p_rotation AND v_last.generation = p_generation;
END
$$;

-- The list of allowed logins, whole. For superusers alone. A login that stays keeps its fence.
CREATE OR REPLACE FUNCTION leasehold.setup_static_logins(p_instance text, p_logins text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v_problem text;
BEGIN
  DELETE FROM leasehold.static_login s WHERE s.instance = p_instance AND s.role <> ALL (ARRAY(SELECT r.oid FROM pg_roles r WHERE r.rolname = ANY (p_logins)));
  INSERT INTO leasehold.static_login (instance, role) SELECT DISTINCT p_instance, r.oid FROM pg_roles r WHERE r.rolname = ANY (p_logins) ON CONFLICT DO NOTHING;
  SELECT l || ': ' || leasehold.static_login_problem(p_instance, l, NULL) INTO v_problem
    FROM unnest(p_logins) l WHERE leasehold.static_login_problem(p_instance, l, NULL) IS NOT NULL LIMIT 1;
  IF v_problem IS NOT NULL THEN
    RAISE EXCEPTION 'login %', v_problem;
  END IF;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA leasehold FROM PUBLIC;
