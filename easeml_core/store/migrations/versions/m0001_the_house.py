"""The house: tenants, studies, trials, models, requests in `work`; sealed sets and their ledger in `sealed`.

Correctness lives here, in named constraints: the code relies on them and translates their violation. Rights follow the
roles. What the referee says is dated by `clock_timestamp()`, since its transactions are as long as its work.
"""

from alembic import op

revision = "0001"
down_revision = None

WORK = """
CREATE TABLE work.tenants (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT tenants_pkey PRIMARY KEY,
  name        text NOT NULL CONSTRAINT tenants_name_key UNIQUE,
  weight      double precision NOT NULL DEFAULT 1,
  created_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT tenants_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  CONSTRAINT tenants_weight_check CHECK (weight > 0 AND weight <= 1e6)
);

CREATE TABLE work.data_sets (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT data_sets_pkey PRIMARY KEY,
  tenant_id   bigint NOT NULL CONSTRAINT data_sets_tenant_fkey REFERENCES work.tenants,
  source      text NOT NULL,
  target      text NOT NULL DEFAULT '',
  created_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT data_sets_source_key UNIQUE (tenant_id, source, target),
  CONSTRAINT data_sets_tenant_key UNIQUE (id, tenant_id)
);

CREATE TABLE work.studies (
  id              bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT studies_pkey PRIMARY KEY,
  name            text NOT NULL CONSTRAINT studies_name_key UNIQUE,
  tenant_id       bigint NOT NULL,
  data_set_id     bigint NOT NULL,
  state           text NOT NULL DEFAULT 'REGISTERED',
  metric          text NOT NULL,
  weight          double precision NOT NULL DEFAULT 1,
  budget_seconds  double precision,
  config          jsonb NOT NULL,
  request_key     text NOT NULL CONSTRAINT studies_request_key UNIQUE,
  created_at      timestamptz NOT NULL DEFAULT now(),
  -- A study runs on data of its own tenant.
  CONSTRAINT studies_data_set_fkey FOREIGN KEY (data_set_id, tenant_id) REFERENCES work.data_sets (id, tenant_id),
  CONSTRAINT studies_data_set_key UNIQUE (id, data_set_id),
  CONSTRAINT studies_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  CONSTRAINT studies_state_check CHECK (state IN ('REGISTERED', 'ACTIVE', 'PAUSED', 'REFUSED')),
  CONSTRAINT studies_metric_check CHECK (metric IN ('accuracy')),
  CONSTRAINT studies_weight_check CHECK (weight > 0 AND weight <= 1e6),
  CONSTRAINT studies_budget_check CHECK (budget_seconds > 0 AND budget_seconds < 'Infinity')
);

-- A study is split and sealed once: nothing leads back to REGISTERED.
CREATE FUNCTION work.studies_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT ((OLD.state = 'REGISTERED' AND NEW.state IN ('ACTIVE', 'REFUSED') AND current_user <> 'easeml_worker')
       OR (OLD.state IN ('ACTIVE', 'PAUSED') AND NEW.state IN ('ACTIVE', 'PAUSED')))
  THEN
    RAISE EXCEPTION 'study % cannot go from % to %', OLD.name, OLD.state, NEW.state
      USING ERRCODE = 'check_violation', CONSTRAINT = 'studies_forward_check';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER studies_forward BEFORE UPDATE OF state ON work.studies
  FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION work.studies_forward();

CREATE TABLE work.data_versions (
  id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT data_versions_pkey PRIMARY KEY,
  study_id      bigint NOT NULL,
  data_set_id   bigint NOT NULL,
  version       integer NOT NULL,
  content_hash  text NOT NULL,
  artifact      text NOT NULL,
  features      integer NOT NULL,
  class_names   jsonb NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT data_versions_study_fkey FOREIGN KEY (study_id, data_set_id) REFERENCES work.studies (id, data_set_id),
  CONSTRAINT data_versions_version_key UNIQUE (study_id, version),
  CONSTRAINT data_versions_content_key UNIQUE (study_id, content_hash),
  CONSTRAINT data_versions_study_key UNIQUE (id, study_id),
  CONSTRAINT data_versions_version_check CHECK (version >= 1),
  CONSTRAINT data_versions_artifact_check CHECK (artifact ~ '^sha256:[0-9a-f]{64}$'),
  CONSTRAINT data_versions_features_check CHECK (features >= 1)
);

CREATE TABLE work.data_parts (
  data_version_id  bigint NOT NULL CONSTRAINT data_parts_version_fkey REFERENCES work.data_versions,
  part             text NOT NULL,
  rows             integer NOT NULL,
  CONSTRAINT data_parts_pkey PRIMARY KEY (data_version_id, part),
  CONSTRAINT data_parts_part_check CHECK (part IN ('train', 'validation', 'gate', 'meter')),
  CONSTRAINT data_parts_rows_check CHECK (rows > 0)
);

CREATE TABLE work.candidates (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT candidates_pkey PRIMARY KEY,
  study_id    bigint NOT NULL CONSTRAINT candidates_study_fkey REFERENCES work.studies,
  name        text NOT NULL,
  kind        text NOT NULL,
  parameters  jsonb NOT NULL DEFAULT '{}',
  CONSTRAINT candidates_parameters_check
    CHECK (jsonb_typeof(parameters) = 'object' AND octet_length(parameters::text) < 4000),
  CONSTRAINT candidates_name_key UNIQUE (study_id, name),
  CONSTRAINT candidates_study_key UNIQUE (id, study_id)
);

CREATE TABLE work.trials (
  id                bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT trials_pkey PRIMARY KEY,
  study_id          bigint NOT NULL,
  candidate_id      bigint NOT NULL,
  data_version_id   bigint NOT NULL,
  state             text NOT NULL DEFAULT 'SUGGESTED',
  attempt           integer NOT NULL DEFAULT 0,
  lease_key         text,
  lease_until       timestamptz,
  progress          jsonb,
  failure           text,
  cost_seconds      double precision,
  cancel_requested  boolean NOT NULL DEFAULT false,
  suggested_at      timestamptz NOT NULL DEFAULT now(),
  started_at        timestamptz,
  finished_at       timestamptz,
  CONSTRAINT trials_candidate_fkey FOREIGN KEY (candidate_id, study_id) REFERENCES work.candidates (id, study_id),
  CONSTRAINT trials_data_version_fkey FOREIGN KEY (data_version_id, study_id)
    REFERENCES work.data_versions (id, study_id),
  -- No candidate runs twice on the same data, whoever asks.
  CONSTRAINT trials_once_per_data_key UNIQUE (candidate_id, data_version_id),
  CONSTRAINT trials_state_key UNIQUE (id, state),
  CONSTRAINT trials_data_key UNIQUE (id, study_id, data_version_id),
  CONSTRAINT trials_state_check CHECK (state IN ('SUGGESTED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
  -- A lease without an end would never be taken back.
  CONSTRAINT trials_lease_check
    CHECK ((state = 'RUNNING') = (lease_key IS NOT NULL) AND (state <> 'RUNNING' OR lease_until IS NOT NULL)),
  CONSTRAINT trials_failure_check CHECK ((state = 'FAILED') = (failure IS NOT NULL)),
  CONSTRAINT trials_finished_check CHECK ((state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) = (finished_at IS NOT NULL)),
  CONSTRAINT trials_cost_check CHECK (
    cost_seconds > 0 AND cost_seconds <= 1e9 AND (state <> 'SUCCEEDED' OR cost_seconds IS NOT NULL)),
  CONSTRAINT trials_attempt_check CHECK (attempt >= 0)
);

-- States and attempts only move forward; the one step back is a lost lease. What has ended stays as it is.
CREATE FUNCTION work.trials_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state NOT IN ('SUGGESTED', 'RUNNING') OR (OLD.state = 'SUGGESTED' AND NEW.state = 'SUCCEEDED')
     OR NEW.attempt < OLD.attempt
  THEN
    RAISE EXCEPTION 'trial % cannot go from % (attempt %) to % (attempt %)',
      OLD.id, OLD.state, OLD.attempt, NEW.state, NEW.attempt
      USING ERRCODE = 'check_violation', CONSTRAINT = 'trials_forward_check';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER trials_forward BEFORE UPDATE ON work.trials FOR EACH ROW EXECUTE FUNCTION work.trials_forward();

CREATE TABLE work.suggestion_batches (
  id           bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT suggestion_batches_pkey PRIMARY KEY,
  request_key  text NOT NULL CONSTRAINT suggestion_batches_request_key UNIQUE,
  policy       text NOT NULL,
  requested    integer NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT suggestion_batches_requested_check CHECK (requested >= 1)
);

CREATE TABLE work.suggestions (
  batch_id  bigint NOT NULL CONSTRAINT suggestions_batch_fkey REFERENCES work.suggestion_batches,
  position  integer NOT NULL,
  trial_id  bigint NOT NULL CONSTRAINT suggestions_trial_fkey REFERENCES work.trials,
  reasons   jsonb NOT NULL,
  CONSTRAINT suggestions_pkey PRIMARY KEY (batch_id, position),
  CONSTRAINT suggestions_trial_key UNIQUE (batch_id, trial_id)
);

CREATE TABLE work.observations (
  trial_id      bigint NOT NULL CONSTRAINT observations_pkey PRIMARY KEY,
  state         text NOT NULL DEFAULT 'SUCCEEDED',
  quality       double precision NOT NULL,
  cost_seconds  double precision NOT NULL,
  observed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Only a succeeded trial is an observation, and only once.
  CONSTRAINT observations_trial_fkey FOREIGN KEY (trial_id, state) REFERENCES work.trials (id, state),
  CONSTRAINT observations_state_check CHECK (state = 'SUCCEEDED'),
  -- NaN sorts above every number in PostgreSQL, so these two also refuse it.
  CONSTRAINT observations_quality_check CHECK (quality >= 0 AND quality <= 1),
  CONSTRAINT observations_cost_check CHECK (cost_seconds > 0 AND cost_seconds <= 1e9)
);

CREATE TABLE work.models (
  id               bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT models_pkey PRIMARY KEY,
  study_id         bigint NOT NULL,
  data_version_id  bigint NOT NULL,
  trial_id         bigint CONSTRAINT models_trial_key UNIQUE,
  format           text NOT NULL,
  artifact         text NOT NULL,
  validation_loss  double precision NOT NULL,
  created_at       timestamptz NOT NULL DEFAULT now(),
  -- A model was trained on the data of its trial.
  CONSTRAINT models_trial_fkey FOREIGN KEY (trial_id, study_id, data_version_id)
    REFERENCES work.trials (id, study_id, data_version_id),
  CONSTRAINT models_data_version_fkey FOREIGN KEY (data_version_id, study_id)
    REFERENCES work.data_versions (id, study_id),
  CONSTRAINT models_study_key UNIQUE (id, study_id),
  CONSTRAINT models_format_check CHECK (format IN ('skops', 'safetensors', 'constant')),
  CONSTRAINT models_artifact_check CHECK (artifact ~ '^sha256:[0-9a-f]{64}$'),
  CONSTRAINT models_loss_check CHECK (validation_loss >= 0 AND validation_loss <= 1)
);
-- The baseline (majority class) is the one model of a data version that no trial made.
CREATE UNIQUE INDEX models_baseline_key ON work.models (data_version_id) WHERE trial_id IS NULL;

CREATE TABLE work.predictions (
  model_id  bigint NOT NULL CONSTRAINT predictions_model_fkey REFERENCES work.models,
  part      text NOT NULL,
  labels    bytea NOT NULL,
  CONSTRAINT predictions_pkey PRIMARY KEY (model_id, part),
  CONSTRAINT predictions_part_check CHECK (part = 'validation')
);

CREATE TABLE work.test_sets (
  id               bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT test_sets_pkey PRIMARY KEY,
  study_id         bigint NOT NULL,
  data_version_id  bigint NOT NULL,
  purpose          text NOT NULL,
  state            text NOT NULL DEFAULT 'live',
  rows             integer NOT NULL,
  steps            integer NOT NULL,
  plan             jsonb NOT NULL,
  created_at       timestamptz NOT NULL DEFAULT now(),
  retired_at       timestamptz,
  CONSTRAINT test_sets_data_version_fkey FOREIGN KEY (data_version_id, study_id)
    REFERENCES work.data_versions (id, study_id),
  CONSTRAINT test_sets_study_key UNIQUE (id, study_id, purpose),
  CONSTRAINT test_sets_steps_key UNIQUE (id, steps),
  CONSTRAINT test_sets_purpose_check CHECK (purpose IN ('gate', 'meter')),
  CONSTRAINT test_sets_state_check CHECK (state IN ('planned', 'sealed', 'live', 'retired', 'released')),
  CONSTRAINT test_sets_retired_check CHECK ((state IN ('retired', 'released')) = (retired_at IS NOT NULL)),
  CONSTRAINT test_sets_rows_check CHECK (rows > 0),
  CONSTRAINT test_sets_steps_check CHECK (steps >= 1)
);
CREATE UNIQUE INDEX test_sets_live_key ON work.test_sets (study_id, purpose) WHERE state = 'live';

CREATE TABLE work.requests (
  id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT requests_pkey PRIMARY KEY,
  request_key   text NOT NULL CONSTRAINT requests_request_key UNIQUE,
  kind          text NOT NULL,
  study_id      bigint NOT NULL CONSTRAINT requests_study_fkey REFERENCES work.studies,
  model_id      bigint,
  arguments     jsonb NOT NULL DEFAULT '{}',
  requested_at  timestamptz NOT NULL DEFAULT now(),
  requested_by  text NOT NULL DEFAULT session_user,
  CONSTRAINT requests_model_fkey FOREIGN KEY (model_id, study_id) REFERENCES work.models (id, study_id),
  -- A number of thousands of digits, or megabytes of text, would harm whoever reads the row.
  CONSTRAINT requests_arguments_check
    CHECK (jsonb_typeof(arguments) = 'object' AND octet_length(arguments::text) < 4000),
  CONSTRAINT requests_kind_check CHECK (kind IN ('seal', 'gate', 'meter', 'promote')),
  CONSTRAINT requests_target_check CHECK ((kind = 'seal') = (model_id IS NULL)),
  CONSTRAINT requests_target_key UNIQUE (id, kind, study_id, model_id)
);

CREATE TABLE work.answers (
  request_id   bigint NOT NULL CONSTRAINT answers_pkey PRIMARY KEY
               CONSTRAINT answers_request_fkey REFERENCES work.requests,
  refused      boolean NOT NULL,
  message      text NOT NULL,
  answered_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE work.gate_verdicts (
  request_id      bigint NOT NULL CONSTRAINT gate_verdicts_pkey PRIMARY KEY,
  kind            text NOT NULL DEFAULT 'gate',
  study_id        bigint NOT NULL,
  model_id        bigint NOT NULL,
  incumbent_id    bigint NOT NULL,
  test_set_id     bigint NOT NULL,
  purpose         text NOT NULL DEFAULT 'gate',
  step            integer NOT NULL,
  symbol          text NOT NULL,
  planned         boolean NOT NULL,  -- judged on the set's own condition; on any other one a pass is advice
  cached          boolean NOT NULL,
  decided_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT gate_verdicts_request_fkey FOREIGN KEY (request_id, kind, study_id, model_id)
    REFERENCES work.requests (id, kind, study_id, model_id),
  CONSTRAINT gate_verdicts_incumbent_fkey FOREIGN KEY (incumbent_id, study_id) REFERENCES work.models (id, study_id),
  CONSTRAINT gate_verdicts_test_set_fkey FOREIGN KEY (test_set_id, study_id, purpose)
    REFERENCES work.test_sets (id, study_id, purpose),
  CONSTRAINT gate_verdicts_symbol_key UNIQUE (request_id, study_id, model_id, symbol, planned),
  CONSTRAINT gate_verdicts_kind_check CHECK (kind = 'gate' AND purpose = 'gate'),
  CONSTRAINT gate_verdicts_step_check CHECK (step >= 1),
  CONSTRAINT gate_verdicts_symbol_check CHECK (symbol IN ('pass', 'fail', 'withheld'))
);

CREATE TABLE work.meter_readings (
  request_id   bigint NOT NULL CONSTRAINT meter_readings_pkey PRIMARY KEY,
  kind         text NOT NULL DEFAULT 'meter',
  study_id     bigint NOT NULL,
  model_id     bigint NOT NULL,
  test_set_id  bigint NOT NULL,
  purpose      text NOT NULL DEFAULT 'meter',
  step         integer NOT NULL,
  signal       integer,
  signals      integer NOT NULL,
  cached       boolean NOT NULL,
  read_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT meter_readings_request_fkey FOREIGN KEY (request_id, kind, study_id, model_id)
    REFERENCES work.requests (id, kind, study_id, model_id),
  CONSTRAINT meter_readings_test_set_fkey FOREIGN KEY (test_set_id, study_id, purpose)
    REFERENCES work.test_sets (id, study_id, purpose),
  CONSTRAINT meter_readings_study_key UNIQUE (request_id, study_id),
  CONSTRAINT meter_readings_kind_check CHECK (kind = 'meter' AND purpose = 'meter'),
  CONSTRAINT meter_readings_step_check CHECK (step >= 1),
  -- No signal: the set was retired instead of answering.
  CONSTRAINT meter_readings_signal_check CHECK (signals >= 2 AND signal >= 1 AND signal <= signals)
);

CREATE TABLE work.promotions (
  id               bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT promotions_pkey PRIMARY KEY,
  request_id       bigint NOT NULL CONSTRAINT promotions_request_key UNIQUE,
  kind             text NOT NULL DEFAULT 'promote',
  study_id         bigint NOT NULL,
  model_id         bigint NOT NULL,
  gate_request_id  bigint NOT NULL,
  symbol           text NOT NULL DEFAULT 'pass',
  planned          boolean NOT NULL DEFAULT true,
  promoted_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT promotions_request_fkey FOREIGN KEY (request_id, kind, study_id, model_id)
    REFERENCES work.requests (id, kind, study_id, model_id),
  -- No promotion without a recorded pass of this very model on the condition that was sealed with the set.
  CONSTRAINT promotions_verdict_fkey FOREIGN KEY (gate_request_id, study_id, model_id, symbol, planned)
    REFERENCES work.gate_verdicts (request_id, study_id, model_id, symbol, planned),
  CONSTRAINT promotions_symbol_check CHECK (symbol = 'pass' AND kind = 'promote' AND planned),
  CONSTRAINT promotions_model_key UNIQUE (id, study_id, model_id)
);

CREATE TABLE work.production (
  study_id      bigint NOT NULL CONSTRAINT production_pkey PRIMARY KEY,
  model_id      bigint NOT NULL,
  promotion_id  bigint NOT NULL,
  CONSTRAINT production_promotion_fkey FOREIGN KEY (promotion_id, study_id, model_id)
    REFERENCES work.promotions (id, study_id, model_id)
);

CREATE TABLE work.alerts (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alerts_pkey PRIMARY KEY,
  study_id    bigint NOT NULL,
  request_id  bigint NOT NULL CONSTRAINT alerts_request_key UNIQUE,
  message     text NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  cleared_at  timestamptz,
  CONSTRAINT alerts_reading_fkey FOREIGN KEY (request_id, study_id)
    REFERENCES work.meter_readings (request_id, study_id)
);

CREATE INDEX trials_open_idx ON work.trials (state) WHERE state IN ('SUGGESTED', 'RUNNING');
CREATE INDEX trials_study_idx ON work.trials (study_id);
CREATE INDEX models_study_idx ON work.models (study_id);
CREATE INDEX requests_study_idx ON work.requests (study_id, kind);
CREATE INDEX gate_verdicts_study_idx ON work.gate_verdicts (study_id, request_id);
CREATE INDEX meter_readings_study_idx ON work.meter_readings (study_id, request_id);
CREATE INDEX alerts_open_idx ON work.alerts (study_id) WHERE cleared_at IS NULL;
"""

