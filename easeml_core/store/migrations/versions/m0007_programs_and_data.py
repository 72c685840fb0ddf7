"""What a study predicts and by which metric, what its rows are, checkpoints, curves and rungs, pairs that are fed."""

from alembic import op

revision = "0007"
down_revision = "0006"

STUDIES = """
-- metric: what candidates are compared by. hit: what is right on sealed sets, where each row is right or wrong.
-- program: what goes in and what comes out, in canonical form; NULL until the data are read, where none was given.
ALTER TABLE work.studies
  DROP CONSTRAINT studies_metric_check,
  ADD CONSTRAINT studies_metric_check CHECK (metric ~ '^[[:alnum:]_.:+-]{1,200}$'),
  ADD COLUMN task text NOT NULL DEFAULT 'classification',
  ADD COLUMN hit text NOT NULL DEFAULT 'accuracy',
  ADD COLUMN program text,
  ADD CONSTRAINT studies_task_check CHECK (task IN ('classification', 'regression')),
  ADD CONSTRAINT studies_hit_check
    CHECK (CASE task WHEN 'regression' THEN hit ~ '^within:[0-9.e+-]{1,40}$' ELSE hit = 'accuracy' END),
  ADD CONSTRAINT studies_program_check CHECK (octet_length(program) <= 100000);
GRANT INSERT (task, hit, program) ON work.studies TO easeml_worker;

-- What could not be sealed is registered again, corrected, under its name.
ALTER TABLE work.studies DROP CONSTRAINT studies_name_key;
CREATE UNIQUE INDEX studies_name_key ON work.studies (name) WHERE state <> 'REFUSED';

-- score: by the study's metric, in its own unit; quality is what becomes of it. NULL for what was observed before.
ALTER TABLE work.observations
  ADD COLUMN score double precision,
  ADD CONSTRAINT observations_score_check CHECK (score > '-Infinity' AND score < 'Infinity');
GRANT INSERT (score) ON work.observations TO easeml_worker;
GRANT UPDATE (program) ON work.studies TO easeml_referee;

-- layout: {"kind": "image", "shape": [28, 28, 1]}, and "target" likewise where an answer is several numbers; NULL for
-- versions that were made before it was kept.
ALTER TABLE work.data_versions
  ADD COLUMN layout jsonb,
  ADD CONSTRAINT data_versions_layout_check CHECK (
    layout ->> 'kind' IN ('table', 'image', 'series', 'tree') AND jsonb_typeof(layout -> 'shape') = 'array'
    AND (NOT layout ? 'target' OR (layout -> 'target' ->> 'kind' IN ('table', 'image', 'series')
         AND jsonb_typeof(layout -> 'target' -> 'shape') = 'array') IS TRUE));
"""

TRIALS = """
-- checkpoint: where an open trial's next attempt goes on; checkpoint_seconds: device seconds of all the work in it,
-- over all attempts; resumed_seconds: those of them that the present attempt began with. So an attempt that is lost has
-- lost what its lease held the device for, less what it saved: checkpoint_seconds - resumed_seconds.
ALTER TABLE work.trials
  ADD COLUMN checkpoint text,
  ADD COLUMN checkpoint_seconds double precision,
  ADD COLUMN checkpoint_progress double precision,
  ADD COLUMN resumed_seconds double precision NOT NULL DEFAULT 0,
  ADD CONSTRAINT trials_checkpoint_check CHECK (checkpoint ~ '^sha256:[0-9a-f]{64}$'),
  ADD CONSTRAINT trials_checkpoint_whole_check CHECK (
    num_nulls(checkpoint, checkpoint_seconds, checkpoint_progress) IN (0, 3)),
  ADD CONSTRAINT trials_checkpoint_seconds_check CHECK (
    checkpoint_seconds >= 0 AND checkpoint_seconds <= 1e9 AND resumed_seconds <= checkpoint_seconds),
  ADD CONSTRAINT trials_checkpoint_progress_check CHECK (checkpoint_progress >= 0 AND checkpoint_progress <= 1),
  ADD CONSTRAINT trials_resumed_check CHECK (resumed_seconds >= 0 AND resumed_seconds <= 1e9),
  -- Saved or lost, all of it was the trial's to take; the millionth is for rounding.
  ADD CONSTRAINT trials_checkpoint_limit_check CHECK (lost_seconds + checkpoint_seconds <= limit_seconds + 1e-6),
  -- Work that is saved is no use to a trial that has ended: it is part of its cost by now, or lost.
  ADD CONSTRAINT trials_checkpoint_open_check CHECK (state IN ('SUGGESTED', 'RUNNING') OR checkpoint IS NULL);

-- Whoever ends a trial, its saved work counts once: as part of its cost, or where it has none as lost.
CREATE FUNCTION work.trials_checkpoint_spent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.cost_seconds IS NULL THEN
    NEW.lost_seconds := least(NEW.limit_seconds, 1e9, NEW.lost_seconds + coalesce(NEW.checkpoint_seconds, 0));
  END IF;
  NEW.checkpoint := NULL;
  NEW.checkpoint_seconds := NULL;
  NEW.checkpoint_progress := NULL;
  RETURN NEW;
END $$;
CREATE TRIGGER trials_checkpoint_spent BEFORE UPDATE ON work.trials
  FOR EACH ROW WHEN (NEW.checkpoint IS NOT NULL AND NEW.state NOT IN ('SUGGESTED', 'RUNNING'))
  EXECUTE FUNCTION work.trials_checkpoint_spent();
GRANT UPDATE (checkpoint, checkpoint_seconds, checkpoint_progress, resumed_seconds) ON work.trials TO easeml_worker;
"""

