"""One set for gate and meter, a second meter against drift, validation sets that are replaced."""

from typing import Any

from alembic import op
from sqlalchemy import text

from easeml_core.store.rows import unpack
from easeml_core.store.tables.sealed import fingerprint
from easeml_core.store.tables.test_sets import example_hashes

revision = "0006"
down_revision = "0005"

SETS = """
-- joint: gate and meter draw on one set, in one ledger. direct: a hidden sample of the validation distribution.
ALTER TABLE work.test_sets
  DROP CONSTRAINT test_sets_purpose_check,
  ADD CONSTRAINT test_sets_purpose_check CHECK (purpose IN ('gate', 'meter', 'joint', 'direct'));
ALTER TABLE work.test_sets
  DROP CONSTRAINT test_sets_why_check,
  ADD CONSTRAINT test_sets_why_check
    CHECK (retired_why IN ('steps', 'changes', 'tolerance', 'by hand', 'signals', 'regulation', 'failure'));
DROP INDEX work.test_sets_live_key;
CREATE UNIQUE INDEX test_sets_live_gate_key ON work.test_sets (study_id)
  WHERE state = 'live' AND purpose IN ('gate', 'joint');
CREATE UNIQUE INDEX test_sets_live_meter_key ON work.test_sets (study_id)
  WHERE state = 'live' AND purpose IN ('meter', 'joint');
CREATE UNIQUE INDEX test_sets_live_direct_key ON work.test_sets (study_id) WHERE state = 'live' AND purpose = 'direct';

ALTER TABLE work.data_parts
  DROP CONSTRAINT data_parts_part_check,
  ADD CONSTRAINT data_parts_part_check
    CHECK (part IN ('train', 'validation', 'gate', 'meter', 'joint', 'direct'));

ALTER TABLE work.gate_verdicts
  DROP CONSTRAINT gate_verdicts_kind_check,
  ADD CONSTRAINT gate_verdicts_kind_check CHECK (kind = 'gate' AND purpose IN ('gate', 'joint'));
"""

LEDGER = """
-- step: the place in the set's ledger, over both systems. system_step: the place among the answers of one system.
ALTER TABLE sealed.ledger
  ADD COLUMN system text,
  ADD COLUMN system_step integer,
  ADD COLUMN system_steps integer;
ALTER TABLE sealed.ledger DISABLE TRIGGER ledger_append_only;
UPDATE sealed.ledger l SET system = t.purpose, system_step = l.step, system_steps = l.steps
  FROM work.test_sets t WHERE t.id = l.test_set_id;
ALTER TABLE sealed.ledger ENABLE TRIGGER ledger_append_only;
ALTER TABLE sealed.ledger
  ALTER COLUMN system SET NOT NULL,
  ALTER COLUMN system_step SET NOT NULL,
  ALTER COLUMN system_steps SET NOT NULL,
  ADD CONSTRAINT ledger_system_check CHECK (system IN ('gate', 'meter')),
  ADD CONSTRAINT ledger_system_step_key UNIQUE (test_set_id, system, system_step),
  ADD CONSTRAINT ledger_system_step_check
    CHECK (system_step >= 1 AND system_step <= step AND (system_step <= system_steps OR open_ended)),
  -- One submission is read on two sets where there are two meters.
  DROP CONSTRAINT ledger_request_key,
  ADD CONSTRAINT ledger_request_key UNIQUE (request_id, test_set_id);
"""

