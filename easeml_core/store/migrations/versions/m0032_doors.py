"""What logins of tenants and devices need in the schema: locks that are rows, changes that are only added to, leases
by token, and functions for what a tenant may change (ADR 0032)."""

from alembic import op

revision = "0032"
down_revision = "0031"

# A tenant's login has no right on it. PostgreSQL gives every role every advisory lock.
LOCKS = """
CREATE TABLE work.locks (
  name  text CONSTRAINT locks_pkey PRIMARY KEY,
  held  boolean NOT NULL DEFAULT false
);
INSERT INTO work.locks (name) SELECT unnest(ARRAY['suggest', 'assess', 'row registry'])
  UNION ALL SELECT 'other ' || k FROM generate_series(0, 15) k;
GRANT SELECT, UPDATE (held) ON work.locks TO easeml_worker, easeml_referee;
"""

# A transaction that has registered something held the row of work.catalogue until it ended, and a tenant can keep one
# open. Its version is now that row's, plus how many changes were added since; the one that finds many folds them in,
# and none waits for the row.
CATALOGUE = """
CREATE TABLE work.catalogue_changes (
  xact  xid8 CONSTRAINT catalogue_changes_pkey PRIMARY KEY DEFAULT pg_current_xact_id()
);
GRANT SELECT ON work.catalogue_changes TO easeml_worker, easeml_referee;

CREATE OR REPLACE FUNCTION work.catalogue_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE folded bigint;
BEGIN
  INSERT INTO work.catalogue_changes DEFAULT VALUES ON CONFLICT DO NOTHING;
  IF FOUND AND (SELECT count(*) FROM work.catalogue_changes) > 1000 THEN
    PERFORM FROM work.catalogue FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
      WITH seen AS (SELECT xact FROM work.catalogue_changes WHERE xact <> pg_current_xact_id()
          FOR UPDATE SKIP LOCKED),
        gone AS (DELETE FROM work.catalogue_changes WHERE xact IN (SELECT xact FROM seen) RETURNING xact)
      SELECT count(*) INTO folded FROM gone;
      UPDATE work.catalogue SET version = version + folded;
    END IF;
  END IF;
  RETURN NULL;
END $$;
"""

# The limits of a tenant are checked with the owner's rights: a role that adds a trial cannot always lock the tenant.
LIMITS = """
ALTER FUNCTION work.trials_within_limits() SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION work.studies_within_limits() SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION work.tenants_within_limits() SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

CREATE OR REPLACE FUNCTION work.studies_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT ((OLD.state = 'REGISTERED' AND NEW.state IN ('ACTIVE', 'REFUSED') AND (current_user = 'easeml_referee'
           OR pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE')))
       OR (OLD.state IN ('ACTIVE', 'PAUSED') AND NEW.state IN ('ACTIVE', 'PAUSED')))
  THEN
    RAISE EXCEPTION 'study % cannot go from % to %', OLD.name, OLD.state, NEW.state
      USING ERRCODE = 'check_violation', CONSTRAINT = 'studies_forward_check';
  END IF;
  RETURN NEW;
END $$;
"""

# Whether the caller may have a study, its pause and its trials: a tenant's login its own ones, a device every trial.
CALLERS = """
CREATE FUNCTION work.may_change(study bigint, devices boolean) RETURNS boolean LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (devices AND work.caller() = 'easeml_device')
  OR EXISTS (SELECT FROM work.studies WHERE id = study AND tenant_id = ANY (work.my_tenants()));
REVOKE EXECUTE ON FUNCTION work.may_change(bigint, boolean) FROM PUBLIC;

CREATE FUNCTION work.set_study_paused(study bigint, paused boolean) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT work.may_change(study, false) THEN
    RETURN false;
  END IF;
  UPDATE work.studies SET state = CASE WHEN paused THEN 'PAUSED' ELSE 'ACTIVE' END
    WHERE id = study AND state = CASE WHEN paused THEN 'ACTIVE' ELSE 'PAUSED' END;
  RETURN FOUND;
END $$;
REVOKE EXECUTE ON FUNCTION work.set_study_paused(bigint, boolean) FROM PUBLIC;

CREATE FUNCTION work.cancel_trial(trial bigint) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM work.trials t WHERE t.id = trial AND work.may_change(t.study_id, false)) THEN
    RETURN false;
  END IF;
  UPDATE work.trials SET cancel_requested = true,
    state = CASE WHEN state = 'SUGGESTED' THEN 'CANCELLED' ELSE state END,
    finished_at = CASE WHEN state = 'SUGGESTED' THEN clock_timestamp() ELSE finished_at END
    WHERE id = trial AND state IN ('SUGGESTED', 'RUNNING');
  RETURN FOUND;
END $$;
REVOKE EXECUTE ON FUNCTION work.cancel_trial(bigint) FROM PUBLIC;
"""