CURVES = """
-- What a training told after each of its steps (epochs): for people, and rungs learn from it. A step is told once: an
-- attempt that goes on from a checkpoint repeats some.
CREATE TABLE work.curves (
  trial_id  bigint NOT NULL CONSTRAINT curves_trial_fkey REFERENCES work.trials,
  step      integer NOT NULL,
  "of"      integer,
  quality   double precision,
  loss      double precision,
  seconds   double precision NOT NULL,
  CONSTRAINT curves_pkey PRIMARY KEY (trial_id, step),
  -- Bounded for each trial, whatever its process tells.
  CONSTRAINT curves_step_check CHECK (step BETWEEN 1 AND 10000),
  CONSTRAINT curves_of_check CHECK ("of" >= step),
  CONSTRAINT curves_quality_check CHECK (quality >= 0 AND quality <= 1),
  CONSTRAINT curves_loss_check CHECK (loss > '-Infinity' AND loss < 'Infinity'),
  CONSTRAINT curves_told_check CHECK (num_nonnulls(quality, loss) > 0),
  CONSTRAINT curves_seconds_check CHECK (seconds >= 0 AND seconds <= 1e9)
);
GRANT SELECT, INSERT ON work.curves TO easeml_worker;
GRANT SELECT ON work.curves TO easeml_referee;
"""

