-- The installation's operation: where artifacts lie, restarts, and what changed since others have looked.

-- Where artifacts lie.
CREATE TABLE work.artifact_store (
  singleton  boolean DEFAULT true CONSTRAINT artifact_store_pkey PRIMARY KEY
             CONSTRAINT artifact_store_singleton_check CHECK (singleton),
  store_id   text NOT NULL CONSTRAINT artifact_store_id_check CHECK (store_id ~ '^[0-9a-f]{32}$'),
  place      text NOT NULL,
  set_at     timestamptz NOT NULL DEFAULT now(),
  set_by     text NOT NULL DEFAULT session_user,
  CONSTRAINT artifact_store_place_check CHECK (place ~ '[^[:space:]]' AND length(place) <= 4000)
);

-- what: 'server' for a start of the database, which a referee records; 'deployment' for an upgrade of the schema;
-- 'stated' for one that a person has recorded.
CREATE TABLE work.restarts (
  id      bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT restarts_pkey PRIMARY KEY,
  what    text NOT NULL,
  at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  reason  text,
  CONSTRAINT restarts_what_check CHECK (what IN ('server', 'deployment', 'stated')),
  CONSTRAINT restarts_at_check CHECK (at >= '2000-01-01 00:00+00' AND at < '3000-01-01 00:00+00'),
  CONSTRAINT restarts_reason_check
    CHECK ((what = 'stated') = (reason IS NOT NULL) AND reason ~ '^[^[:cntrl:]]{1,200}$' AND reason ~ '[^[:space:]]'),
  CONSTRAINT restarts_once_key UNIQUE (what, at)
);
CREATE INDEX restarts_at_idx ON work.restarts (at);

CREATE FUNCTION work.restarts_of_referee() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.what <> 'server' OR NEW.at <> pg_postmaster_start_time())
     AND NOT pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE')
  THEN
    RAISE EXCEPTION 'only the owner records another restart than the start of the database server'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'restarts_of_referee_check';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER restarts_of_referee BEFORE INSERT ON work.restarts FOR EACH ROW
  EXECUTE FUNCTION work.restarts_of_referee();

CREATE FUNCTION work.was_restarted(since timestamp with time zone) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce(pg_postmaster_start_time() > since, false)
    OR EXISTS (SELECT 1 FROM work.restarts WHERE at > since AND at <= clock_timestamp())
$$;

-- The version of what is registered; a scheduler that has seen it need not read studies and candidates again.
CREATE TABLE work.catalogue (
  singleton   boolean DEFAULT true CONSTRAINT catalogue_pkey PRIMARY KEY
              CONSTRAINT catalogue_singleton_check CHECK (singleton),
  version     bigint NOT NULL DEFAULT 1 CONSTRAINT catalogue_version_check CHECK (version >= 1),
  changed_by  xid8
);

INSERT INTO work.catalogue DEFAULT VALUES;

-- Changes since the version of work.catalogue, which adds them up: the one that finds many folds them in. A
-- transaction that held its row until it ended would make all others wait.
CREATE TABLE work.catalogue_changes (
  xact  xid8 DEFAULT pg_current_xact_id() CONSTRAINT catalogue_changes_pkey PRIMARY KEY
);

-- A tenant's transaction, which may stay open, never holds the row of work.catalogue.
CREATE FUNCTION work.catalogue_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE folded bigint;
BEGIN
  INSERT INTO work.catalogue_changes DEFAULT VALUES ON CONFLICT DO NOTHING;
  IF FOUND AND work.kind_of_caller() = 'role' AND (SELECT count(*) FROM work.catalogue_changes) > 1000 THEN
    PERFORM FROM work.catalogue FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
      WITH seen AS (SELECT xact FROM work.catalogue_changes WHERE xact <> pg_current_xact_id()
          LIMIT 10000 FOR UPDATE SKIP LOCKED),
        gone AS (DELETE FROM work.catalogue_changes WHERE xact IN (SELECT xact FROM seen) RETURNING xact)
      SELECT count(*) INTO folded FROM gone;
      UPDATE work.catalogue SET version = version + folded;
    END IF;
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER candidates_catalogue AFTER INSERT OR UPDATE OR DELETE ON work.candidates
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION work.catalogue_changed();
CREATE CONSTRAINT TRIGGER data_versions_catalogue AFTER INSERT OR UPDATE OR DELETE ON work.data_versions
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION work.catalogue_changed();
-- The schedulers have the result in memory: they load all results again.
CREATE CONSTRAINT TRIGGER quality_checks_catalogue AFTER INSERT ON work.quality_checks DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.outcome = 'not held') EXECUTE FUNCTION work.catalogue_changed();
CREATE CONSTRAINT TRIGGER studies_catalogue AFTER INSERT OR UPDATE OR DELETE ON work.studies
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION work.catalogue_changed();
CREATE CONSTRAINT TRIGGER tenants_catalogue AFTER INSERT OR UPDATE OR DELETE ON work.tenants
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION work.catalogue_changed();