SEALED = """
CREATE TABLE sealed.installation (
  singleton  boolean NOT NULL DEFAULT true CONSTRAINT installation_pkey PRIMARY KEY,
  secret     uuid NOT NULL DEFAULT gen_random_uuid(),
  CONSTRAINT installation_singleton_check CHECK (singleton)
);
INSERT INTO sealed.installation DEFAULT VALUES;

CREATE TABLE sealed.test_sets (
  id           bigint NOT NULL CONSTRAINT test_sets_pkey PRIMARY KEY,
  steps        integer NOT NULL,
  fingerprint  text NOT NULL CONSTRAINT test_sets_fingerprint_key UNIQUE,
  inputs       bytea NOT NULL,
  labels       bytea NOT NULL,
  sealed_at    timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT test_sets_public_fkey FOREIGN KEY (id, steps) REFERENCES work.test_sets (id, steps),
  CONSTRAINT test_sets_steps_key UNIQUE (id, steps)
);

-- No example of a study lies in two sealed sets; one row an example, so the count tells the size only.
CREATE TABLE sealed.examples (
  study_id     bigint NOT NULL,
  hash         bytea NOT NULL,
  test_set_id  bigint NOT NULL CONSTRAINT examples_test_set_fkey REFERENCES sealed.test_sets,
  CONSTRAINT examples_pkey PRIMARY KEY (study_id, hash)
);

CREATE TABLE sealed.predictions (
  test_set_id  bigint NOT NULL CONSTRAINT predictions_test_set_fkey REFERENCES sealed.test_sets,
  model        text NOT NULL,  -- format and artifact: one file can be read as two formats
  labels       bytea,
  failure      text,
  CONSTRAINT predictions_pkey PRIMARY KEY (test_set_id, model),
  CONSTRAINT predictions_outcome_check CHECK ((labels IS NULL) <> (failure IS NULL))
);

-- How often work on a request began: one that kills the referee is given up in the end.
CREATE TABLE sealed.attempts (
  request_id  bigint NOT NULL CONSTRAINT attempts_request_fkey REFERENCES work.requests,
  attempt     integer NOT NULL,
  survived    boolean NOT NULL DEFAULT false,
  begun_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT attempts_pkey PRIMARY KEY (request_id, attempt)
);

CREATE TABLE sealed.ledger (
  id           bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT ledger_pkey PRIMARY KEY,
  test_set_id  bigint NOT NULL,
  step         integer NOT NULL,
  steps        integer NOT NULL,
  request_id   bigint NOT NULL CONSTRAINT ledger_request_key UNIQUE
               CONSTRAINT ledger_request_fkey REFERENCES work.requests,
  cache_key    text NOT NULL,
  answer       text NOT NULL,
  log_level    double precision NOT NULL,
  log_cost     double precision NOT NULL,
  tolerance    double precision,
  report       jsonb NOT NULL,
  decided_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT ledger_test_set_fkey FOREIGN KEY (test_set_id, steps) REFERENCES sealed.test_sets (id, steps),
  CONSTRAINT ledger_step_key UNIQUE (test_set_id, step),
  CONSTRAINT ledger_cache_key UNIQUE (test_set_id, cache_key),
  CONSTRAINT ledger_step_check CHECK (step >= 1 AND step <= steps),
  -- NaN sorts above infinity, so the upper bounds also refuse it: one such entry would void every later level.
  CONSTRAINT ledger_log_level_check CHECK (log_level <= 0 AND log_level > '-Infinity'),
  CONSTRAINT ledger_log_cost_check CHECK (log_cost >= 0 AND log_cost < 'Infinity'),
  CONSTRAINT ledger_tolerance_check CHECK (tolerance >= 0 AND tolerance < 'Infinity')
);

CREATE FUNCTION sealed.append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_append_only';
END $$;
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE ON sealed.ledger
  FOR EACH ROW EXECUTE FUNCTION sealed.append_only();
CREATE TRIGGER ledger_keep_all BEFORE TRUNCATE ON sealed.ledger EXECUTE FUNCTION sealed.append_only();

-- Every role may ask how large a table is on disk: compressed, its size would tell of what is in it.
ALTER TABLE sealed.test_sets ALTER COLUMN inputs SET STORAGE EXTERNAL, ALTER COLUMN labels SET STORAGE EXTERNAL;
ALTER TABLE sealed.predictions ALTER COLUMN labels SET STORAGE EXTERNAL;
"""

