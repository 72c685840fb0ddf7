"""Results that did not hold are acknowledged by an operator, and each one makes the overview count its study anew."""

from alembic import op

revision = "0038"
down_revision = "0037"

ACKNOWLEDGED = """
ALTER TABLE work.quality_checks
  ADD COLUMN acknowledged_at timestamptz,
  ADD COLUMN acknowledged_why text
    CONSTRAINT quality_checks_acknowledged_why_check CHECK (length(acknowledged_why) BETWEEN 1 AND 500),
  ADD CONSTRAINT quality_checks_acknowledged_check CHECK ((acknowledged_at IS NULL) = (acknowledged_why IS NULL)
    AND (acknowledged_at IS NULL OR outcome = 'not held'));
CREATE INDEX quality_checks_not_held_idx ON work.quality_checks (study_id) WHERE outcome = 'not held';
CREATE INDEX quality_checks_news_idx ON work.quality_checks (checked_at) WHERE outcome = 'not held';
-- The result stays unused; only the flag of its tenant ends.
GRANT UPDATE (acknowledged_at, acknowledged_why) ON work.quality_checks TO easeml_worker;

CREATE FUNCTION work.audit_acknowledged() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('result acknowledged', NEW.study_id, NULL, NULL,
    jsonb_build_object('trial', NEW.trial_id, 'model', NEW.model_id), NEW.acknowledged_why);
  RETURN NULL;
END $$;
CREATE TRIGGER quality_checks_acknowledged AFTER UPDATE ON work.quality_checks
  FOR EACH ROW WHEN (NEW.acknowledged_at IS DISTINCT FROM OLD.acknowledged_at)
  EXECUTE FUNCTION work.audit_acknowledged();
CREATE TRIGGER quality_checks_assessed AFTER INSERT OR UPDATE ON work.quality_checks
  FOR EACH ROW WHEN (NEW.outcome = 'not held') EXECUTE FUNCTION work.study_changed();

-- The kept rows have no figures of results that did not hold: the next look writes them anew.
INSERT INTO work.study_changes (study_id) SELECT id FROM work.studies;
"""


def upgrade() -> None:
    op.execute(ACKNOWLEDGED)
