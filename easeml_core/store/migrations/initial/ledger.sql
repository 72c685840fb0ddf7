-- The referee's own tables: measurements, the ledger of answers, claims, and what leaves at fixed times. What follows
-- from sealed labels is moved out of its row always, whatever it says. PostgreSQL numbers each value that it moves
-- with a counter from which every role can draw: with ALTER DEFAULT PRIVILEGES, which needs no right. A row of the
-- tables with toast_tuple_target = 128 is, with its filler (store/rows.py), longer than what stays in place, 2,032
-- bytes. Then PostgreSQL moves EXTERNAL values, the longest first, until 128 bytes are left, which what stays (MAIN)
-- and any one value exceed. So every such value is moved, uncompressed, and draws one number.

-- What a model has predicted for a sealed set, or why it could not: each model runs once on a set.
CREATE TABLE sealed.predictions (
  test_set_id  bigint NOT NULL CONSTRAINT predictions_test_set_fkey REFERENCES sealed.test_sets,
  model        text NOT NULL,  -- format and artifact: one file can be read as two formats
  labels       bytea,
  failure      text,
  -- What the child was kept from in which the model ran; NULL where it needed none.
  isolation    jsonb,
  filler       bytea NOT NULL DEFAULT '',
  CONSTRAINT predictions_outcome_check CHECK ((labels IS NULL) <> (failure IS NULL)),
  CONSTRAINT predictions_pkey PRIMARY KEY (test_set_id, model)
) WITH (autovacuum_enabled = false, toast_tuple_target = 128, toast.autovacuum_enabled = false);
ALTER TABLE sealed.predictions ALTER COLUMN model SET STORAGE MAIN, ALTER COLUMN labels SET STORAGE EXTERNAL,
  ALTER COLUMN failure SET STORAGE EXTERNAL, ALTER COLUMN isolation SET STORAGE MAIN,
  ALTER COLUMN filler SET STORAGE EXTERNAL;

-- How often work on a request began: one that kills the referee is given up in the end.
CREATE TABLE sealed.attempts (
  request_id  bigint NOT NULL CONSTRAINT attempts_request_fkey REFERENCES work.requests,
  attempt     integer NOT NULL,
  survived    boolean NOT NULL DEFAULT false,
  begun_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT attempts_pkey PRIMARY KEY (request_id, attempt)
) WITH (autovacuum_enabled = false);

-- One row each time; bounded: the request may have brought the fault about itself (a kill, a time-out, no memory).
-- reason: a word of ours, an errno or the name of an error, never what a model says.
CREATE TABLE sealed.put_offs (
  request_id  bigint NOT NULL,
  attempt     integer NOT NULL,
  bounded     boolean NOT NULL,
  reason      text NOT NULL CONSTRAINT put_offs_reason_check CHECK (reason ~ '^[A-Za-z0-9_]{1,100}$'),
  put_off_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  until       timestamptz NOT NULL,
  most        integer,
  CONSTRAINT put_offs_until_check CHECK (until > put_off_at AND until <= put_off_at + interval '1 day'),
  CONSTRAINT put_offs_pkey PRIMARY KEY (request_id, attempt),
  CONSTRAINT put_offs_attempt_fkey FOREIGN KEY (request_id, attempt) REFERENCES sealed.attempts (request_id, attempt),
  CONSTRAINT put_offs_most_check CHECK (most IS NULL OR (bounded AND most >= 1))
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);

-- Every answer that was computed from sealed labels, with what it costs of the set's plan. Append-only.
CREATE TABLE sealed.ledger (
  id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT ledger_pkey PRIMARY KEY,
  test_set_id   bigint NOT NULL,
  step          integer NOT NULL,
  steps         integer NOT NULL,
  request_id    bigint NOT NULL CONSTRAINT ledger_request_fkey REFERENCES work.requests,
  cache_key     text NOT NULL,
  answer        text NOT NULL,
  log_level     double precision NOT NULL,
  log_cost      double precision NOT NULL,
  tolerance     double precision,
  report        jsonb NOT NULL,
  decided_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Whether the answer was of the kind that costs (a pass under fp-free, a fail under fn-free).
  is_change     boolean NOT NULL DEFAULT false,
  open_ended    boolean NOT NULL DEFAULT false,
  -- Makes all usual entries equally long: how many pages the table has must not tell of the digits in a report.
  filler        bytea NOT NULL DEFAULT '',
  system        text NOT NULL CONSTRAINT ledger_system_check CHECK (system IN ('gate', 'meter', 'other')),
  system_step   integer NOT NULL,
  system_steps  integer NOT NULL,
  -- NaN sorts above infinity, so the upper bounds also refuse it: one such entry would void every later level.
  CONSTRAINT ledger_log_level_check CHECK (log_level <= 0 AND log_level > '-Infinity'),
  CONSTRAINT ledger_log_cost_check CHECK (log_cost >= 0 AND log_cost < 'Infinity'),
  CONSTRAINT ledger_tolerance_check CHECK (tolerance >= 0 AND tolerance < 'Infinity'),
  CONSTRAINT ledger_step_key UNIQUE (test_set_id, step),
  CONSTRAINT ledger_cache_key UNIQUE (test_set_id, cache_key),
  CONSTRAINT ledger_test_set_fkey FOREIGN KEY (test_set_id, steps) REFERENCES sealed.test_sets (id, steps),
  CONSTRAINT ledger_system_step_key UNIQUE (test_set_id, system, system_step),
  CONSTRAINT ledger_request_key UNIQUE (request_id, test_set_id),
  CONSTRAINT ledger_system_step_check
    CHECK (system_step >= 1 AND system_step <= step AND (system_step <= system_steps OR open_ended)),
  CONSTRAINT ledger_step_check CHECK (step >= 1 AND (step <= steps OR open_ended OR system = 'other')),
  CONSTRAINT ledger_other_check CHECK (system <> 'other' OR (step = steps + system_step AND NOT is_change))
) WITH (autovacuum_enabled = false, toast_tuple_target = 128, toast.autovacuum_enabled = false);
ALTER TABLE sealed.ledger ALTER COLUMN cache_key SET STORAGE MAIN, ALTER COLUMN answer SET STORAGE MAIN,
  ALTER COLUMN report SET STORAGE EXTERNAL, ALTER COLUMN filler SET STORAGE EXTERNAL,
  ALTER COLUMN system SET STORAGE MAIN;