-- A row for each change of what an assessment is made of. Rows are only inserted, so no writer waits for another one; a
-- reader takes those that it sees and assesses their studies anew in the same transaction (queries/assessments.py).
CREATE TABLE work.study_changes (
  study_id  bigint NOT NULL,
  taken     boolean NOT NULL DEFAULT false
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- What pages show of a study, assessed when it changed: where it stands, what it needs, what it uses.
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
  standing      text NOT NULL,
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
  facts         jsonb NOT NULL CONSTRAINT assessments_facts_check CHECK (jsonb_typeof(facts) = 'object'),
  CONSTRAINT assessments_standing_check CHECK (standing IN ('needs', 'searching', 'finished', 'paused'))
) WITH (toast_tuple_target = 512);
CREATE INDEX assessments_until_idx ON work.assessments (until);
CREATE INDEX assessments_tenant_idx ON work.assessments (tenant_id);
CREATE INDEX assessments_name_idx ON work.assessments (study);
ALTER TABLE work.assessments ALTER COLUMN needs SET STORAGE MAIN, ALTER COLUMN facts SET STORAGE EXTERNAL;

-- With the rights of the owner: a role that changes a study logs that it changed, and has no other right on the log.
CREATE FUNCTION work.study_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO work.study_changes (study_id) VALUES (NEW.study_id);
  RETURN NULL;
END $$;
CREATE TRIGGER alerts_assessed AFTER INSERT OR UPDATE ON work.alerts FOR EACH ROW
  EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER candidates_assessed AFTER INSERT ON work.candidates FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER candidates_withdrawn_assessed AFTER UPDATE ON work.candidates FOR EACH ROW
  EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER data_versions_assessed AFTER INSERT OR UPDATE ON work.data_versions FOR EACH ROW
  EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER gate_verdicts_assessed AFTER INSERT OR UPDATE ON work.gate_verdicts FOR EACH ROW
  EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER meter_readings_assessed AFTER INSERT OR UPDATE ON work.meter_readings FOR EACH ROW
  EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER models_assessed AFTER INSERT OR UPDATE ON work.models FOR EACH ROW
  EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER production_assessed AFTER INSERT OR UPDATE ON work.production FOR EACH ROW
  EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER promotions_assessed AFTER INSERT ON work.promotions FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER quality_checks_assessed AFTER INSERT OR UPDATE ON work.quality_checks FOR EACH ROW
  WHEN (NEW.outcome = 'not held') EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER requests_assessed AFTER INSERT OR UPDATE ON work.requests FOR EACH ROW
  EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER test_sets_assessed AFTER INSERT OR UPDATE ON work.test_sets FOR EACH ROW
  EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER trials_added_assessed AFTER INSERT ON work.trials FOR EACH ROW EXECUTE FUNCTION work.study_changed();
CREATE TRIGGER trials_assessed AFTER UPDATE ON work.trials FOR EACH ROW WHEN ((OLD.state, OLD.candidate_id,
  OLD.data_version_id, OLD.limit_seconds, OLD.lost_seconds, OLD.cost_seconds, OLD.start_seconds,
  OLD.attempt_started_at, OLD.finished_at, OLD.failure_kind) IS DISTINCT FROM (NEW.state, NEW.candidate_id,
  NEW.data_version_id, NEW.limit_seconds, NEW.lost_seconds, NEW.cost_seconds, NEW.start_seconds,
  NEW.attempt_started_at, NEW.finished_at, NEW.failure_kind) OR NEW.lease_until < OLD.lease_until
  OR OLD.lease_until < now()) EXECUTE FUNCTION work.study_changed();

CREATE FUNCTION work.studies_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- A refused study is shown until another one has its name.
  INSERT INTO work.study_changes (study_id) SELECT id FROM work.studies WHERE name = NEW.name;
  RETURN NULL;
END $$;
CREATE TRIGGER studies_assessed AFTER INSERT OR UPDATE ON work.studies FOR EACH ROW
  EXECUTE FUNCTION work.studies_changed();

CREATE FUNCTION work.tenant_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO work.study_changes (study_id) SELECT id FROM work.studies WHERE tenant_id = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER tenants_assessed AFTER UPDATE ON work.tenants FOR EACH ROW EXECUTE FUNCTION work.tenant_changed();

CREATE FUNCTION work.observation_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO work.study_changes (study_id) SELECT study_id FROM work.trials WHERE id = NEW.trial_id;
  RETURN NULL;
END $$;
CREATE TRIGGER observations_assessed AFTER INSERT OR UPDATE ON work.observations FOR EACH ROW
  EXECUTE FUNCTION work.observation_changed();

CREATE FUNCTION work.answer_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO work.study_changes (study_id) SELECT study_id FROM work.requests WHERE id = NEW.request_id;
  RETURN NULL;
END $$;
CREATE TRIGGER answers_assessed AFTER INSERT ON work.answers FOR EACH ROW EXECUTE FUNCTION work.answer_changed();

-- A reader marks the rows that it sees, and they are gone: no role but the owner may delete any.
CREATE FUNCTION work.changes_taken() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM work.study_changes WHERE taken;
  RETURN NULL;
END $$;
CREATE TRIGGER study_changes_taken AFTER UPDATE ON work.study_changes FOR EACH STATEMENT
  EXECUTE FUNCTION work.changes_taken();