GRANTS = """
GRANT SELECT ON ALL TABLES IN SCHEMA work TO easeml_worker, easeml_referee;
GRANT INSERT ON work.tenants, work.data_sets, work.candidates, work.suggestion_batches,
  work.suggestions, work.observations, work.models, work.predictions TO easeml_worker;
-- A trial begins as SUGGESTED, a study as REGISTERED, and a request is signed and dated by the database: the other
-- columns have defaults.
GRANT INSERT (name, tenant_id, data_set_id, metric, weight, budget_seconds, config, request_key) ON work.studies
  TO easeml_worker;
GRANT INSERT (study_id, candidate_id, data_version_id) ON work.trials TO easeml_worker;
GRANT INSERT (request_key, kind, study_id, model_id, arguments) ON work.requests TO easeml_worker;
GRANT UPDATE (state, attempt, lease_key, lease_until, progress, failure, cost_seconds, cancel_requested, started_at,
  finished_at) ON work.trials TO easeml_worker;
GRANT UPDATE (state, weight, budget_seconds) ON work.studies TO easeml_worker;
GRANT UPDATE (state) ON work.studies TO easeml_referee;
GRANT UPDATE (weight) ON work.tenants TO easeml_worker;
GRANT UPDATE (cleared_at) ON work.alerts TO easeml_worker;
GRANT INSERT ON work.data_versions, work.data_parts, work.candidates, work.models, work.test_sets, work.answers,
  work.gate_verdicts, work.meter_readings, work.promotions, work.production, work.alerts TO easeml_referee;
GRANT UPDATE (state, retired_at) ON work.test_sets TO easeml_referee;
GRANT UPDATE (model_id, promotion_id) ON work.production TO easeml_referee;
-- A row can only be locked by who may update a column of it; the referee locks the request it works on.
GRANT UPDATE (arguments) ON work.requests TO easeml_referee;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA sealed TO easeml_referee;
GRANT UPDATE (survived) ON sealed.attempts TO easeml_referee;
REVOKE INSERT ON sealed.installation FROM easeml_referee;
"""

ROLES = """
DO $$ BEGIN
  IF (SELECT count(*) FROM pg_roles WHERE rolname IN ('easeml_worker', 'easeml_referee')) < 2 THEN
    RAISE EXCEPTION 'the roles easeml_worker and easeml_referee must exist before the schema; see docs/install.md';
  END IF;
END $$;
"""


def upgrade() -> None:
    for block in (ROLES, WORK, SEALED, GRANTS):
        op.execute(block)
