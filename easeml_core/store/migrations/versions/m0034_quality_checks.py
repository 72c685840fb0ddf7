"""Results that the referee has measured anew: what was claimed, what it has found, and whether that holds."""

from alembic import op

revision = "0034"
down_revision = "0033"

QUALITY_CHECKS = """
CREATE TABLE work.quality_checks (
  trial_id    bigint CONSTRAINT quality_checks_pkey PRIMARY KEY
              CONSTRAINT quality_checks_trial_fkey REFERENCES work.trials,
  study_id    bigint NOT NULL,
  model_id    bigint NOT NULL,
  claimed     double precision NOT NULL CONSTRAINT quality_checks_claimed_check CHECK (claimed BETWEEN 0 AND 1),
  measured    double precision CONSTRAINT quality_checks_measured_check CHECK (measured BETWEEN 0 AND 1),
  tolerance   double precision NOT NULL
              CONSTRAINT quality_checks_tolerance_check CHECK (tolerance >= 0 AND tolerance < 1),
  outcome     text NOT NULL GENERATED ALWAYS AS (CASE WHEN measured IS NULL THEN 'unmeasurable'
                WHEN abs(claimed - measured) <= tolerance THEN 'held' ELSE 'not held' END) STORED,
  reason      text CONSTRAINT quality_checks_reason_check CHECK (length(reason) BETWEEN 1 AND 500),
  checked_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT quality_checks_why_check CHECK ((reason IS NULL) = (measured IS NOT NULL)),
  CONSTRAINT quality_checks_model_fkey FOREIGN KEY (model_id, study_id) REFERENCES work.models (id, study_id)
);
CREATE INDEX quality_checks_study_idx ON work.quality_checks (study_id);
GRANT SELECT ON work.quality_checks TO easeml_worker, easeml_referee;
GRANT INSERT (trial_id, study_id, model_id, claimed, measured, tolerance, reason) ON work.quality_checks
  TO easeml_referee;

CREATE FUNCTION work.audit_quality() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('result did not hold', NEW.study_id, NULL, jsonb_build_object('quality', NEW.claimed),
    jsonb_build_object('trial', NEW.trial_id, 'model', NEW.model_id, 'quality', NEW.measured));
  RETURN NULL;
END $$;
CREATE TRIGGER quality_checks_audit AFTER INSERT ON work.quality_checks
  FOR EACH ROW WHEN (NEW.outcome = 'not held') EXECUTE FUNCTION work.audit_quality();
-- The schedulers have the result in memory: they load all results again.
CREATE CONSTRAINT TRIGGER quality_checks_catalogue AFTER INSERT ON work.quality_checks
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.outcome = 'not held')
  EXECUTE FUNCTION work.catalogue_changed();
"""


def upgrade() -> None:
    op.execute(QUALITY_CHECKS)
