"""The gate's whole life: labels on demand, answers at fixed times, new sets, submissions, forced promotions, rollbacks.

What the referee decides stays in `sealed` until it is released; how many rows it has there must not tell of labels, so
labels come as one array per labeler, made at its full length and changed in place.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

SETS = """
ALTER TABLE work.test_sets
  ADD COLUMN name text CONSTRAINT test_sets_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  ADD COLUMN labels_on_demand boolean NOT NULL DEFAULT false,
  ADD COLUMN retired_why text,
  ADD COLUMN artifact text CONSTRAINT test_sets_artifact_check CHECK (artifact ~ '^sha256:[0-9a-f]{64}$'),
  ADD CONSTRAINT test_sets_name_key UNIQUE (study_id, name),
  ADD CONSTRAINT test_sets_why_check CHECK (retired_why IN ('steps', 'changes', 'tolerance', 'by hand', 'signals')),
  ADD CONSTRAINT test_sets_released_check CHECK ((state = 'released') = (artifact IS NOT NULL));

-- planned -> sealed -> live -> retired -> released, and nothing leads back: what was used up stays used up. What was
-- planned gets its size when it is sealed, and never another one.
CREATE FUNCTION work.test_sets_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE life text[] := ARRAY['planned', 'sealed', 'live', 'retired', 'released'];
BEGIN
  IF NEW.state <> OLD.state AND array_position(life, NEW.state) <= array_position(life, OLD.state) THEN
    RAISE EXCEPTION 'test set % cannot go from % to %', OLD.id, OLD.state, NEW.state
      USING ERRCODE = 'check_violation', CONSTRAINT = 'test_sets_forward_check';
  END IF;
  IF OLD.state <> 'planned' AND (NEW.rows, NEW.data_version_id, NEW.labels_on_demand)
     IS DISTINCT FROM (OLD.rows, OLD.data_version_id, OLD.labels_on_demand)
  THEN
    RAISE EXCEPTION 'test set % is % and keeps its content', OLD.id, OLD.state
      USING ERRCODE = 'check_violation', CONSTRAINT = 'test_sets_forward_check';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER test_sets_forward BEFORE UPDATE ON work.test_sets
  FOR EACH ROW EXECUTE FUNCTION work.test_sets_forward();

-- Names of the columns after words became columns of 0 and 1: whoever brings new examples brings them encoded alike.
ALTER TABLE work.data_versions ADD COLUMN feature_names jsonb;

-- keys: the uploader's names of the examples; slices: one code an example, the place of its slice in the public plan.
ALTER TABLE sealed.test_sets ADD COLUMN keys jsonb, ADD COLUMN slices bytea;
ALTER TABLE sealed.test_sets ALTER COLUMN keys SET STORAGE EXTERNAL, ALTER COLUMN slices SET STORAGE EXTERNAL;

-- What a labeler has said: one whole number an example, -1 where nothing. In place and at full length.
CREATE TABLE sealed.labels (
  test_set_id  bigint NOT NULL CONSTRAINT labels_test_set_fkey REFERENCES sealed.test_sets,
  labeler      text NOT NULL,
  labels       bytea NOT NULL,
  CONSTRAINT labels_pkey PRIMARY KEY (test_set_id, labeler),
  CONSTRAINT labels_labeler_check CHECK (labeler ~ '^[a-z0-9][a-z0-9_.@-]{0,62}$')
) WITH (autovacuum_enabled = false);
ALTER TABLE sealed.labels ALTER COLUMN labels SET STORAGE EXTERNAL;

-- Which examples a request waits for, and which it has ever asked for: one bit an example, full length.
CREATE TABLE sealed.wanted (
  request_id   bigint NOT NULL CONSTRAINT wanted_request_fkey REFERENCES work.requests,
  test_set_id  bigint NOT NULL CONSTRAINT wanted_test_set_fkey REFERENCES sealed.test_sets,
  examples     bytea NOT NULL,
  asked        bytea NOT NULL,
  is_open      boolean NOT NULL DEFAULT true,
  CONSTRAINT wanted_pkey PRIMARY KEY (request_id, test_set_id)
) WITH (autovacuum_enabled = false);
CREATE INDEX wanted_set_idx ON sealed.wanted (test_set_id);
ALTER TABLE sealed.wanted ALTER COLUMN examples SET STORAGE EXTERNAL, ALTER COLUMN asked SET STORAGE EXTERNAL;
"""

ANSWERS = """
-- Decided, but not yet said: an answer leaves at a time that does not depend on what it says.
CREATE TABLE sealed.outbox (
  request_id  bigint NOT NULL CONSTRAINT outbox_pkey PRIMARY KEY
              CONSTRAINT outbox_request_fkey REFERENCES work.requests,
  refused     boolean NOT NULL,
  message     text NOT NULL,
  facts       jsonb NOT NULL DEFAULT '{}',
  leaves_at   timestamptz NOT NULL,
  left_at     timestamptz
);
CREATE INDEX outbox_waiting_idx ON sealed.outbox (leaves_at) WHERE left_at IS NULL;