READINGS = """
-- data_version_id: whose validation part the loss was measured on. direct_*: what the second meter says; NULL without.
ALTER TABLE work.meter_readings
  DROP CONSTRAINT meter_readings_kind_check,
  ADD CONSTRAINT meter_readings_kind_check CHECK (kind = 'meter' AND purpose IN ('meter', 'joint')),
  ADD COLUMN data_version_id bigint,
  ADD COLUMN direct_test_set_id bigint,
  ADD COLUMN direct_purpose text GENERATED ALWAYS AS ('direct') STORED,
  ADD COLUMN direct_signal integer,
  ADD COLUMN drift text,
  ADD CONSTRAINT meter_readings_data_version_fkey FOREIGN KEY (data_version_id, study_id)
    REFERENCES work.data_versions (id, study_id),
  ADD CONSTRAINT meter_readings_direct_fkey FOREIGN KEY (direct_test_set_id, study_id, direct_purpose)
    REFERENCES work.test_sets (id, study_id, purpose),
  ADD CONSTRAINT meter_readings_direct_check CHECK (
    (direct_signal IS NULL OR direct_test_set_id IS NOT NULL) AND direct_signal >= 1 AND direct_signal <= signals),
  ADD CONSTRAINT meter_readings_drift_check CHECK (
    drift IN ('none seen', 'likely', 'certain')
    AND (drift IS NOT NULL) = (signal IS NOT NULL AND direct_signal IS NOT NULL));
"""

ALERTS = """
-- A reading can break the budget and show drift at once: one alert of each kind.
ALTER TABLE work.alerts
  DROP CONSTRAINT alerts_reading_fkey,
  DROP CONSTRAINT alerts_request_key,
  DROP COLUMN reading_id,
  DROP CONSTRAINT alerts_kind_check,
  DROP CONSTRAINT alerts_subject_check;
ALTER TABLE work.alerts
  ADD COLUMN reading_id bigint GENERATED ALWAYS AS
    (CASE WHEN kind IN ('overfitting', 'drift') THEN request_id END) STORED,
  ADD CONSTRAINT alerts_request_key UNIQUE (request_id, kind),
  ADD CONSTRAINT alerts_reading_fkey FOREIGN KEY (reading_id, study_id)
    REFERENCES work.meter_readings (request_id, study_id),
  ADD CONSTRAINT alerts_kind_check CHECK (kind IN ('overfitting', 'new-test-set', 'drift')),
  ADD CONSTRAINT alerts_subject_check
    CHECK (CASE kind WHEN 'new-test-set' THEN test_set_id IS NOT NULL ELSE request_id IS NOT NULL END);
-- team: which of several teams the reading was given to; NULL for what everybody may be shown.
ALTER TABLE work.alerts
  ADD COLUMN team integer,
  ADD CONSTRAINT alerts_team_check CHECK (team IS NULL OR (team >= 1 AND kind <> 'new-test-set'));
UPDATE work.alerts a SET team = r.team FROM work.meter_readings r JOIN work.test_sets t ON t.id = r.test_set_id
  WHERE r.request_id = a.reading_id AND (t.plan ->> 'teams')::integer > 1;
"""