# The hash of the lease that the present transaction shows; NULL without one.
LEASES = r"""
ALTER TABLE work.trials ADD COLUMN lease_hash text CONSTRAINT trials_lease_hash_check CHECK (
  lease_hash ~ '^[0-9a-f]{64}$');

CREATE FUNCTION work.lease() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN encode(sha256(convert_to(nullif(current_setting('easeml.lease', true), ''), 'UTF8')), 'hex');

-- A new attempt makes the token of the one before worthless, also where another role begins it.
CREATE FUNCTION work.trials_lease_ends() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.lease_hash := NULL;
  RETURN NEW;
END $$;
CREATE TRIGGER trials_lease_ends BEFORE UPDATE ON work.trials FOR EACH ROW
  WHEN (NEW.attempt > OLD.attempt AND NEW.lease_hash IS NOT DISTINCT FROM OLD.lease_hash)
  EXECUTE FUNCTION work.trials_lease_ends();

-- Takes a trial's lease, and makes its token, of which the hash alone is kept. What services/trials/claiming.py
-- does for the role easeml_worker, in one statement. The outcome is claimed, ended, held, or elsewhere (another
-- implementation is named by the candidate: the trial is given back); NULL where the caller has no such trial.
CREATE FUNCTION work.claim_trial(trial bigint, key text, with_executor text, with_details jsonb,
  OUT outcome text, OUT token text) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  t work.trials;
  settings jsonb;
  saved double precision;
  wall double precision;
  counted integer;
  is_late boolean;
BEGIN
  -- Without waiting, and so that a foreign key to this trial does not wait for it: a tenant may keep its transaction
  -- open for hours.
  SELECT * INTO t FROM work.trials WHERE id = trial AND work.may_change(study_id, true) FOR NO KEY UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    outcome := (SELECT 'held' FROM work.trials WHERE id = trial AND work.may_change(study_id, true));
    RETURN;
  END IF;
  settings := (SELECT config -> 'training' FROM work.studies WHERE id = t.study_id);
  IF t.finished_at IS NOT NULL THEN
    outcome := 'ended';
    RETURN;
  END IF;
  IF t.state = 'RUNNING' THEN
    IF t.lease_until >= now() AND t.lease_key IS DISTINCT FROM key THEN
      outcome := 'held';
      RETURN;
    END IF;
    saved := coalesce(t.checkpoint_seconds, 0);
    wall := greatest(0, extract(epoch FROM least(t.lease_until, CASE WHEN t.lease_hash IS NULL
      THEN coalesce(t.beat_at, clock_timestamp()) ELSE clock_timestamp() END) - t.attempt_started_at));
    UPDATE work.trials SET state = 'SUGGESTED', lease_key = NULL, lease_until = NULL, lost_seconds = least(
        limit_seconds - saved, 1e9, lost_seconds + greatest(0, wall - (saved - resumed_seconds)))
      WHERE id = trial RETURNING * INTO t;
  END IF;
  saved := coalesce(t.checkpoint_seconds, 0);
  counted := t.attempt - t.excused;
  is_late := counted < (settings ->> 'max_attempts')::int;
  IF t.cancel_requested OR NOT is_late OR t.limit_seconds - t.lost_seconds - saved < 0.5 THEN
    UPDATE work.trials SET state = CASE WHEN cancel_requested THEN 'CANCELLED' ELSE 'FAILED' END,
        failure = CASE WHEN NOT cancel_requested THEN CASE WHEN is_late
          THEN 'lost workers used up what was reserved for it'
          ELSE 'its worker was lost ' || counted || ' times' END END,
        finished_at = clock_timestamp() WHERE id = trial;
    outcome := 'ended';
    RETURN;
  END IF;
  IF NOT EXISTS (SELECT FROM work.candidates WHERE id = t.candidate_id AND implementation = with_executor) THEN
    UPDATE work.trials SET lease_until = NULL WHERE id = trial;
    outcome := 'elsewhere';
    RETURN;
  END IF;
  token := replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
  UPDATE work.trials SET state = 'RUNNING', attempt = attempt + 1, lease_key = key, progress = NULL, last_key = key,
      last_try = nullif(current_setting('easeml.try', true), '')::int,
      executor = with_executor, executor_details = with_details, resumed_seconds = saved,
      attempt_started_at = clock_timestamp(), started_at = coalesce(started_at, clock_timestamp()),
      lease_until = clock_timestamp() + make_interval(secs => least(
        work.lease_seconds(settings), limit_seconds - saved - lost_seconds)),
      lease_hash = encode(sha256(convert_to(token, 'UTF8')), 'hex')
    WHERE id = trial;
  outcome := 'claimed';
END $$;
REVOKE EXECUTE ON FUNCTION work.claim_trial(bigint, text, text, jsonb) FROM PUBLIC;

-- How long a lease of a tenant or a device may be: the study's setting, at most an hour.
CREATE FUNCTION work.lease_seconds(training jsonb) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN least(3600, greatest(1, coalesce((training ->> 'lease_seconds')::double precision, 60)));

-- What a tenant or a device reports of an attempt. Which rows it may have is a policy (store/grants.py): that of the
-- lease that it shows. Seconds are at most those between the claim and now, by this clock; what an attempt leaves out
-- of them at its end, beyond half a minute and a tenth for overhead, is charged as lost.
CREATE FUNCTION work.trials_by_lease() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  now_is timestamptz := clock_timestamp();
  wall double precision := greatest(1e-6, extract(epoch FROM now_is - OLD.attempt_started_at));
  most double precision := OLD.resumed_seconds + wall;
  stated double precision;
BEGIN
  IF NEW.cost_seconds > most THEN  -- NaN is above every number
    NEW.cost_seconds := most;
  END IF;
  IF NEW.start_seconds > greatest(0, most - NEW.cost_seconds) THEN
    NEW.start_seconds := greatest(0, most - NEW.cost_seconds);
  END IF;
  IF NEW.checkpoint_seconds > most THEN
    NEW.checkpoint_seconds := most;
  END IF;
  IF NEW.resumed_seconds <> 0 THEN  -- a checkpoint that cannot be used is forgotten, and nothing else
    NEW.resumed_seconds := OLD.resumed_seconds;
  END IF;
  -- Pages read it with every list of trials, and Python refuses numbers of very many digits.
  IF octet_length(NEW.progress::text) > 20000 OR NEW.progress::text ~ '[0-9]{250}' THEN
    NEW.progress := OLD.progress;
  END IF;
  NEW.failure := left(NEW.failure, 4000);
  NEW.lost_seconds := greatest(OLD.lost_seconds, least(NEW.lost_seconds, OLD.lost_seconds + most));
  IF NEW.state = 'RUNNING' THEN
    NEW.lease_key := OLD.lease_key;
    NEW.lease_until := least(NEW.lease_until, now_is + make_interval(secs => work.lease_seconds(
      (SELECT config -> 'training' FROM work.studies WHERE id = NEW.study_id))));
  ELSE
    NEW.lease_key := NULL;
    NEW.lease_until := NULL;
    stated := coalesce(NEW.cost_seconds, 0) + coalesce(NEW.start_seconds, 0)
      + CASE WHEN NEW.cost_seconds IS NULL THEN coalesce(NEW.checkpoint_seconds, 0) ELSE 0 END;
    NEW.lost_seconds := greatest(NEW.lost_seconds, least(
      NEW.limit_seconds - stated, OLD.lost_seconds + 0.9 * wall - 30 - greatest(0, stated - OLD.resumed_seconds)));
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER trials_by_lease BEFORE UPDATE ON work.trials FOR EACH ROW
  WHEN (current_user NOT IN ('easeml_worker', 'easeml_referee', 'easeml_scheduler')
    AND NOT pg_has_role(current_user, 'easeml_owner', 'USAGE'))
  EXECUTE FUNCTION work.trials_by_lease();

-- All tenants wait for a decision over all candidates. Other roles' programs count before they add any.
CREATE FUNCTION work.candidates_of_tenants() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM work.candidates WHERE study_id IN (SELECT study_id FROM added)
             GROUP BY study_id HAVING count(*) > 1000) THEN
    RAISE EXCEPTION 'a study has at most 1000 candidates'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'candidates_of_tenants_check';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER candidates_of_tenants AFTER INSERT ON work.candidates REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT WHEN (starts_with(current_user::text, 'easeml_t_')) EXECUTE FUNCTION work.candidates_of_tenants();

-- The scheduler learns from the cost that the trial was charged, not from another one that is said beside it.
CREATE FUNCTION work.observations_by_lease() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.cost_seconds := (SELECT cost_seconds FROM work.trials WHERE id = NEW.trial_id);
  RETURN NEW;
END $$;
CREATE TRIGGER observations_by_lease BEFORE INSERT ON work.observations FOR EACH ROW
  WHEN (current_user NOT IN ('easeml_worker', 'easeml_referee', 'easeml_scheduler')
    AND NOT pg_has_role(current_user, 'easeml_owner', 'USAGE'))
  EXECUTE FUNCTION work.observations_by_lease();
"""


def upgrade() -> None:
    for block in (LOCKS, CATALOGUE, LIMITS, CALLERS, LEASES):
        op.execute(block)
