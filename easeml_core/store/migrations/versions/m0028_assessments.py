"""What the overview shows of each study is kept in a row of its own, and triggers log which studies have changed."""

from alembic import op

revision = "0028"
down_revision = "0027"

TABLES = """
-- A row for each change of what an assessment is made of. Rows are only inserted, so no writer waits for another one; a
-- reader takes those that it sees and assesses their studies anew in the same transaction (queries/assessments.py).
CREATE TABLE work.study_changes (
  study_id  bigint NOT NULL,
  taken     boolean NOT NULL DEFAULT false
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE work.assessments (
  study_id      bigint CONSTRAINT assessments_pkey PRIMARY KEY
                CONSTRAINT assessments_study_fkey REFERENCES work.studies ON DELETE CASCADE,
  tenant_id     bigint NOT NULL CONSTRAINT assessments_tenant_fkey REFERENCES work.tenants,
  tenant        text NOT NULL,
  study         text NOT NULL,
  -- False of a refused study whose name another one has taken.
  shown         boolean NOT NULL,
  -- From then on the row is out of date although nothing has changed: a lease or a deadline ends, a day has passed.
  until         timestamptz NOT NULL,
  standing      text NOT NULL
                CONSTRAINT assessments_standing_check CHECK (standing IN ('needs', 'searching', 'finished', 'paused')),
  -- Place of the worst step that needs a person among the kinds of steps, after all of them where none does.
  urgency       smallint NOT NULL CONSTRAINT assessments_urgency_check CHECK (urgency >= 0),
  is_bad        boolean NOT NULL,
  -- The steps that need a person: kind, severity, title, since.
  needs         jsonb NOT NULL CONSTRAINT assessments_needs_check CHECK (jsonb_typeof(needs) = 'array'),
  kinds         text[] NOT NULL,
  -- Events that hold as long as the study is as it is.
  holding       text[] NOT NULL,
  best_quality  double precision,
  rise          double precision,
  running       integer NOT NULL,
  lost          integer NOT NULL,
  waiting       integer NOT NULL,
  queued_at     timestamptz,
  ended_day     integer NOT NULL,
  judging       boolean NOT NULL,
  due_weight    double precision NOT NULL,
  charged       double precision NOT NULL,
  open          integer NOT NULL,
  -- Device seconds of the last day: day_seconds + day_running * now - day_since, times in seconds since 1970.
  day_seconds   double precision NOT NULL,
  day_running   integer NOT NULL,
  day_since     double precision NOT NULL,
  tenant_spent  boolean NOT NULL,
  tenant_full   boolean NOT NULL,
  facts         jsonb NOT NULL CONSTRAINT assessments_facts_check CHECK (jsonb_typeof(facts) = 'object')
);
CREATE INDEX assessments_until_idx ON work.assessments (until);
CREATE INDEX assessments_tenant_idx ON work.assessments (tenant_id);
CREATE INDEX assessments_name_idx ON work.assessments (study);
ALTER TABLE work.assessments ALTER COLUMN facts SET STORAGE EXTERNAL, ALTER COLUMN needs SET STORAGE MAIN;
ALTER TABLE work.assessments SET (toast_tuple_target = 512);

CREATE INDEX studies_tenant_idx ON work.studies (tenant_id);
CREATE INDEX studies_any_name_idx ON work.studies (name);
CREATE INDEX candidates_functions_idx ON work.candidates (study_id) WHERE kind = 'function';
CREATE INDEX gate_verdicts_decided_idx ON work.gate_verdicts (decided_at) INCLUDE (symbol, study_id) WHERE planned;
CREATE INDEX promotions_promoted_idx ON work.promotions (promoted_at);
"""

