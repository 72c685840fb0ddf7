-- Models, their predictions on validation data, and models that were handed in.

-- What was trained, or handed in. The file of a model can be removed; its row stays.
CREATE TABLE work.models (
  id               bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT models_pkey PRIMARY KEY,
  study_id         bigint NOT NULL,
  data_version_id  bigint NOT NULL,
  trial_id         bigint CONSTRAINT models_trial_key UNIQUE,
  format           text NOT NULL,
  artifact         text NOT NULL CONSTRAINT models_artifact_check CHECK (artifact ~ '^sha256:[0-9a-f]{64}$'),
  validation_loss  double precision NOT NULL,
  created_at       timestamptz NOT NULL DEFAULT now(),
  submitted        boolean NOT NULL DEFAULT false,
  removed_at       timestamptz,
  removed_why      text,
  CONSTRAINT models_loss_check CHECK (validation_loss >= 0 AND validation_loss <= 1),
  CONSTRAINT models_study_key UNIQUE (id, study_id),
  -- A model was trained on the data of its trial.
  CONSTRAINT models_trial_fkey FOREIGN KEY (trial_id, study_id, data_version_id)
    REFERENCES work.trials (id, study_id, data_version_id),
  CONSTRAINT models_data_version_fkey FOREIGN KEY (data_version_id, study_id)
    REFERENCES work.data_versions (id, study_id),
  CONSTRAINT models_submitted_key UNIQUE (id, study_id, submitted),
  CONSTRAINT models_submitted_check CHECK (NOT submitted OR trial_id IS NULL),
  CONSTRAINT models_format_check
    CHECK (format IN ('skops', 'lightgbm', 'xgboost', 'safetensors', 'constant', 'command')),
  CONSTRAINT models_removed_check CHECK ((removed_at IS NULL) = (removed_why IS NULL) AND length(removed_why) <= 2000)
);
CREATE INDEX models_study_idx ON work.models (study_id);
CREATE UNIQUE INDEX models_baseline_key ON work.models (data_version_id) WHERE trial_id IS NULL AND NOT submitted;

-- What a model has predicted for validation examples.
CREATE TABLE work.predictions (
  model_id  bigint NOT NULL CONSTRAINT predictions_model_fkey REFERENCES work.models,
  part      text NOT NULL CONSTRAINT predictions_part_check CHECK (part = 'validation'),
  labels    bytea NOT NULL,
  CONSTRAINT predictions_pkey PRIMARY KEY (model_id, part)
);

-- Kept for ever: who handed what in, and why. One a model, and none for a model of a trial: nobody can add later that
-- the model in production stands for another version of a bundle.
CREATE TABLE work.submissions (
  id              bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT submissions_pkey PRIMARY KEY,
  study_id        bigint NOT NULL,
  model_id        bigint NOT NULL CONSTRAINT submissions_model_key UNIQUE,
  kind            text NOT NULL,
  message         text NOT NULL,
  bundle          text,
  bundle_version  text,
  request_key     text NOT NULL CONSTRAINT submissions_request_key UNIQUE,
  submitted_at    timestamptz NOT NULL DEFAULT now(),
  submitted_by    text NOT NULL DEFAULT session_user,
  submitted       boolean NOT NULL DEFAULT true CONSTRAINT submissions_submitted_check CHECK (submitted),
  CONSTRAINT submissions_kind_check CHECK (kind IN ('artifact', 'command', 'bundle')),
  CONSTRAINT submissions_message_check CHECK (message ~ '[^[:space:]]' AND length(message) <= 2000),
  CONSTRAINT submissions_bundle_check CHECK ((kind = 'bundle') = (bundle IS NOT NULL)
    AND (bundle IS NULL) = (bundle_version IS NULL) AND bundle ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$'
    AND bundle_version ~ '^[0-9a-f]{7,64}$'),
  CONSTRAINT submissions_model_fkey FOREIGN KEY (model_id, study_id, submitted)
    REFERENCES work.models (id, study_id, submitted)
);
CREATE INDEX submissions_study_idx ON work.submissions (study_id, id);

-- A model that could not be measured on this version, and how often: so that nobody tries for ever.
CREATE TABLE work.remeasure_failures (
  model_id         bigint NOT NULL,
  data_version_id  bigint NOT NULL,
  study_id         bigint NOT NULL,
  tries            integer NOT NULL DEFAULT 1 CONSTRAINT remeasure_failures_tries_check CHECK (tries >= 1),
  reason           text NOT NULL,
  tried_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT remeasure_failures_reason_check CHECK (reason ~ '[^[:space:]]' AND length(reason) <= 2000),
  CONSTRAINT remeasure_failures_pkey PRIMARY KEY (model_id, data_version_id),
  CONSTRAINT remeasure_failures_model_fkey FOREIGN KEY (model_id, study_id) REFERENCES work.models (id, study_id),
  CONSTRAINT remeasure_failures_version_fkey FOREIGN KEY (data_version_id, study_id)
    REFERENCES work.data_versions (id, study_id)
);
CREATE INDEX remeasure_failures_study_idx ON work.remeasure_failures (study_id);
