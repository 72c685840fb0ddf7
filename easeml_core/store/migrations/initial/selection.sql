-- How trials are selected, for whom, and the devices that they run on.

-- Rows to lock in place of advisory locks, every one of which PostgreSQL gives every role. A tenant's login has no
-- right on it.
CREATE TABLE work.locks (
  name  text CONSTRAINT locks_pkey PRIMARY KEY,
  held  boolean NOT NULL DEFAULT false
);

INSERT INTO work.locks (name) SELECT unnest(ARRAY['suggest', 'assess', 'row registry'])
  UNION ALL SELECT 'other ' || k FROM generate_series(0, 15) k;

-- Settings of the scheduler; the newest row is in force.
CREATE TABLE work.selection_settings (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT selection_settings_pkey PRIMARY KEY,
  config      jsonb NOT NULL,
  reason      text NOT NULL,
  report      jsonb,
  created_at  timestamptz NOT NULL DEFAULT now(),
  created_by  text NOT NULL DEFAULT session_user,
  -- Every decision reads the newest row; a long order of candidates has room.
  CONSTRAINT selection_settings_config_check
    CHECK (jsonb_typeof(config) = 'object' AND octet_length(config::text) < 100000),
  CONSTRAINT selection_settings_reason_check CHECK (reason ~ '[^[:space:]]' AND length(reason) <= 2000),
  CONSTRAINT selection_settings_report_check
    CHECK (jsonb_typeof(report) = 'object' AND octet_length(report::text) < 1000000)
);

-- One decision of the scheduler, with the settings that it was made by.
CREATE TABLE work.suggestion_batches (
  id           bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT suggestion_batches_pkey PRIMARY KEY,
  request_key  text NOT NULL CONSTRAINT suggestion_batches_request_key UNIQUE,
  policy       text NOT NULL CONSTRAINT suggestion_batches_policy_check CHECK (length(policy) <= 100),
  requested    integer NOT NULL CONSTRAINT suggestion_batches_requested_check CHECK (requested >= 1),
  created_at   timestamptz NOT NULL DEFAULT now(),
  settings_id  bigint CONSTRAINT suggestion_batches_settings_fkey REFERENCES work.selection_settings
);

-- The trials of a decision, with reasons. rival: the second best, which may be another tenant's, so that logins cannot
-- read it.
CREATE TABLE work.suggestions (
  batch_id  bigint NOT NULL CONSTRAINT suggestions_batch_fkey REFERENCES work.suggestion_batches,
  position  integer NOT NULL,
  trial_id  bigint NOT NULL CONSTRAINT suggestions_trial_fkey REFERENCES work.trials,
  reasons   jsonb NOT NULL,
  rival     jsonb CONSTRAINT suggestions_rival_check CHECK (jsonb_typeof(rival) = 'object'),
  CONSTRAINT suggestions_pkey PRIMARY KEY (batch_id, "position"),
  CONSTRAINT suggestions_trial_key UNIQUE (batch_id, trial_id),
  CONSTRAINT suggestions_reasons_check
    CHECK (jsonb_typeof(reasons) = 'object' AND octet_length(reasons::text) < 20000)
);
CREATE INDEX suggestions_trial_idx ON work.suggestions (trial_id);