# With the rights of the owner: a role that changes a study logs that it changed, and has no other right on the log.
FUNCTIONS = """
CREATE FUNCTION work.study_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO work.study_changes (study_id) VALUES (NEW.study_id);
  RETURN NULL;
END $$;

CREATE FUNCTION work.studies_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- A refused study is shown until another one has its name.
  INSERT INTO work.study_changes (study_id) SELECT id FROM work.studies WHERE name = NEW.name;
  RETURN NULL;
END $$;

CREATE FUNCTION work.tenant_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO work.study_changes (study_id) SELECT id FROM work.studies WHERE tenant_id = NEW.id;
  RETURN NULL;
END $$;

CREATE FUNCTION work.observation_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO work.study_changes (study_id) SELECT study_id FROM work.trials WHERE id = NEW.trial_id;
  RETURN NULL;
END $$;

CREATE FUNCTION work.answer_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO work.study_changes (study_id) SELECT study_id FROM work.requests WHERE id = NEW.request_id;
  RETURN NULL;
END $$;

-- A reader marks the rows that it sees, and they are gone: no role but the owner may delete any.
CREATE FUNCTION work.changes_taken() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM work.study_changes WHERE taken;
  RETURN NULL;
END $$;
CREATE TRIGGER study_changes_taken AFTER UPDATE ON work.study_changes
  FOR EACH STATEMENT EXECUTE FUNCTION work.changes_taken();
"""

# A heartbeat moves the end of a lease and changes nothing else: the row of the study holds until the former end.
TRIGGERS = """
CREATE TRIGGER tenants_assessed AFTER UPDATE ON work.tenants FOR EACH ROW EXECUTE FUNCTION work.tenant_changed();
CREATE TRIGGER studies_assessed AFTER INSERT OR UPDATE ON work.studies
  FOR EACH ROW EXECUTE FUNCTION work.studies_changed();
CREATE TRIGGER candidates_assessed AFTER INSERT ON work.candidates
  FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER data_versions_assessed AFTER INSERT OR UPDATE ON work.data_versions
  FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER trials_added_assessed AFTER INSERT ON work.trials FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER trials_assessed AFTER UPDATE ON work.trials FOR EACH ROW WHEN (
  (OLD.state, OLD.candidate_id, OLD.data_version_id, OLD.limit_seconds, OLD.lost_seconds, OLD.cost_seconds,
   OLD.start_seconds, OLD.attempt_started_at, OLD.finished_at, OLD.failure_kind)
  IS DISTINCT FROM
  (NEW.state, NEW.candidate_id, NEW.data_version_id, NEW.limit_seconds, NEW.lost_seconds, NEW.cost_seconds,
   NEW.start_seconds, NEW.attempt_started_at, NEW.finished_at, NEW.failure_kind)
  OR NEW.lease_until < OLD.lease_until OR OLD.lease_until < now())
  EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER observations_assessed AFTER INSERT OR UPDATE ON work.observations
  FOR EACH ROW EXECUTE FUNCTION work.observation_changed();
CREATE TRIGGER models_assessed AFTER INSERT OR UPDATE ON work.models
  FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER test_sets_assessed AFTER INSERT OR UPDATE ON work.test_sets
  FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER requests_assessed AFTER INSERT OR UPDATE ON work.requests
  FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER answers_assessed AFTER INSERT ON work.answers FOR EACH ROW EXECUTE FUNCTION work.answer_changed();
CREATE TRIGGER gate_verdicts_assessed AFTER INSERT OR UPDATE ON work.gate_verdicts
  FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER meter_readings_assessed AFTER INSERT OR UPDATE ON work.meter_readings
  FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER promotions_assessed AFTER INSERT ON work.promotions FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER production_assessed AFTER INSERT OR UPDATE ON work.production
  FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER alerts_assessed AFTER INSERT OR UPDATE ON work.alerts
  FOR EACH ROW EXECUTE FUNCTION work.study_changed();

-- The first look after the migration assesses them all.
INSERT INTO work.study_changes (study_id) SELECT id FROM work.studies;

GRANT SELECT, INSERT, UPDATE ON work.assessments TO easeml_worker, easeml_referee;
GRANT SELECT, UPDATE (taken) ON work.study_changes TO easeml_worker, easeml_referee;
"""


def upgrade() -> None:
    for block in (TABLES, FUNCTIONS, TRIGGERS):
        op.execute(block)
