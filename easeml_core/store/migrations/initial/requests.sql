-- Requests to the referee, and what follows from them in public.

-- What somebody asks of the referee.
CREATE TABLE work.requests (
  id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT requests_pkey PRIMARY KEY,
  request_key   text NOT NULL CONSTRAINT requests_request_key UNIQUE,
  kind          text NOT NULL,
  study_id      bigint NOT NULL CONSTRAINT requests_study_fkey REFERENCES work.studies,
  model_id      bigint,
  arguments     jsonb NOT NULL DEFAULT '{}',
  requested_at  timestamptz NOT NULL DEFAULT now(),
  requested_by  text NOT NULL DEFAULT work.caller(),
  -- A number of thousands of digits, or megabytes of text, would harm whoever reads the row.
  CONSTRAINT requests_arguments_check
    CHECK (jsonb_typeof(arguments) = 'object' AND octet_length(arguments::text) < 4000),
  CONSTRAINT requests_target_key UNIQUE (id, kind, study_id, model_id),
  CONSTRAINT requests_model_fkey FOREIGN KEY (model_id, study_id) REFERENCES work.models (id, study_id),
  CONSTRAINT requests_kind_check CHECK (kind IN ('seal', 'gate', 'meter', 'promote', 'rollback', 'force', 'refresh')),
  CONSTRAINT requests_target_check CHECK ((kind IN ('seal', 'refresh')) = (model_id IS NULL))
);
CREATE INDEX requests_study_idx ON work.requests (study_id, kind);