-- A login's request for suggestions, which the scheduler's process decides and refuses.
CREATE TABLE work.suggestion_requests (
  id           bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT suggestion_requests_pkey PRIMARY KEY,
  request_key  text NOT NULL,
  login        text NOT NULL DEFAULT work.caller(),
  requested    integer NOT NULL,
  device       text,
  studies      text[],
  functions    text[] NOT NULL DEFAULT '{}',
  sources      text[] NOT NULL DEFAULT '{}',
  trainers     boolean NOT NULL,
  runtimes     text[],
  filed_at     timestamptz NOT NULL DEFAULT now(),
  tries        integer NOT NULL DEFAULT 0 CONSTRAINT suggestion_requests_tries_check CHECK (tries >= 0),
  decided_at   timestamptz,
  refusal      text,
  -- W3C Trace Context, version 00; NULL where the caller is not traced.
  traceparent  text,
  CONSTRAINT suggestion_requests_key_check CHECK (length(request_key) BETWEEN 1 AND 1000),
  CONSTRAINT suggestion_requests_requested_check CHECK (requested BETWEEN 1 AND 1000),
  CONSTRAINT suggestion_requests_device_check CHECK (length(device) BETWEEN 1 AND 100),
  CONSTRAINT suggestion_requests_studies_check CHECK (cardinality(studies) <= 10000
    AND octet_length(studies::text) <= 1000000 AND coalesce(array_ndims(studies), 1) = 1),
  CONSTRAINT suggestion_requests_functions_check CHECK (cardinality(functions) <= 200
    AND octet_length(functions::text) <= 100000 AND coalesce(array_ndims(functions), 1) = 1
    AND array_position(functions, NULL) IS NULL),
  CONSTRAINT suggestion_requests_sources_check CHECK (cardinality(sources) = cardinality(functions)
    AND octet_length(sources::text) <= 100000 AND coalesce(array_ndims(sources), 1) = 1),
  CONSTRAINT suggestion_requests_runtimes_check CHECK (cardinality(runtimes) <= 10
    AND octet_length(runtimes::text) <= 1000 AND coalesce(array_ndims(runtimes), 1) = 1),
  CONSTRAINT suggestion_requests_refusal_check
    CHECK (refusal IS NULL OR (length(refusal) BETWEEN 1 AND 2000 AND decided_at IS NOT NULL)),
  CONSTRAINT suggestion_requests_traceparent_check CHECK (traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$')
);
CREATE UNIQUE INDEX suggestion_requests_request_key ON work.suggestion_requests (request_key) WHERE refusal IS NULL;
CREATE INDEX suggestion_requests_open_idx ON work.suggestion_requests (login, id) WHERE decided_at IS NULL;
CREATE INDEX suggestion_requests_decided_idx ON work.suggestion_requests (decided_at);

-- What was able to execute trials of a study when it last asked for some: study '' stands for all studies.
CREATE TABLE work.offers (
  implementation  text NOT NULL,
  study           text NOT NULL,
  asked_at        timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT offers_length_check CHECK (octet_length(implementation) <= 1000 AND octet_length(study) <= 500),
  CONSTRAINT offers_pkey PRIMARY KEY (implementation, study)
);

-- Processes that decide about requests for suggestions, with their heartbeats.
CREATE TABLE work.scheduler_beats (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT scheduler_beats_pkey PRIMARY KEY,
  started_at  timestamptz NOT NULL DEFAULT now(),
  beat_at     timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT scheduler_beats_beat_check CHECK (beat_at >= started_at)
) WITH (fillfactor = 50);

-- Devices that workers have announced. One process holds slots of a device at a time; the row without a holder says
-- that the device is there.
CREATE TABLE work.devices (
  login         text NOT NULL CONSTRAINT devices_login_check CHECK (length(login) BETWEEN 1 AND 63),
  -- Of a tenant's login its tenants; empty where the device is the provider's.
  tenants       bigint[] NOT NULL,
  host          text NOT NULL CONSTRAINT devices_host_check CHECK (length(host) BETWEEN 1 AND 253),
  name          text NOT NULL,
  holder        text NOT NULL CONSTRAINT devices_holder_check CHECK (length(holder) <= 1000),
  kind          text NOT NULL CONSTRAINT devices_kind_check CHECK (kind ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  model         text CONSTRAINT devices_model_check CHECK (length(model) BETWEEN 1 AND 200),
  memory_mb     integer CONSTRAINT devices_memory_check CHECK (memory_mb > 0),
  driver        text CONSTRAINT devices_driver_check CHECK (length(driver) BETWEEN 1 AND 100),
  slots         integer NOT NULL CONSTRAINT devices_slots_check CHECK (slots BETWEEN 1 AND 1024),
  held          integer NOT NULL,
  announced_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  beat_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT devices_held_check CHECK (held BETWEEN 0 AND slots AND (held > 0) = (holder <> '')),
  CONSTRAINT devices_beat_check CHECK (beat_at >= announced_at),
  CONSTRAINT devices_pkey PRIMARY KEY (login, host, name, holder),
  CONSTRAINT devices_name_check CHECK (name ~ '^(cpu|cuda:[0-9]{1,3}(:[0-9]{1,2})?)$')
) WITH (fillfactor = 50);

CREATE FUNCTION work.settings_are_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'settings of the scheduler are append-only: batches of suggestions refer to them'
    USING ERRCODE = 'check_violation', CONSTRAINT = 'selection_settings_append_only';
END $$;
CREATE TRIGGER selection_settings_append_only BEFORE UPDATE OR DELETE ON work.selection_settings FOR EACH ROW
  EXECUTE FUNCTION work.settings_are_kept();
CREATE TRIGGER selection_settings_keep_all BEFORE TRUNCATE ON work.selection_settings
  EXECUTE FUNCTION work.settings_are_kept();

CREATE FUNCTION work.suggestion_requests_check() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.await_turn();
  IF (SELECT count(*) FROM work.suggestion_requests q WHERE q.login = NEW.login AND q.decided_at IS NULL) >= 1000 THEN
    RAISE EXCEPTION 'login % has 1000 requests for suggestions without a decision', NEW.login
      USING ERRCODE = 'check_violation', CONSTRAINT = 'suggestion_requests_open_check';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER suggestion_requests_open BEFORE INSERT ON work.suggestion_requests FOR EACH ROW
  EXECUTE FUNCTION work.suggestion_requests_check();

-- The second best of another tenant lies in a column that tenants and devices cannot read.
CREATE FUNCTION work.rival_of(batch bigint, place integer) RETURNS jsonb LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (SELECT g.rival FROM work.suggestions g WHERE g.batch_id = batch AND g.position = place AND g.rival IS NOT NULL
  AND (has_column_privilege(work.caller(), 'work.suggestions', 'rival', 'SELECT') OR (
    EXISTS (SELECT FROM work.studies s WHERE s.id = (g.rival -> 'runner_up' ->> 'study_id')::bigint
      AND s.tenant_id = ANY (work.my_tenants()))
    AND EXISTS (SELECT FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE t.id = g.trial_id
      AND s.tenant_id = ANY (work.my_tenants())))));
REVOKE EXECUTE ON FUNCTION work.rival_of(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work.rival_of(bigint, integer) TO easeml_worker, easeml_referee;

-- With the rights of the caller. To parse, to rewrite for the rules of rows and to plan took the server longer than to
-- execute. The plan is made for any ids, so it is written to be good for all of them: ids first, then rows by their
-- ids. One row of JSON, since a driver that reads twenty columns of each row takes longer than the server with all of
-- it.
CREATE FUNCTION work.seen(of_key text, last bigint, known bigint[]) RETURNS json LANGUAGE plpgsql
STABLE SET plan_cache_mode = 'force_generic_plan' AS $$
DECLARE
  ids bigint[] := known || ARRAY(
    SELECT t.id FROM work.trials t WHERE t.id > last AND t.id <= (SELECT max(m.id) FROM work.trials m));
BEGIN
  RETURN json_build_array(
    now(),
    (SELECT k.version FROM work.catalogue k) + (SELECT count(*) FROM work.catalogue_changes),
    (SELECT max(s.id) FROM work.selection_settings s),
    (SELECT b.id FROM work.suggestion_batches b WHERE b.request_key = of_key),
    (SELECT json_agg(json_build_array(
        t.id, t.study_id, t.candidate_id, t.data_version_id,
        -- A result that the referee has measured and that did not hold counts as a failure of its candidate.
        CASE WHEN z.broken THEN 'FAILED' ELSE t.state END,
        CASE WHEN NOT z.broken THEN (SELECT o.quality FROM work.observations o WHERE o.trial_id = t.id) END,
        t.cost_seconds, t.lost_seconds, t.limit_seconds, t.device, t.finished_at,
        t.finished_at IS NULL AND coalesce(t.lease_until < now(), true),
        t.reevaluates, t.retries, t.failure_kind, t.start_seconds) ORDER BY t.id)
      FROM work.trials t, LATERAL (SELECT EXISTS (SELECT FROM work.quality_checks q
        WHERE q.trial_id = t.id AND q.outcome = 'not held') AS broken) z
      WHERE t.id = ANY (ids)));
END $$;

-- The lock first: what is seen then is what was committed before it was granted, as each statement looks anew.
CREATE FUNCTION work.look(of_key text, last bigint, known bigint[]) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM work.locks WHERE name = 'suggest' FOR UPDATE;
  RETURN work.seen(of_key, last, known);
END $$;

CREATE FUNCTION work.add_decision(INOUT batch_id bigint, of_key text, of_policy text, trials_requested integer,
  of_position integer, of_study bigint, of_candidate bigint, of_data_version bigint, of_device text,
  of_limit double precision, of_reasons jsonb, of_rival jsonb, reserve_seconds double precision, channel text,
  topics text[], OUT trial_id bigint) RETURNS record LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify(channel, topic) FROM unnest(topics) AS topic;
  IF batch_id IS NULL THEN
    INSERT INTO work.suggestion_batches (request_key, policy, requested, settings_id)
    VALUES (of_key, of_policy, trials_requested, (SELECT max(id) FROM work.selection_settings))
    RETURNING id INTO batch_id;
  END IF;
  INSERT INTO work.trials (study_id, candidate_id, data_version_id, device, limit_seconds, lease_until)
  VALUES (of_study, of_candidate, of_data_version, of_device, of_limit, now() + make_interval(secs => reserve_seconds))
  RETURNING id INTO trial_id;
  INSERT INTO work.suggestions (batch_id, position, trial_id, reasons, rival)
  VALUES (batch_id, of_position, trial_id, of_reasons, of_rival);
END $$;

-- No role writes the table: whose the device is, and when it was heard of, is never the caller's word. Rows of any
-- login go an hour after their last heartbeat by this clock: a login that is not used any more announces nothing. What
-- another announcement holds is left to it, so that no two wait for each other.
CREATE FUNCTION work.announce_device(of_host text, of_name text, of_holder text, of_kind text, of_model text,
  of_memory_mb integer, of_driver text, of_slots integer, of_held integer) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  of_login text := work.caller();
BEGIN
  DELETE FROM work.devices d USING (
    SELECT login, host, name, holder FROM work.devices WHERE beat_at < clock_timestamp() - interval '1 hour'
    FOR UPDATE SKIP LOCKED) silent
    WHERE d.login = silent.login AND d.host = silent.host AND d.name = silent.name AND d.holder = silent.holder;
  DELETE FROM work.devices WHERE login = of_login AND of_held = 0 AND host = of_host AND name = of_name
    AND holder = of_holder AND of_holder <> '';
  INSERT INTO work.devices AS d (login, tenants, host, name, holder, kind, model, memory_mb, driver, slots, held)
    VALUES (of_login, work.my_tenants(), of_host, of_name, CASE WHEN of_held = 0 THEN '' ELSE of_holder END, of_kind,
      of_model, of_memory_mb, of_driver, of_slots, of_held)
    ON CONFLICT ON CONSTRAINT devices_pkey DO UPDATE SET tenants = excluded.tenants, kind = excluded.kind,
      model = excluded.model, memory_mb = excluded.memory_mb, driver = excluded.driver, slots = excluded.slots,
      held = excluded.held, beat_at = greatest(d.beat_at, clock_timestamp());
  IF (SELECT count(*) FROM work.devices WHERE login = of_login) > 5000 THEN
    RAISE EXCEPTION 'a login announces at most 5000 devices an hour'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'devices_of_login_check';
  END IF;
END $$;
REVOKE EXECUTE ON FUNCTION work.announce_device(text, text, text, text, text, integer, text, integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work.announce_device(text, text, text, text, text, integer, text, integer, integer) TO easeml_worker;
