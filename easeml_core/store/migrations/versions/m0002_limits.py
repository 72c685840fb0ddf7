"""Limits of tenants and studies, what candidates may run on, and a stamp of everything a scheduler must know.

"No budget exceeded" is kept here: an open trial is charged with the seconds reserved for it (``limit_seconds``, all its
attempts together), an ended one with what its attempts took. A trial cannot take more than its reservation, so a sum
can only grow where a reservation is made or a limit is lowered; there it is checked, with the tenant's row locked.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

COLUMNS = """
ALTER TABLE work.tenants
  ADD COLUMN max_parallel integer,
  ADD COLUMN quota_seconds double precision,
  ADD CONSTRAINT tenants_max_parallel_check CHECK (max_parallel >= 1),
  ADD CONSTRAINT tenants_quota_check CHECK (quota_seconds > 0 AND quota_seconds < 'Infinity');

ALTER TABLE work.studies
  ADD COLUMN priority integer NOT NULL DEFAULT 0,
  ADD COLUMN deadline timestamptz,
  ADD COLUMN target_quality double precision,
  ADD COLUMN active_since timestamptz,
  ADD CONSTRAINT studies_priority_check CHECK (priority BETWEEN -100 AND 100),
  -- Python knows no year beyond 9999 and none before 1: one such row would stop whoever reads all studies.
  ADD CONSTRAINT studies_deadline_check CHECK (deadline >= '2000-01-01 00:00+00' AND deadline < '3000-01-01 00:00+00'),
  ADD CONSTRAINT studies_target_check CHECK (target_quality > 0 AND target_quality <= 1);
UPDATE work.studies SET active_since = created_at WHERE state IN ('ACTIVE', 'PAUSED');

ALTER TABLE work.candidates
  ADD COLUMN devices jsonb,
  ADD CONSTRAINT candidates_devices_check CHECK (
    jsonb_typeof(devices) = 'array' AND jsonb_array_length(devices) BETWEEN 1 AND 20
    AND NOT jsonb_path_exists(devices, 'strict $[*] ? (@.type() != "string")')
    AND NOT jsonb_path_exists(devices, 'strict $[*] ? (!(@ like_regex "^[a-z0-9][a-z0-9_.-]{0,62}$"))'));