-- The referee's answer to a request; a gate verdict or a meter reading comes with it.
CREATE TABLE work.answers (
  request_id   bigint CONSTRAINT answers_pkey PRIMARY KEY CONSTRAINT answers_request_fkey REFERENCES work.requests,
  refused      boolean NOT NULL,
  message      text NOT NULL,
  answered_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One symbol of a gate: whether a model may replace the incumbent.
CREATE TABLE work.gate_verdicts (
  request_id    bigint CONSTRAINT gate_verdicts_pkey PRIMARY KEY,
  kind          text NOT NULL DEFAULT 'gate',
  study_id      bigint NOT NULL,
  model_id      bigint NOT NULL,
  incumbent_id  bigint NOT NULL,
  test_set_id   bigint NOT NULL,
  purpose       text NOT NULL DEFAULT 'gate',
  step          integer NOT NULL CONSTRAINT gate_verdicts_step_check CHECK (step >= 1),
  symbol        text NOT NULL,
  planned       boolean NOT NULL,  -- judged on the set's own condition; on any other one a pass is advice
  cached        boolean NOT NULL,
  decided_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT gate_verdicts_symbol_check CHECK (symbol IN ('pass', 'fail', 'withheld')),
  CONSTRAINT gate_verdicts_symbol_key UNIQUE (request_id, study_id, model_id, symbol, planned),
  CONSTRAINT gate_verdicts_request_fkey FOREIGN KEY (request_id, kind, study_id, model_id)
    REFERENCES work.requests (id, kind, study_id, model_id),
  CONSTRAINT gate_verdicts_incumbent_fkey FOREIGN KEY (incumbent_id, study_id) REFERENCES work.models (id, study_id),
  CONSTRAINT gate_verdicts_test_set_fkey FOREIGN KEY (test_set_id, study_id, purpose)
    REFERENCES work.test_sets (id, study_id, purpose),
  CONSTRAINT gate_verdicts_kind_check CHECK (kind = 'gate' AND purpose IN ('gate', 'joint'))
);
CREATE INDEX gate_verdicts_study_idx ON work.gate_verdicts (study_id, request_id);
CREATE INDEX gate_verdicts_decided_idx ON work.gate_verdicts (decided_at) INCLUDE (symbol, study_id) WHERE planned;

-- One signal of a meter: how much better a model is on validation than on sealed data. A second signal, of a direct
-- set, tells drift from overfitting.
CREATE TABLE work.meter_readings (
  request_id          bigint CONSTRAINT meter_readings_pkey PRIMARY KEY,
  kind                text NOT NULL DEFAULT 'meter',
  study_id            bigint NOT NULL,
  model_id            bigint NOT NULL,
  test_set_id         bigint NOT NULL,
  purpose             text NOT NULL DEFAULT 'meter',
  step                integer NOT NULL CONSTRAINT meter_readings_step_check CHECK (step >= 1),
  signal              integer,
  signals             integer NOT NULL,
  cached              boolean NOT NULL,
  read_at             timestamptz NOT NULL DEFAULT clock_timestamp(),
  team                integer NOT NULL DEFAULT 1 CONSTRAINT meter_readings_team_check CHECK (team >= 1),
  edges               double precision[],
  tolerance           double precision,
  submissions_left    integer CONSTRAINT meter_readings_left_check CHECK (submissions_left >= 0),
  data_version_id     bigint,
  direct_test_set_id  bigint,
  direct_purpose      text GENERATED ALWAYS AS ('direct') STORED,
  direct_signal       integer,
  drift               text,
  -- No signal: the set was retired instead of answering.
  CONSTRAINT meter_readings_signal_check CHECK (signals >= 2 AND signal >= 1 AND signal <= signals),
  CONSTRAINT meter_readings_study_key UNIQUE (request_id, study_id),
  CONSTRAINT meter_readings_request_fkey FOREIGN KEY (request_id, kind, study_id, model_id)
    REFERENCES work.requests (id, kind, study_id, model_id),
  CONSTRAINT meter_readings_test_set_fkey FOREIGN KEY (test_set_id, study_id, purpose)
    REFERENCES work.test_sets (id, study_id, purpose),
  CONSTRAINT meter_readings_edges_check
    CHECK (cardinality(edges) = signals - 1 AND array_position(edges, NULL) IS NULL),
  CONSTRAINT meter_readings_tolerance_check CHECK (tolerance > 0 AND tolerance < 1),
  CONSTRAINT meter_readings_kind_check CHECK (kind = 'meter' AND purpose IN ('meter', 'joint')),
  CONSTRAINT meter_readings_data_version_fkey FOREIGN KEY (data_version_id, study_id)
    REFERENCES work.data_versions (id, study_id),
  CONSTRAINT meter_readings_direct_fkey FOREIGN KEY (direct_test_set_id, study_id, direct_purpose)
    REFERENCES work.test_sets (id, study_id, purpose),
  CONSTRAINT meter_readings_direct_check CHECK ((direct_signal IS NULL OR direct_test_set_id IS NOT NULL)
    AND direct_signal >= 1 AND direct_signal <= signals),
  CONSTRAINT meter_readings_drift_check CHECK (drift IN ('none seen', 'likely', 'certain')
    AND (drift IS NOT NULL) = (signal IS NOT NULL AND direct_signal IS NOT NULL))
);
CREATE INDEX meter_readings_study_idx ON work.meter_readings (study_id, request_id);

-- Moves of the production pointer: by a verdict, back to an earlier model, or by force with a name and a reason.
CREATE TABLE work.promotions (
  id               bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT promotions_pkey PRIMARY KEY,
  request_id       bigint NOT NULL CONSTRAINT promotions_request_key UNIQUE,
  kind             text NOT NULL DEFAULT 'promote',
  study_id         bigint NOT NULL,
  model_id         bigint NOT NULL,
  gate_request_id  bigint,
  symbol           text DEFAULT 'pass',
  planned          boolean DEFAULT true,
  promoted_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  restores         bigint,
  who              text,
  why              text,
  CONSTRAINT promotions_model_key UNIQUE (id, study_id, model_id),
  CONSTRAINT promotions_request_fkey FOREIGN KEY (request_id, kind, study_id, model_id)
    REFERENCES work.requests (id, kind, study_id, model_id),
  -- No promotion without a recorded pass of this very model on the condition that was sealed with the set.
  CONSTRAINT promotions_verdict_fkey FOREIGN KEY (gate_request_id, study_id, model_id, symbol, planned)
    REFERENCES work.gate_verdicts (request_id, study_id, model_id, symbol, planned),
  CONSTRAINT promotions_restores_fkey FOREIGN KEY (restores, study_id, model_id)
    REFERENCES work.promotions (id, study_id, model_id),
  CONSTRAINT promotions_ground_check CHECK (CASE kind WHEN 'promote' THEN gate_request_id IS NOT NULL AND planned
    AND symbol IN ('pass', 'withheld') AND symbol IS NOT NULL AND planned IS NOT NULL AND restores IS NULL
    AND who IS NULL AND why IS NULL WHEN 'rollback' THEN restores IS NOT NULL AND gate_request_id IS NULL
    AND who IS NULL WHEN 'force' THEN who ~ '[^[:space:]]' AND why ~ '[^[:space:]]' AND who IS NOT NULL
    AND why IS NOT NULL AND gate_request_id IS NULL AND restores IS NULL ELSE false END)
);
CREATE INDEX promotions_promoted_idx ON work.promotions (promoted_at);

-- The model of each study that is in production.
CREATE TABLE work.production (
  study_id      bigint CONSTRAINT production_pkey PRIMARY KEY,
  model_id      bigint NOT NULL,
  promotion_id  bigint NOT NULL,
  CONSTRAINT production_promotion_fkey FOREIGN KEY (promotion_id, study_id, model_id)
    REFERENCES work.promotions (id, study_id, model_id)
);

-- What a person must know of a study, until somebody clears it.
CREATE TABLE work.alerts (
  id           bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alerts_pkey PRIMARY KEY,
  study_id     bigint NOT NULL,
  request_id   bigint,
  message      text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  cleared_at   timestamptz,
  kind         text NOT NULL DEFAULT 'overfitting',
  test_set_id  bigint CONSTRAINT alerts_test_set_key UNIQUE CONSTRAINT alerts_test_set_fkey REFERENCES work.test_sets,
  over_budget  boolean,
  reading_id   bigint GENERATED ALWAYS AS (CASE WHEN kind IN ('overfitting', 'drift') THEN request_id END) STORED,
  team         integer,
  -- Whoever clears an alert writes this time, and all who wait for alerts read it: Python knows no year beyond 9999.
  CONSTRAINT alerts_cleared_check CHECK (cleared_at >= '2000-01-01 00:00+00' AND cleared_at < '3000-01-01 00:00+00'),
  CONSTRAINT alerts_budget_check CHECK (over_budget IS NULL OR kind = 'overfitting'),
  CONSTRAINT alerts_request_key UNIQUE (request_id, kind),
  CONSTRAINT alerts_reading_fkey FOREIGN KEY (reading_id, study_id)
    REFERENCES work.meter_readings (request_id, study_id),
  CONSTRAINT alerts_kind_check CHECK (kind IN ('overfitting', 'new-test-set', 'drift')),
  CONSTRAINT alerts_subject_check
    CHECK (CASE kind WHEN 'new-test-set' THEN test_set_id IS NOT NULL ELSE request_id IS NOT NULL END),
  CONSTRAINT alerts_team_check CHECK (team IS NULL OR (team >= 1 AND kind <> 'new-test-set'))
);
CREATE INDEX alerts_open_idx ON work.alerts (study_id) WHERE cleared_at IS NULL;

-- Labelled pairs that somebody brought. They wait until the referee takes them into the study's training part.
CREATE TABLE work.feeds (
  id           bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT feeds_pkey PRIMARY KEY,
  study_id     bigint NOT NULL CONSTRAINT feeds_study_fkey REFERENCES work.studies,
  request_key  text NOT NULL CONSTRAINT feeds_request_key UNIQUE,
  artifact     text NOT NULL CONSTRAINT feeds_artifact_check CHECK (artifact ~ '^sha256:[0-9a-f]{64}$'),
  rows         integer NOT NULL CONSTRAINT feeds_rows_check CHECK (rows >= 1 AND rows <= 100000000),
  origin       text NOT NULL,
  fed_by       text NOT NULL,
  fed_at       timestamptz NOT NULL DEFAULT now(),
  state        text NOT NULL DEFAULT 'waiting'
               CONSTRAINT feeds_state_check CHECK (state IN ('waiting', 'taken', 'refused')),
  reason       text,
  CONSTRAINT feeds_words_check CHECK (origin ~ '^[^[:cntrl:]]{1,200}$' AND fed_by ~ '^[^[:cntrl:]]{1,200}$'),
  CONSTRAINT feeds_reason_check
    CHECK ((state = 'refused') = (reason IS NOT NULL) AND reason ~ '[^[:space:]]' AND length(reason) <= 2000),
  CONSTRAINT feeds_study_key UNIQUE (id, study_id)
);
CREATE INDEX feeds_waiting_idx ON work.feeds (study_id) WHERE state = 'waiting';

-- Which feed a row of the training part came by; what is not here was registered with the study.
CREATE TABLE work.fed_examples (
  study_id  bigint NOT NULL,
  hash      bytea NOT NULL CONSTRAINT fed_examples_hash_check CHECK (octet_length(hash) = 32),
  feed_id   bigint NOT NULL,
  CONSTRAINT fed_examples_pkey PRIMARY KEY (study_id, hash),
  CONSTRAINT fed_examples_feed_fkey FOREIGN KEY (feed_id, study_id) REFERENCES work.feeds (id, study_id)
);

-- What the referee made of them. No version: nothing was new. off: the rows that are left out of it, as an artifact.
CREATE TABLE work.refreshes (
  request_id       bigint CONSTRAINT refreshes_pkey PRIMARY KEY
                   CONSTRAINT refreshes_request_fkey REFERENCES work.requests,
  study_id         bigint NOT NULL,
  data_version_id  bigint CONSTRAINT refreshes_version_key UNIQUE,
  off              text,
  CONSTRAINT refreshes_off_check
    CHECK (off ~ '^sha256:[0-9a-f]{64}$' AND (off IS NULL OR data_version_id IS NOT NULL)),
  CONSTRAINT refreshes_version_fkey FOREIGN KEY (data_version_id, study_id)
    REFERENCES work.data_versions (id, study_id)
);
CREATE INDEX refreshes_study_idx ON work.refreshes (study_id);

-- Rows of the training part switched off and on, append-only. refreshed_by: the request that has done so.
CREATE TABLE work.switches (
  id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT switches_pkey PRIMARY KEY,
  study_id      bigint NOT NULL CONSTRAINT switches_study_fkey REFERENCES work.studies,
  hash          bytea NOT NULL CONSTRAINT switches_hash_check CHECK (octet_length(hash) = 32),
  is_on         boolean NOT NULL,
  reason        text NOT NULL,
  switched_by   text NOT NULL,
  request_key   text NOT NULL,
  switched_at   timestamptz NOT NULL DEFAULT now(),
  refreshed_by  bigint CONSTRAINT switches_refreshed_fkey REFERENCES work.requests,
  CONSTRAINT switches_words_check
    CHECK (reason ~ '[^[:space:]]' AND length(reason) <= 500 AND switched_by ~ '^[^[:cntrl:]]{1,200}$'),
  CONSTRAINT switches_request_key UNIQUE (request_key, hash)
);
CREATE INDEX switches_study_idx ON work.switches (study_id, hash, id);
CREATE INDEX switches_waiting_idx ON work.switches (study_id) WHERE refreshed_by IS NULL;

-- The quality that a worker claimed, measured again by the referee.
CREATE TABLE work.quality_checks (
  trial_id          bigint CONSTRAINT quality_checks_pkey PRIMARY KEY
                    CONSTRAINT quality_checks_trial_fkey REFERENCES work.trials,
  study_id          bigint NOT NULL,
  model_id          bigint NOT NULL,
  claimed           double precision NOT NULL CONSTRAINT quality_checks_claimed_check CHECK (claimed BETWEEN 0 AND 1),
  measured          double precision CONSTRAINT quality_checks_measured_check CHECK (measured BETWEEN 0 AND 1),
  tolerance         double precision NOT NULL,
  outcome           text NOT NULL GENERATED ALWAYS AS (CASE WHEN measured IS NULL THEN 'unmeasurable'
    WHEN abs(claimed - measured) <= tolerance THEN 'held' ELSE 'not held' END) STORED,
  reason            text,
  checked_at        timestamptz NOT NULL DEFAULT now(),
  acknowledged_at   timestamptz,
  acknowledged_why  text,
  CONSTRAINT quality_checks_tolerance_check CHECK (tolerance >= 0 AND tolerance < 1),
  CONSTRAINT quality_checks_reason_check CHECK (length(reason) BETWEEN 1 AND 500),
  CONSTRAINT quality_checks_why_check CHECK ((reason IS NULL) = (measured IS NOT NULL)),
  CONSTRAINT quality_checks_model_fkey FOREIGN KEY (model_id, study_id) REFERENCES work.models (id, study_id),
  CONSTRAINT quality_checks_acknowledged_why_check CHECK (length(acknowledged_why) BETWEEN 1 AND 500),
  CONSTRAINT quality_checks_acknowledged_check CHECK ((acknowledged_at IS NULL) = (acknowledged_why IS NULL)
    AND (acknowledged_at IS NULL OR outcome = 'not held'))
);
CREATE INDEX quality_checks_study_idx ON work.quality_checks (study_id);
CREATE INDEX quality_checks_not_held_idx ON work.quality_checks (study_id) WHERE outcome = 'not held';
CREATE INDEX quality_checks_news_idx ON work.quality_checks (checked_at) WHERE outcome = 'not held';

-- Whether a referee lives, for every role, with the settings that an estimate needs. It is written at a fixed interval,
-- whatever the process works on, so that it tells nothing about a request.
CREATE TABLE work.heartbeats (
  referee_id      bigint CONSTRAINT heartbeats_pkey PRIMARY KEY,
  workers         integer NOT NULL CONSTRAINT heartbeats_workers_check CHECK (workers BETWEEN 1 AND 64),
  answer_seconds  double precision NOT NULL,
  beat_at         timestamptz NOT NULL,
  until           timestamptz NOT NULL,
  CONSTRAINT heartbeats_answer_check CHECK (answer_seconds BETWEEN 0 AND 2592000),
  CONSTRAINT heartbeats_until_check CHECK (until >= beat_at AND until <= beat_at + interval '1 hour')
) WITH (fillfactor = 50);

-- Counts of requests without a published answer, whatever has been decided: no row for an answered request.
CREATE FUNCTION work.queue_place(of_request bigint, most integer) RETURNS TABLE(is_long boolean, short_ahead integer,
  long_ahead integer) LANGUAGE sql STABLE AS $$
  WITH waiting AS MATERIALIZED (
    SELECT r.id, r.kind IN ('gate', 'meter') AS is_long,
      row_number() OVER (PARTITION BY s.tenant_id, r.kind IN ('gate', 'meter') ORDER BY r.id) AS turn
    FROM (SELECT q.id, q.kind, q.study_id FROM work.requests q ORDER BY q.id DESC LIMIT most) r
    JOIN work.studies s ON s.id = r.study_id
    WHERE NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = r.id))
  SELECT m.is_long, count(o.id) FILTER (WHERE NOT o.is_long)::integer, count(o.id) FILTER (WHERE o.is_long)::integer
  FROM waiting m LEFT JOIN waiting o ON (o.is_long, o.turn, o.id) < (m.is_long, m.turn, m.id)
  WHERE m.id = of_request GROUP BY m.id, m.is_long
$$;
REVOKE EXECUTE ON FUNCTION work.queue_place(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work.queue_place(bigint, integer) TO easeml_worker, easeml_referee;
