-- Who calls: what other definitions ask of the session. Roles belong to the server, and are made before.

DO $$ BEGIN
  IF (SELECT count(*) FROM pg_roles WHERE rolname IN ('easeml_worker', 'easeml_referee')) < 2 THEN
    RAISE EXCEPTION 'the roles easeml_worker and easeml_referee must exist before the schema; see docs/install.md';
  END IF;
END $$;

-- The login that acts. "role" is what SET ROLE has chosen, also within a function that runs with its owner's rights,
-- where current_user is the owner; without a SET ROLE it is 'none', which no role can be called. A group's name is
-- nobody's: before PostgreSQL 16 a member can take it with SET ROLE, and would be another login.
CREATE FUNCTION work.caller() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN current_setting('role') IN ('none', 'easeml_tenant', 'easeml_device') THEN session_user::text
  ELSE current_setting('role') END;

-- 'role' is one of the installation's roles. Only these are believed where they say for whom they act.
CREATE FUNCTION work.kind_of_caller() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN starts_with(work.caller(), 'easeml_t_') THEN 'tenant'
  WHEN work.caller() = 'easeml_device' OR starts_with(work.caller(), 'easeml_d_') THEN 'device'
  WHEN work.caller() IN ('easeml_viewer', 'easeml_person') THEN 'person' ELSE 'role' END;

-- Words of others are made to fit: what somebody calls themselves must not keep a change from being made.
CREATE FUNCTION work.audit_word(words text, most integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT nullif(btrim(left(regexp_replace(words, '[[:cntrl:]]', ' ', 'g'), most)), '')
$$;

-- What a login says of itself stands behind its name, in brackets.
CREATE FUNCTION work.asker(words text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN work.kind_of_caller() NOT IN ('tenant', 'device') OR work.audit_word(words, 200) = work.caller()
  THEN work.audit_word(words, 200)
  ELSE left(work.caller() || coalesce(' (' || work.audit_word(words, 200) || ')', ''), 200) END;

-- The hash of the lease that the present transaction shows; NULL without one.
CREATE FUNCTION work.lease() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN encode(sha256(convert_to(nullif(current_setting('easeml.lease', true), ''), 'UTF8')), 'hex');

-- How long a lease of a tenant or a device may be: the study's setting, at most an hour.
CREATE FUNCTION work.lease_seconds(training jsonb) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN least(3600, greatest(1, coalesce((training ->> 'lease_seconds')::double precision, 60)));

-- How many devices a trial holds: its device seconds are so many times the seconds on the clock.
CREATE FUNCTION work.device_weight(device text) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN position(':' IN device) > 0 THEN split_part(device, ':', 2)::double precision
  WHEN position('/' IN device) > 0 THEN 1 / split_part(device, '/', 2)::double precision ELSE 1 END;

-- Whether a candidate may run on what is offered; the rule of easeml_core/settings/device_requests.py.
CREATE FUNCTION work.device_fits(devices jsonb, offered text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN devices IS NULL THEN coalesce(offered !~ '[:/]', true)
  WHEN offered IS NULL THEN jsonb_path_exists(devices, 'strict $[*] ? (!(@ like_regex "[:/]"))')
  ELSE jsonb_exists(devices, offered) END;