CREATE TABLE sealed.mails (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT mails_pkey PRIMARY KEY,
  recipient   text NOT NULL,
  subject     text NOT NULL,
  body        text NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  sent_at     timestamptz
);

-- How often these were written, and how large they are, is nobody's business: without ANALYZE and VACUUM the catalogue,
-- which every role may read, does not learn it.
ALTER TABLE sealed.ledger SET (autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE sealed.predictions SET (autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE sealed.outbox SET (autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE sealed.mails SET (autovacuum_enabled = false, toast.autovacuum_enabled = false);
-- One row each time a request is looked at: under early stopping, once a batch of labels.
ALTER TABLE sealed.attempts SET (autovacuum_enabled = false);

-- What the child was kept from in which the model ran; NULL where it needed none.
ALTER TABLE sealed.predictions ADD COLUMN isolation jsonb;

-- Whether the answer was of the kind that costs (a pass under fp-free, a fail under fn-free).
ALTER TABLE sealed.ledger ADD COLUMN is_change boolean NOT NULL DEFAULT false;

-- An alert is about a reading of the meter, or asks for a new test set.
ALTER TABLE work.alerts
  DROP CONSTRAINT alerts_reading_fkey,
  ALTER COLUMN request_id DROP NOT NULL,
  ADD COLUMN kind text NOT NULL DEFAULT 'overfitting',
  ADD COLUMN test_set_id bigint,
  ADD COLUMN reading_id bigint GENERATED ALWAYS AS (CASE WHEN kind = 'overfitting' THEN request_id END) STORED,
  ADD CONSTRAINT alerts_reading_fkey FOREIGN KEY (reading_id, study_id)
    REFERENCES work.meter_readings (request_id, study_id),
  ADD CONSTRAINT alerts_test_set_fkey FOREIGN KEY (test_set_id) REFERENCES work.test_sets,
  ADD CONSTRAINT alerts_test_set_key UNIQUE (test_set_id),
  ADD CONSTRAINT alerts_kind_check CHECK (kind IN ('overfitting', 'new-test-set')),
  ADD CONSTRAINT alerts_subject_check
    CHECK (CASE kind WHEN 'overfitting' THEN request_id IS NOT NULL ELSE test_set_id IS NOT NULL END),
  -- Whoever clears an alert writes this time, and all who wait for alerts read it: Python knows no year beyond 9999.
  ADD CONSTRAINT alerts_cleared_check
    CHECK (cleared_at >= '2000-01-01 00:00+00' AND cleared_at < '3000-01-01 00:00+00') NOT VALID;
"""

SUBMISSIONS = """
-- A model that a developer handed in has no trial, and is not the baseline.
ALTER TABLE work.models
  ADD COLUMN submitted boolean NOT NULL DEFAULT false,
  DROP CONSTRAINT models_format_check,
  ADD CONSTRAINT models_format_check CHECK (format IN ('skops', 'safetensors', 'constant', 'command')),
  ADD CONSTRAINT models_submitted_check CHECK (NOT submitted OR trial_id IS NULL),
  ADD CONSTRAINT models_submitted_key UNIQUE (id, study_id, submitted);
DROP INDEX work.models_baseline_key;
CREATE UNIQUE INDEX models_baseline_key ON work.models (data_version_id) WHERE trial_id IS NULL AND NOT submitted;

-- Kept for ever: who handed what in, and why. One a model, and none for a model of a trial: nobody can add later that
-- the model in production stands for another version of a bundle.
CREATE TABLE work.submissions (
  id              bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT submissions_pkey PRIMARY KEY,
  study_id        bigint NOT NULL,
  model_id        bigint NOT NULL,
  kind            text NOT NULL,
  message         text NOT NULL,
  bundle          text,
  bundle_version  text,
  request_key     text NOT NULL CONSTRAINT submissions_request_key UNIQUE,
  submitted_at    timestamptz NOT NULL DEFAULT now(),
  submitted_by    text NOT NULL DEFAULT session_user,
  submitted       boolean NOT NULL DEFAULT true CONSTRAINT submissions_submitted_check CHECK (submitted),
  CONSTRAINT submissions_model_key UNIQUE (model_id),
  CONSTRAINT submissions_model_fkey FOREIGN KEY (model_id, study_id, submitted)
    REFERENCES work.models (id, study_id, submitted),
  CONSTRAINT submissions_kind_check CHECK (kind IN ('artifact', 'command', 'bundle')),
  CONSTRAINT submissions_message_check CHECK (message ~ '[^[:space:]]' AND length(message) <= 2000),
  CONSTRAINT submissions_bundle_check CHECK (
    (kind = 'bundle') = (bundle IS NOT NULL) AND (bundle IS NULL) = (bundle_version IS NULL)
    AND bundle ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$' AND bundle_version ~ '^[0-9a-f]{7,64}$')
);
CREATE INDEX submissions_study_idx ON work.submissions (study_id, id);
"""

PROMOTIONS = """
ALTER TABLE work.requests
  DROP CONSTRAINT requests_kind_check,
  ADD CONSTRAINT requests_kind_check CHECK (kind IN ('seal', 'gate', 'meter', 'promote', 'rollback', 'force'));

-- A promotion stands on a recorded pass (none: on a recorded verdict); a rollback on an earlier promotion of the same
-- model; a forced one on somebody's name and reason.
ALTER TABLE work.promotions
  ALTER COLUMN gate_request_id DROP NOT NULL,
  ALTER COLUMN symbol DROP NOT NULL,
  ALTER COLUMN planned DROP NOT NULL,
  ADD COLUMN restores bigint,
  ADD COLUMN who text,
  ADD COLUMN why text,
  DROP CONSTRAINT promotions_symbol_check,
  ADD CONSTRAINT promotions_restores_fkey FOREIGN KEY (restores, study_id, model_id)
    REFERENCES work.promotions (id, study_id, model_id),
  ADD CONSTRAINT promotions_ground_check CHECK (CASE kind
    WHEN 'promote' THEN gate_request_id IS NOT NULL AND planned AND symbol IN ('pass', 'withheld')
      AND symbol IS NOT NULL AND planned IS NOT NULL AND restores IS NULL AND who IS NULL AND why IS NULL
    WHEN 'rollback' THEN restores IS NOT NULL AND gate_request_id IS NULL AND who IS NULL
    WHEN 'force' THEN who ~ '[^[:space:]]' AND why ~ '[^[:space:]]' AND who IS NOT NULL AND why IS NOT NULL
      AND gate_request_id IS NULL AND restores IS NULL
    ELSE false END);
"""

GRANTS = """
GRANT SELECT ON work.submissions TO easeml_worker, easeml_referee;
GRANT INSERT (study_id, model_id, kind, message, bundle, bundle_version, request_key) ON work.submissions
  TO easeml_worker;
GRANT INSERT (submitted) ON work.models TO easeml_worker;
GRANT UPDATE (retired_why, artifact, rows, data_version_id, labels_on_demand) ON work.test_sets TO easeml_referee;
GRANT SELECT, INSERT ON sealed.labels, sealed.wanted, sealed.outbox, sealed.mails TO easeml_referee;
GRANT UPDATE (labels) ON sealed.labels TO easeml_referee;
GRANT UPDATE (examples, asked, is_open) ON sealed.wanted TO easeml_referee;
GRANT UPDATE (left_at) ON sealed.outbox TO easeml_referee;
GRANT UPDATE (sent_at) ON sealed.mails TO easeml_referee;
-- Who holds the referee's address may ask and answer in one go, on the command line.
GRANT INSERT (request_key, kind, study_id, model_id, arguments) ON work.requests TO easeml_referee;
"""


def upgrade() -> None:
    for block in (SETS, ANSWERS, SUBMISSIONS, PROMOTIONS, GRANTS):
        op.execute(block)