ALTER TABLE work.trials
  ADD COLUMN device text,
  ADD COLUMN limit_seconds double precision,
  ADD COLUMN lost_seconds double precision NOT NULL DEFAULT 0,
  ADD COLUMN attempt_started_at timestamptz,
  ADD CONSTRAINT trials_device_check CHECK (device ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  ADD CONSTRAINT trials_lost_check CHECK (lost_seconds >= 0 AND lost_seconds <= 1e9),
  -- What every sum relies on: a trial never takes more than was reserved for it.
  ADD CONSTRAINT trials_limit_check CHECK (
    limit_seconds > 0 AND limit_seconds <= 1e9 AND lost_seconds + coalesce(cost_seconds, 0) <= limit_seconds);
UPDATE work.trials SET attempt_started_at = coalesce(started_at, now()) WHERE state = 'RUNNING';
-- An attempt without a beginning, or with one in a far past, could not be charged.
ALTER TABLE work.trials
  ADD CONSTRAINT trials_attempt_start_check CHECK (state <> 'RUNNING' OR attempt_started_at IS NOT NULL),
  ADD CONSTRAINT trials_attempt_time_check
    CHECK (attempt_started_at >= '2000-01-01 00:00+00' AND attempt_started_at < '3000-01-01 00:00+00');
"""

# The first schema kept no budget: one that was exceeded is raised to what was used, and trials that are open now share
# what is left (a little less, so that no sum is beyond it by rounding).
PRESENT = """
CREATE TABLE work.present AS
SELECT s.id, count(t.id) FILTER (WHERE t.finished_at IS NULL) AS open, coalesce(sum(t.cost_seconds), 0) AS used
FROM work.studies s JOIN work.trials t ON t.study_id = s.id WHERE s.budget_seconds IS NOT NULL GROUP BY s.id;
UPDATE work.studies s SET budget_seconds = used + open FROM work.present
WHERE present.id = s.id AND s.budget_seconds < used + 0.001 * open;
UPDATE work.trials t SET limit_seconds = least(
    coalesce((s.config -> 'training' ->> 'time_limit_seconds')::double precision, 600) + 1,
    0.999999 * (s.budget_seconds - used) / open)
FROM work.studies s JOIN work.present ON present.id = s.id WHERE s.id = t.study_id AND t.finished_at IS NULL;
DROP TABLE work.present;
"""

# Every decision reads the rows of all tenants: one that cannot be read, or ends a statement with an error, would stop
# everybody. What an earlier version allowed may stay (NOT VALID), where it can be lived with.
HARMLESS = """
UPDATE work.tenants SET weight = 1e-6 WHERE weight < 1e-6;
UPDATE work.studies SET weight = 1e-6 WHERE weight < 1e-6;
-- The product of two tiny weights is an underflow, which is an error.
ALTER TABLE work.tenants DROP CONSTRAINT tenants_weight_check,
  ADD CONSTRAINT tenants_weight_check CHECK (weight >= 1e-6 AND weight <= 1e6);
ALTER TABLE work.studies DROP CONSTRAINT studies_weight_check,
  ADD CONSTRAINT studies_weight_check CHECK (weight >= 1e-6 AND weight <= 1e6),
  -- SQL counts with the two settings, and no number may have more digits than Python reads.
  ADD CONSTRAINT studies_config_check CHECK (
    jsonb_typeof(config) = 'object' AND octet_length(config::text) < 4000
    AND (config -> 'training' IS NULL OR jsonb_typeof(config -> 'training') = 'object')
    AND jsonb_typeof(config #> '{training,max_attempts}') = 'number'
    AND config #>> '{training,max_attempts}' ~ '^([1-9][0-9]{0,2}|1000)$'
    AND NOT jsonb_path_exists(config #> '{training,time_limit_seconds}',
      'strict $ ? (@.type() != "number" || @ <= 0 || @ > 1e8)')) NOT VALID;
ALTER TABLE work.data_sets
  ADD CONSTRAINT data_sets_source_check CHECK (length(source) <= 2000 AND length(target) <= 500) NOT VALID;
ALTER TABLE work.candidates
  ADD CONSTRAINT candidates_name_check CHECK (
    length(name) BETWEEN 1 AND 200 AND name !~ '[[:cntrl:]]' AND length(kind) <= 200) NOT VALID;
ALTER TABLE work.trials
  ADD CONSTRAINT trials_times_check CHECK (
    least(lease_until, started_at, finished_at) >= '2000-01-01 00:00+00'
    AND greatest(lease_until, started_at, finished_at) < '3000-01-01 00:00+00');
ALTER TABLE work.suggestion_batches
  ADD CONSTRAINT suggestion_batches_policy_check CHECK (length(policy) <= 100) NOT VALID;
ALTER TABLE work.suggestions
  ADD CONSTRAINT suggestions_reasons_check CHECK (
    jsonb_typeof(reasons) = 'object' AND octet_length(reasons::text) < 20000) NOT VALID;

-- An end in the future would make every later one come out of turn, and each decision load everything anew.
CREATE FUNCTION work.trials_ended_now() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.finished_at := clock_timestamp();
  RETURN NEW;
END $$;
CREATE TRIGGER trials_ended_now BEFORE UPDATE OF finished_at ON work.trials
  FOR EACH ROW WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL)
  EXECUTE FUNCTION work.trials_ended_now();

-- Keys and times are the database's: whoever may name the next key takes it from everybody else.
REVOKE INSERT ON work.tenants, work.data_sets, work.candidates, work.suggestion_batches, work.observations, work.models
  FROM easeml_worker;
GRANT INSERT (name, weight) ON work.tenants TO easeml_worker;
GRANT INSERT (tenant_id, source, target) ON work.data_sets TO easeml_worker;
GRANT INSERT (study_id, name, kind, parameters) ON work.candidates TO easeml_worker;
GRANT INSERT (request_key, policy, requested) ON work.suggestion_batches TO easeml_worker;
GRANT INSERT (trial_id, quality, cost_seconds) ON work.observations TO easeml_worker;
GRANT INSERT (study_id, data_version_id, trial_id, format, artifact, validation_loss) ON work.models TO easeml_worker;
"""

ACTIVE_SINCE = """
CREATE FUNCTION work.studies_active_since() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.active_since := clock_timestamp();
  RETURN NEW;
END $$;
CREATE TRIGGER studies_active_since BEFORE UPDATE OF state ON work.studies
  FOR EACH ROW WHEN (OLD.state <> NEW.state AND NEW.state = 'ACTIVE') EXECUTE FUNCTION work.studies_active_since();
"""

LIMITS = """
-- Device seconds a trial counts for: reserved while it is open (NULL: no bound), taken once it has ended.
CREATE FUNCTION work.charge(t work.trials) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN t.state IN ('SUGGESTED', 'RUNNING') THEN t.limit_seconds
         ELSE t.lost_seconds + coalesce(t.cost_seconds, 0) END
$$;

CREATE FUNCTION work.refuse(name text, what text, owner text, taken double precision, allowed double precision)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% of % is exceeded: % of %', what, owner, coalesce(taken::text, 'no bound'), allowed
    USING ERRCODE = 'check_violation', CONSTRAINT = name,
          DETAIL = jsonb_build_object('owner', owner, 'taken', taken, 'allowed', allowed);
END $$;

-- The tenant's row is locked first: whoever comes second sees what the first has written.
CREATE FUNCTION work.check_limits(of_tenant bigint, of_study bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  tenant work.tenants;
  study work.studies;
  unbounded boolean;
  taken double precision;
BEGIN
  SELECT * INTO tenant FROM work.tenants WHERE id = of_tenant FOR NO KEY UPDATE;
  SELECT * INTO study FROM work.studies WHERE id = of_study;
  IF study.budget_seconds IS NOT NULL THEN
    SELECT bool_or(work.charge(t) IS NULL), sum(work.charge(t)) INTO unbounded, taken
      FROM work.trials t WHERE t.study_id = of_study;
    IF unbounded OR taken > study.budget_seconds THEN
      PERFORM work.refuse('studies_budget_kept', 'compute budget', study.name,
        CASE WHEN NOT unbounded THEN taken END, study.budget_seconds);
    END IF;
  END IF;
  IF tenant.quota_seconds IS NOT NULL THEN
    SELECT bool_or(work.charge(t) IS NULL), sum(work.charge(t)) INTO unbounded, taken
      FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE s.tenant_id = of_tenant;
    IF unbounded OR taken > tenant.quota_seconds THEN
      PERFORM work.refuse('tenants_quota_kept', 'quota', tenant.name,
        CASE WHEN NOT unbounded THEN taken END, tenant.quota_seconds);
    END IF;
  END IF;
  IF tenant.max_parallel IS NOT NULL THEN
    SELECT count(*) INTO taken FROM work.trials t JOIN work.studies s ON s.id = t.study_id
      WHERE s.tenant_id = of_tenant AND t.state IN ('SUGGESTED', 'RUNNING');
    IF taken > tenant.max_parallel THEN
      PERFORM work.refuse('tenants_parallel_kept', 'number of open trials', tenant.name, taken, tenant.max_parallel);
    END IF;
  END IF;
END $$;

CREATE FUNCTION work.trials_within_limits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM work.check_limits((SELECT tenant_id FROM work.studies WHERE id = NEW.study_id), NEW.study_id);
  RETURN NULL;
END $$;
CREATE TRIGGER trials_within_limits AFTER INSERT ON work.trials
  FOR EACH ROW EXECUTE FUNCTION work.trials_within_limits();
CREATE TRIGGER trials_limit_kept AFTER UPDATE OF limit_seconds ON work.trials
  FOR EACH ROW WHEN (OLD.limit_seconds IS DISTINCT FROM NEW.limit_seconds)
  EXECUTE FUNCTION work.trials_within_limits();

CREATE FUNCTION work.studies_within_limits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM work.check_limits(NEW.tenant_id, NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER studies_within_limits AFTER UPDATE OF budget_seconds ON work.studies
  FOR EACH ROW WHEN (OLD.budget_seconds IS DISTINCT FROM NEW.budget_seconds)
  EXECUTE FUNCTION work.studies_within_limits();

CREATE FUNCTION work.tenants_within_limits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM work.check_limits(NEW.id, NULL);
  RETURN NULL;
END $$;
CREATE TRIGGER tenants_within_limits AFTER UPDATE OF max_parallel, quota_seconds ON work.tenants
  FOR EACH ROW EXECUTE FUNCTION work.tenants_within_limits();
"""

CATALOGUE = """
CREATE TABLE work.catalogue (
  singleton   boolean NOT NULL DEFAULT true CONSTRAINT catalogue_pkey PRIMARY KEY,
  version     bigint NOT NULL DEFAULT 1,
  changed_by  xid8,
  CONSTRAINT catalogue_singleton_check CHECK (singleton),
  CONSTRAINT catalogue_version_check CHECK (version >= 1)
);
INSERT INTO work.catalogue DEFAULT VALUES;

-- Once a transaction, at its end: a transaction may be as long as the sealing of a table, and a lock on the one row
-- held from the first change on would make everybody else wait for it. With its owner's rights: nobody else has any.
CREATE FUNCTION work.catalogue_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE work.catalogue SET version = version + 1, changed_by = pg_current_xact_id()
    WHERE changed_by IS DISTINCT FROM pg_current_xact_id();
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER tenants_catalogue AFTER INSERT OR UPDATE OR DELETE ON work.tenants
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION work.catalogue_changed();
CREATE CONSTRAINT TRIGGER studies_catalogue AFTER INSERT OR UPDATE OR DELETE ON work.studies
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION work.catalogue_changed();
CREATE CONSTRAINT TRIGGER candidates_catalogue AFTER INSERT OR UPDATE OR DELETE ON work.candidates
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION work.catalogue_changed();
CREATE CONSTRAINT TRIGGER data_versions_catalogue AFTER INSERT OR UPDATE OR DELETE ON work.data_versions
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION work.catalogue_changed();
"""

GRANTS = """
GRANT SELECT ON work.catalogue TO easeml_worker, easeml_referee;
GRANT UPDATE (max_parallel, quota_seconds) ON work.tenants TO easeml_worker;
GRANT INSERT (devices) ON work.candidates TO easeml_worker;
GRANT INSERT (priority, deadline, target_quality), UPDATE (priority, deadline, target_quality) ON work.studies
  TO easeml_worker;
GRANT INSERT (device, limit_seconds, lease_until), UPDATE (device, limit_seconds, lost_seconds, attempt_started_at)
  ON work.trials TO easeml_worker;
"""


def upgrade() -> None:
    for block in (COLUMNS, PRESENT, HARMLESS, ACTIVE_SINCE, LIMITS, CATALOGUE, GRANTS):
        op.execute(block)