-- Which examples a request waits for, and which it has ever asked for: one bit an example, full length.
CREATE TABLE sealed.wanted (
  request_id   bigint NOT NULL CONSTRAINT wanted_request_fkey REFERENCES work.requests,
  test_set_id  bigint NOT NULL CONSTRAINT wanted_test_set_fkey REFERENCES sealed.test_sets,
  examples     bytea NOT NULL,
  asked        bytea NOT NULL,
  is_open      boolean NOT NULL DEFAULT true,
  CONSTRAINT wanted_pkey PRIMARY KEY (request_id, test_set_id)
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
CREATE INDEX wanted_set_idx ON sealed.wanted (test_set_id);
ALTER TABLE sealed.wanted ALTER COLUMN examples SET STORAGE EXTERNAL, ALTER COLUMN asked SET STORAGE EXTERNAL;

-- One row a process. It extends its lease at a fixed interval from its start, whatever it works on, so that nothing of
-- a model's run can be read from when the row changes.
CREATE TABLE sealed.referees (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT referees_pkey PRIMARY KEY,
  started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  beat_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  until       timestamptz NOT NULL,
  CONSTRAINT referees_until_check CHECK (until >= beat_at AND until <= beat_at + interval '1 hour')
) WITH (autovacuum_enabled = false);
ALTER TABLE work.heartbeats ADD CONSTRAINT heartbeats_referee_fkey FOREIGN KEY (referee_id)
  REFERENCES sealed.referees;

-- A request, or a duty of the whole installation, belongs to at most one referee; to none where referee_id is NULL.
CREATE TABLE sealed.claims (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT claims_pkey PRIMARY KEY,
  request_id  bigint CONSTRAINT claims_request_key UNIQUE CONSTRAINT claims_request_fkey REFERENCES work.requests,
  duty        text CONSTRAINT claims_duty_key UNIQUE CONSTRAINT claims_duty_check CHECK (duty IN ('earlier models')),
  referee_id  bigint CONSTRAINT claims_referee_fkey REFERENCES sealed.referees,
  claimed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT claims_subject_check CHECK (num_nonnulls(request_id, duty) = 1)
) WITH (autovacuum_enabled = false, fillfactor = 50);

-- When a request of the tenant was last taken up: of two tenants the other one comes first.
CREATE TABLE sealed.turns (
  tenant_id  bigint CONSTRAINT turns_pkey PRIMARY KEY CONSTRAINT turns_tenant_fkey REFERENCES work.tenants,
  taken_at   timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_enabled = false, fillfactor = 50);

-- Decided, but not yet said: an answer leaves at a time that does not depend on what it says.
CREATE TABLE sealed.outbox (
  request_id  bigint CONSTRAINT outbox_pkey PRIMARY KEY CONSTRAINT outbox_request_fkey REFERENCES work.requests,
  refused     boolean NOT NULL,
  message     text NOT NULL,
  facts       jsonb NOT NULL DEFAULT '{}',
  leaves_at   timestamptz NOT NULL,
  left_at     timestamptz,
  filler      bytea NOT NULL DEFAULT ''
) WITH (autovacuum_enabled = false, toast_tuple_target = 128, toast.autovacuum_enabled = false);
CREATE INDEX outbox_waiting_idx ON sealed.outbox (leaves_at) WHERE left_at IS NULL;
ALTER TABLE sealed.outbox ALTER COLUMN message SET STORAGE MAIN, ALTER COLUMN facts SET STORAGE EXTERNAL,
  ALTER COLUMN filler SET STORAGE EXTERNAL;

-- Mails of the referee to labelers and owners, as they were written.
CREATE TABLE sealed.mails (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT mails_pkey PRIMARY KEY,
  recipient   text NOT NULL,
  subject     text NOT NULL,
  body        text NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  sent_at     timestamptz,
  filler      bytea NOT NULL DEFAULT ''
) WITH (autovacuum_enabled = false, toast_tuple_target = 128, toast.autovacuum_enabled = false);
ALTER TABLE sealed.mails ALTER COLUMN recipient SET STORAGE MAIN, ALTER COLUMN subject SET STORAGE MAIN,
  ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN filler SET STORAGE EXTERNAL;

CREATE FUNCTION sealed.keep_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM sealed.referees f WHERE f.id = OLD.referee_id AND f.until > clock_timestamp()) THEN
    RAISE EXCEPTION 'another referee works on it' USING ERRCODE = 'check_violation', CONSTRAINT = 'claims_held';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER claims_held BEFORE UPDATE ON sealed.claims FOR EACH ROW WHEN (NEW.referee_id IS NOT NULL
  AND OLD.referee_id IS NOT NULL AND OLD.referee_id <> NEW.referee_id) EXECUTE FUNCTION sealed.keep_claim();