VALIDATION = """
-- Another validation part beside the very same training part: the first version that had it.
ALTER TABLE work.data_versions
  ADD COLUMN same_training_as bigint,
  ADD CONSTRAINT data_versions_training_fkey FOREIGN KEY (same_training_as, study_id)
    REFERENCES work.data_versions (id, study_id),
  ADD CONSTRAINT data_versions_training_check CHECK (same_training_as < id);

-- A trial of an earlier version whose model was measured on this one: nothing was trained, and its cost is that of
-- measuring, so nobody learns from it what training costs.
ALTER TABLE work.trials
  ADD COLUMN reevaluates bigint CONSTRAINT trials_reevaluates_fkey REFERENCES work.trials,
  ADD CONSTRAINT trials_reevaluates_check CHECK (reevaluates IS NULL OR state = 'SUCCEEDED');

-- A model that could not be measured on this version, and how often: so that nobody tries for ever.
CREATE TABLE work.remeasure_failures (
  model_id         bigint NOT NULL,
  data_version_id  bigint NOT NULL,
  study_id         bigint NOT NULL,
  tries            integer NOT NULL DEFAULT 1,
  reason           text NOT NULL,
  tried_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT remeasure_failures_pkey PRIMARY KEY (model_id, data_version_id),
  CONSTRAINT remeasure_failures_model_fkey FOREIGN KEY (model_id, study_id) REFERENCES work.models (id, study_id),
  CONSTRAINT remeasure_failures_version_fkey FOREIGN KEY (data_version_id, study_id)
    REFERENCES work.data_versions (id, study_id),
  CONSTRAINT remeasure_failures_tries_check CHECK (tries >= 1),
  CONSTRAINT remeasure_failures_reason_check CHECK (reason ~ '[^[:space:]]' AND length(reason) <= 2000)
);
CREATE INDEX remeasure_failures_study_idx ON work.remeasure_failures (study_id);
GRANT SELECT ON work.remeasure_failures TO easeml_worker, easeml_referee;
GRANT INSERT (model_id, data_version_id, study_id, reason), UPDATE (tries, reason, tried_at)
  ON work.remeasure_failures TO easeml_referee;

GRANT INSERT (study_id, candidate_id, data_version_id, device, limit_seconds, state, started_at, finished_at,
  cost_seconds, reevaluates) ON work.trials TO easeml_referee;
GRANT INSERT ON work.observations TO easeml_referee;

-- Boosted trees in the formats of their libraries.
ALTER TABLE work.models
  DROP CONSTRAINT models_format_check,
  ADD CONSTRAINT models_format_check
    CHECK (format IN ('skops', 'lightgbm', 'xgboost', 'safetensors', 'constant', 'command'));
"""

LIMITS = """
-- Measuring anew is counted but never refused: a study that has spent its budget can still be measured on a new set. So
-- what is taken may be more than a limit, and then only what takes more still is refused: a trial that is new, a
-- reservation that grows, a limit that is lowered. Each is held against the limits that it is about, and no other.
CREATE OR REPLACE TRIGGER trials_within_limits AFTER INSERT ON work.trials
  FOR EACH ROW WHEN (NEW.reevaluates IS NULL) EXECUTE FUNCTION work.trials_within_limits();

CREATE FUNCTION work.check_budget(of_study bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  study work.studies;
  unbounded boolean;
  taken double precision;
BEGIN
  SELECT * INTO study FROM work.studies WHERE id = of_study;
  IF study.budget_seconds IS NOT NULL THEN
    SELECT bool_or(work.charge(t) IS NULL), sum(work.charge(t)) INTO unbounded, taken
      FROM work.trials t WHERE t.study_id = of_study;
    IF unbounded OR taken > study.budget_seconds THEN
      PERFORM work.refuse('studies_budget_kept', 'compute budget', study.name,
        CASE WHEN NOT unbounded THEN taken END, study.budget_seconds);
    END IF;
  END IF;
END $$;

CREATE FUNCTION work.check_quota(of_tenant bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  tenant work.tenants;
  unbounded boolean;
  taken double precision;
BEGIN
  SELECT * INTO tenant FROM work.tenants WHERE id = of_tenant;
  IF tenant.quota_seconds IS NOT NULL THEN
    SELECT bool_or(work.charge(t) IS NULL), sum(work.charge(t)) INTO unbounded, taken
      FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE s.tenant_id = of_tenant;
    IF unbounded OR taken > tenant.quota_seconds THEN
      PERFORM work.refuse('tenants_quota_kept', 'quota', tenant.name,
        CASE WHEN NOT unbounded THEN taken END, tenant.quota_seconds);
    END IF;
  END IF;
END $$;

CREATE FUNCTION work.check_parallel(of_tenant bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  tenant work.tenants;
  taken double precision;
BEGIN
  SELECT * INTO tenant FROM work.tenants WHERE id = of_tenant;
  IF tenant.max_parallel IS NOT NULL THEN
    SELECT count(*) INTO taken FROM work.trials t JOIN work.studies s ON s.id = t.study_id
      WHERE s.tenant_id = of_tenant AND t.state IN ('SUGGESTED', 'RUNNING');
    IF taken > tenant.max_parallel THEN
      PERFORM work.refuse('tenants_parallel_kept', 'number of open trials', tenant.name, taken, tenant.max_parallel);
    END IF;
  END IF;
END $$;

-- In every case the tenant's row is locked first: whoever comes second sees what the first has written.
CREATE OR REPLACE FUNCTION work.trials_within_limits() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  of_tenant bigint := (SELECT tenant_id FROM work.studies WHERE id = NEW.study_id);
BEGIN
  PERFORM FROM work.tenants WHERE id = of_tenant FOR NO KEY UPDATE;
  PERFORM work.check_budget(NEW.study_id);
  PERFORM work.check_quota(of_tenant);
  IF TG_OP = 'INSERT' THEN  -- a reservation that grows makes no further trial
    PERFORM work.check_parallel(of_tenant);
  END IF;
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER trials_limit_kept AFTER UPDATE OF limit_seconds ON work.trials
  FOR EACH ROW WHEN (
    NEW.limit_seconds > OLD.limit_seconds OR (NEW.limit_seconds IS NULL AND OLD.limit_seconds IS NOT NULL))
  EXECUTE FUNCTION work.trials_within_limits();

CREATE OR REPLACE FUNCTION work.studies_within_limits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM work.tenants WHERE id = NEW.tenant_id FOR NO KEY UPDATE;
  PERFORM work.check_budget(NEW.id);
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER studies_within_limits AFTER UPDATE OF budget_seconds ON work.studies
  FOR EACH ROW WHEN (NEW.budget_seconds < coalesce(OLD.budget_seconds, 'Infinity'))
  EXECUTE FUNCTION work.studies_within_limits();

CREATE OR REPLACE FUNCTION work.tenants_within_limits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.quota_seconds < coalesce(OLD.quota_seconds, 'Infinity') THEN
    PERFORM work.check_quota(NEW.id);
  END IF;
  IF NEW.max_parallel IS NOT NULL AND (OLD.max_parallel IS NULL OR NEW.max_parallel < OLD.max_parallel) THEN
    PERFORM work.check_parallel(NEW.id);
  END IF;
  RETURN NULL;
END $$;
DROP FUNCTION work.check_limits;
"""


