"""One set for gate and meter, a second meter against drift, validation sets that are replaced."""

from alembic import op

revision = "0006"
down_revision = "0005"

SETS = """
-- joint: gate and meter draw on one set, in one ledger. direct: a hidden sample of the validation distribution.
ALTER TABLE work.test_sets
  DROP CONSTRAINT test_sets_purpose_check,
  ADD CONSTRAINT test_sets_purpose_check CHECK (purpose IN ('gate', 'meter', 'joint', 'direct'));
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

-- Measuring anew is counted but never refused: a study that has spent its budget can still be measured on a new set.
CREATE OR REPLACE TRIGGER trials_within_limits AFTER INSERT ON work.trials
  FOR EACH ROW WHEN (NEW.reevaluates IS NULL) EXECUTE FUNCTION work.trials_within_limits();

GRANT INSERT (study_id, candidate_id, data_version_id, device, limit_seconds, state, started_at, finished_at,
  cost_seconds, reevaluates) ON work.trials TO easeml_referee;
GRANT INSERT ON work.observations TO easeml_referee;
"""


def upgrade() -> None:
    for block in (SETS, LEDGER, READINGS, ALERTS, VALIDATION):
        op.execute(block)