FEEDS = """
-- Labelled pairs that somebody brought. They wait until the referee takes them into the study's training part.
CREATE TABLE work.feeds (
  id               bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT feeds_pkey PRIMARY KEY,
  study_id         bigint NOT NULL CONSTRAINT feeds_study_fkey REFERENCES work.studies,
  request_key      text NOT NULL CONSTRAINT feeds_request_key UNIQUE,
  artifact         text NOT NULL,
  rows             integer NOT NULL,
  origin           text NOT NULL,
  fed_by           text NOT NULL,
  fed_at           timestamptz NOT NULL DEFAULT now(),
  state            text NOT NULL DEFAULT 'waiting',
  reason           text,
  CONSTRAINT feeds_study_key UNIQUE (id, study_id),
  CONSTRAINT feeds_artifact_check CHECK (artifact ~ '^sha256:[0-9a-f]{64}$'),
  CONSTRAINT feeds_rows_check CHECK (rows >= 1 AND rows <= 100000000),
  CONSTRAINT feeds_words_check CHECK (origin ~ '^[^[:cntrl:]]{1,200}$' AND fed_by ~ '^[^[:cntrl:]]{1,200}$'),
  CONSTRAINT feeds_state_check CHECK (state IN ('waiting', 'taken', 'refused')),
  CONSTRAINT feeds_reason_check CHECK (
    (state = 'refused') = (reason IS NOT NULL) AND reason ~ '[^[:space:]]' AND length(reason) <= 2000)
);
CREATE INDEX feeds_waiting_idx ON work.feeds (study_id) WHERE state = 'waiting';

-- Which feed a row of the training part came by; what is not here was registered with the study.
CREATE TABLE work.fed_examples (
  study_id  bigint NOT NULL,
  hash      bytea NOT NULL,
  feed_id   bigint NOT NULL,
  CONSTRAINT fed_examples_pkey PRIMARY KEY (study_id, hash),
  CONSTRAINT fed_examples_feed_fkey FOREIGN KEY (feed_id, study_id) REFERENCES work.feeds (id, study_id),
  CONSTRAINT fed_examples_hash_check CHECK (octet_length(hash) = 32)
);

-- Rows of the training part switched off and on, append-only. refreshed_by: the request that has done so.
CREATE TABLE work.switches (
  id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT switches_pkey PRIMARY KEY,
  study_id      bigint NOT NULL CONSTRAINT switches_study_fkey REFERENCES work.studies,
  hash          bytea NOT NULL,
  is_on         boolean NOT NULL,
  reason        text NOT NULL,
  switched_by   text NOT NULL,
  request_key   text NOT NULL,
  switched_at   timestamptz NOT NULL DEFAULT now(),
  refreshed_by  bigint CONSTRAINT switches_refreshed_fkey REFERENCES work.requests,
  CONSTRAINT switches_request_key UNIQUE (request_key, hash),
  CONSTRAINT switches_hash_check CHECK (octet_length(hash) = 32),
  CONSTRAINT switches_words_check CHECK (
    reason ~ '[^[:space:]]' AND length(reason) <= 500 AND switched_by ~ '^[^[:cntrl:]]{1,200}$')
);
CREATE INDEX switches_study_idx ON work.switches (study_id, hash, id);
CREATE INDEX switches_waiting_idx ON work.switches (study_id) WHERE refreshed_by IS NULL;

-- What the referee made of them. No version: nothing was new. off: the rows that are left out of it, as an artifact.
CREATE TABLE work.refreshes (
  request_id       bigint NOT NULL CONSTRAINT refreshes_pkey PRIMARY KEY
                   CONSTRAINT refreshes_request_fkey REFERENCES work.requests,
  study_id         bigint NOT NULL,
  data_version_id  bigint,
  off              text,
  CONSTRAINT refreshes_version_fkey FOREIGN KEY (data_version_id, study_id)
    REFERENCES work.data_versions (id, study_id),
  CONSTRAINT refreshes_version_key UNIQUE (data_version_id),
  CONSTRAINT refreshes_off_check CHECK (off ~ '^sha256:[0-9a-f]{64}$' AND (off IS NULL OR data_version_id IS NOT NULL))
);
CREATE INDEX refreshes_study_idx ON work.refreshes (study_id);

ALTER TABLE work.requests
  DROP CONSTRAINT requests_kind_check,
  ADD CONSTRAINT requests_kind_check
    CHECK (kind IN ('seal', 'gate', 'meter', 'promote', 'rollback', 'force', 'refresh')),
  DROP CONSTRAINT requests_target_check,
  ADD CONSTRAINT requests_target_check CHECK ((kind IN ('seal', 'refresh')) = (model_id IS NULL));

GRANT SELECT ON work.feeds, work.fed_examples, work.switches, work.refreshes TO easeml_worker, easeml_referee;
GRANT INSERT (study_id, request_key, artifact, rows, origin, fed_by) ON work.feeds TO easeml_worker;
GRANT INSERT (study_id, hash, is_on, reason, switched_by, request_key) ON work.switches TO easeml_worker;
GRANT UPDATE (state, reason) ON work.feeds TO easeml_referee;
GRANT UPDATE (refreshed_by) ON work.switches TO easeml_referee;
GRANT INSERT ON work.fed_examples, work.refreshes TO easeml_referee;
GRANT UPDATE (feed_id) ON work.fed_examples TO easeml_referee;
"""

RUNGS = """
-- What was decided when a trial reached a rung, a share of its epochs. Once for each: an attempt that comes by again is
-- bound by it. hoped: the end it was allowed for; needed: what that must not be below; known: trials that taught it.
CREATE TABLE work.rungs (
  trial_id    bigint NOT NULL CONSTRAINT rungs_trial_fkey REFERENCES work.trials,
  rung        integer NOT NULL,
  step        integer NOT NULL,
  "of"        integer NOT NULL,
  quality     double precision NOT NULL,
  hoped       double precision,
  needed      double precision,
  known       integer NOT NULL,
  rule        text NOT NULL,
  goes_on     boolean NOT NULL,
  decided_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT rungs_pkey PRIMARY KEY (trial_id, rung),
  CONSTRAINT rungs_rung_check CHECK (rung BETWEEN 1 AND 20),
  CONSTRAINT rungs_step_check CHECK (step BETWEEN 1 AND "of"),
  CONSTRAINT rungs_quality_check CHECK (quality >= 0 AND quality <= 1),
  CONSTRAINT rungs_hoped_check CHECK (hoped >= quality AND hoped <= 1),
  CONSTRAINT rungs_needed_check CHECK (needed >= 0 AND needed <= 1),
  CONSTRAINT rungs_known_check CHECK (known >= 0),
  CONSTRAINT rungs_rule_check CHECK (rule IN ('gains', 'median')),
  -- Nobody is stopped without a reason.
  CONSTRAINT rungs_reason_check CHECK (goes_on OR coalesce(hoped < needed, false))
);
GRANT SELECT, INSERT (trial_id, rung, step, "of", quality, hoped, needed, known, rule, goes_on)
  ON work.rungs TO easeml_worker;
GRANT SELECT ON work.rungs TO easeml_referee;
"""


def upgrade() -> None:
    for block in (STUDIES, TRIALS, CURVES, FEEDS, RUNGS):
        if block.strip():
            op.execute(block)