def upgrade() -> None:
    for block in (SETS, LEDGER, READINGS, ALERTS, VALIDATION, LIMITS):
        op.execute(block)
    _hash_anew(op.get_bind())


def _hash_anew(tx: Any) -> None:
    """Examples were known by their values in the order of a study's columns, now by names and values in any order."""
    found = tx.execute(text("SELECT id FROM sealed.test_sets ORDER BY id")).scalars().all()
    known: set[str] = set()
    for set_id in found:
        of_set = {"id": set_id}
        content = (
            "SELECT k.inputs, t.study_id, v.feature_names FROM sealed.test_sets k JOIN work.test_sets t ON t.id = k.id "
            "JOIN work.data_versions v ON v.id = t.data_version_id WHERE k.id = :id"
        )
        row = tx.execute(text(content), of_set).one()
        hashes = example_hashes(unpack(row.inputs), row.feature_names)
        tx.execute(text("DELETE FROM sealed.examples WHERE test_set_id = :id"), of_set)
        insert = (
            "INSERT INTO sealed.examples (study_id, hash, test_set_id) "
            "SELECT :study, hash, :id FROM unnest(CAST(:hashes AS bytea[])) AS hash"
        )
        tx.execute(text(insert), of_set | {"study": row.study_id, "hashes": hashes})
        of_all = fingerprint(hashes)
        if of_all not in known:  # else a set of the same examples is there, sealed twice for the order of its columns
            known.add(of_all)
            update = "UPDATE sealed.test_sets SET fingerprint = :fingerprint WHERE id = :id"
            tx.execute(text(update), of_set | {"fingerprint": of_all})
