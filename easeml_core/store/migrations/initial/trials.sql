-- Trials with their leases, and what is known of them.

-- One training of a candidate on one version, with its lease, its limits in device seconds and how it ended.
CREATE TABLE work.trials (
  id                   bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT trials_pkey PRIMARY KEY,
  study_id             bigint NOT NULL,
  candidate_id         bigint NOT NULL,
  data_version_id      bigint NOT NULL,
  state                text NOT NULL DEFAULT 'SUGGESTED',
  attempt              integer NOT NULL DEFAULT 0 CONSTRAINT trials_attempt_check CHECK (attempt >= 0),
  lease_key            text,
  lease_until          timestamptz,
  progress             jsonb,
  failure              text,
  cost_seconds         double precision,
  cancel_requested     boolean NOT NULL DEFAULT false,
  suggested_at         timestamptz NOT NULL DEFAULT now(),
  started_at           timestamptz,
  finished_at          timestamptz,
  device               text,
  limit_seconds        double precision,
  lost_seconds         double precision NOT NULL DEFAULT 0,
  attempt_started_at   timestamptz,
  reevaluates          bigint CONSTRAINT trials_reevaluates_fkey REFERENCES work.trials,
  checkpoint           text,
  checkpoint_seconds   double precision,
  checkpoint_progress  double precision,
  resumed_seconds      double precision NOT NULL DEFAULT 0,
  last_key             text,
  last_try             integer,
  executor             text,
  executor_details     jsonb,
  failure_kind         text,
  retries              bigint,
  retries_kind         text GENERATED ALWAYS AS (CASE WHEN retries IS NOT NULL THEN 'task' END) STORED,
  beat_at              timestamptz,
  excused              integer NOT NULL DEFAULT 0,
  start_seconds        double precision,
  -- What budgets and shares charge.
  charged_seconds      double precision NOT NULL GENERATED ALWAYS AS (
    lost_seconds + coalesce(cost_seconds, 0) + coalesce(start_seconds, 0)) STORED,
  lease_hash           text CONSTRAINT trials_lease_hash_check CHECK (lease_hash ~ '^[0-9a-f]{64}$'),
  lease_login          text,
  ended_xact           xid8,
  CONSTRAINT trials_state_check CHECK (state IN ('SUGGESTED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
  -- A lease without an end would never be taken back.
  CONSTRAINT trials_lease_check
    CHECK ((state = 'RUNNING') = (lease_key IS NOT NULL) AND (state <> 'RUNNING' OR lease_until IS NOT NULL)),
  CONSTRAINT trials_failure_check CHECK ((state = 'FAILED') = (failure IS NOT NULL)),
  CONSTRAINT trials_finished_check CHECK ((state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) = (finished_at IS NOT NULL)),
  CONSTRAINT trials_cost_check
    CHECK (cost_seconds > 0 AND cost_seconds <= 1e9 AND (state <> 'SUCCEEDED' OR cost_seconds IS NOT NULL)),
  CONSTRAINT trials_state_key UNIQUE (id, state),
  CONSTRAINT trials_data_key UNIQUE (id, study_id, data_version_id),
  CONSTRAINT trials_candidate_fkey FOREIGN KEY (candidate_id, study_id) REFERENCES work.candidates (id, study_id),
  CONSTRAINT trials_data_version_fkey FOREIGN KEY (data_version_id, study_id)
    REFERENCES work.data_versions (id, study_id),
  CONSTRAINT trials_lost_check CHECK (lost_seconds >= 0 AND lost_seconds <= 1e9),
  CONSTRAINT trials_attempt_start_check CHECK (state <> 'RUNNING' OR attempt_started_at IS NOT NULL),
  CONSTRAINT trials_attempt_time_check
    CHECK (attempt_started_at >= '2000-01-01 00:00+00' AND attempt_started_at < '3000-01-01 00:00+00'),
  CONSTRAINT trials_times_check CHECK (least(lease_until, started_at, finished_at) >= '2000-01-01 00:00+00'
    AND greatest(lease_until, started_at, finished_at) < '3000-01-01 00:00+00'),
  CONSTRAINT trials_reevaluates_check CHECK (reevaluates IS NULL OR state = 'SUCCEEDED'),
  CONSTRAINT trials_checkpoint_check CHECK (checkpoint ~ '^sha256:[0-9a-f]{64}$'),
  CONSTRAINT trials_checkpoint_whole_check
    CHECK (num_nulls(checkpoint, checkpoint_seconds, checkpoint_progress) IN (0, 3)),
  CONSTRAINT trials_checkpoint_seconds_check
    CHECK (checkpoint_seconds >= 0 AND checkpoint_seconds <= 1e9 AND resumed_seconds <= checkpoint_seconds),
  CONSTRAINT trials_checkpoint_progress_check CHECK (checkpoint_progress >= 0 AND checkpoint_progress <= 1),
  CONSTRAINT trials_resumed_check CHECK (resumed_seconds >= 0 AND resumed_seconds <= 1e9),
  -- Saved or lost, all of it was the trial's to take; the millionth is for rounding.
  CONSTRAINT trials_checkpoint_limit_check CHECK (lost_seconds + checkpoint_seconds <= limit_seconds + 1e-6),
  -- Work that is saved is no use to a trial that has ended: it is part of its cost by now, or lost.
  CONSTRAINT trials_checkpoint_open_check CHECK (state IN ('SUGGESTED', 'RUNNING') OR checkpoint IS NULL),
  CONSTRAINT trials_last_check CHECK (last_try IS NULL OR (last_try >= 1 AND last_key IS NOT NULL)),
  CONSTRAINT trials_key_length_check CHECK (greatest(octet_length(lease_key), octet_length(last_key)) <= 4000),
  CONSTRAINT trials_executor_fkey FOREIGN KEY (candidate_id, executor) REFERENCES work.candidates (id, implementation),
  CONSTRAINT trials_executor_details_check CHECK (executor_details IS NULL OR (executor IS NOT NULL
    AND jsonb_typeof(executor_details) = 'object' AND octet_length(executor_details::text) < 4000)),
  -- Trials that ended before this was kept name no executor: NOT VALID.
  CONSTRAINT trials_executor_check
    CHECK (executor IS NOT NULL OR reevaluates IS NOT NULL OR state NOT IN ('RUNNING', 'SUCCEEDED')),
  CONSTRAINT trials_failure_kind_key UNIQUE (id, candidate_id, data_version_id, failure_kind),
  -- No candidate runs twice on the same data, whoever asks, but in place of such a trial.
  CONSTRAINT trials_once_per_data_key UNIQUE NULLS NOT DISTINCT (candidate_id, data_version_id, retries),
  CONSTRAINT trials_failure_kind_check
    CHECK (failure_kind IS NULL OR (failure_kind IN ('task', 'candidate') AND state = 'FAILED')),
  -- It says nothing of the candidate, so it has no cost of the candidate's either: what it took is lost.
  CONSTRAINT trials_task_cost_check CHECK (failure_kind <> 'task' OR cost_seconds IS NULL),
  CONSTRAINT trials_retries_check CHECK (retries < id),
  -- Only a trial that failed because of its task is retried, on the same data, and by one trial.
  CONSTRAINT trials_retries_fkey FOREIGN KEY (retries, candidate_id, data_version_id, retries_kind)
    REFERENCES work.trials (id, candidate_id, data_version_id, failure_kind),
  CONSTRAINT trials_excused_check CHECK (excused >= 0 AND excused <= least(attempt, 10)),
  CONSTRAINT trials_start_check
    CHECK (start_seconds >= 0 AND start_seconds <= 1e9 AND (start_seconds IS NULL OR state = 'SUCCEEDED')),
  CONSTRAINT trials_limit_check CHECK (limit_seconds > 0 AND limit_seconds <= 1e9
    AND lost_seconds + coalesce(cost_seconds, 0) + coalesce(start_seconds, 0) <= limit_seconds),
  CONSTRAINT trials_device_check
    CHECK (device ~ '^[a-z0-9][a-z0-9_.-]{0,62}(:([2-9]|[1-5][0-9]|6[0-4])|/([2-9]|1[0-6]))?$')
);
CREATE INDEX trials_open_idx ON work.trials (state) WHERE state IN ('SUGGESTED', 'RUNNING');
CREATE INDEX trials_study_idx ON work.trials (study_id);
CREATE INDEX trials_retries_idx ON work.trials (retries) WHERE retries IS NOT NULL;
CREATE INDEX trials_task_failures_idx ON work.trials (study_id) WHERE failure_kind = 'task';

-- What a trial that succeeded has measured on validation data, from which the scheduler learns.
CREATE TABLE work.observations (
  trial_id      bigint CONSTRAINT observations_pkey PRIMARY KEY,
  state         text NOT NULL DEFAULT 'SUCCEEDED' CONSTRAINT observations_state_check CHECK (state = 'SUCCEEDED'),
  quality       double precision NOT NULL,
  cost_seconds  double precision NOT NULL,
  observed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  score         double precision,
  -- NaN sorts above every number in PostgreSQL, so these two also refuse it.
  CONSTRAINT observations_quality_check CHECK (quality >= 0 AND quality <= 1),
  CONSTRAINT observations_cost_check CHECK (cost_seconds > 0 AND cost_seconds <= 1e9),
  -- Only a succeeded trial is an observation, and only once.
  CONSTRAINT observations_trial_fkey FOREIGN KEY (trial_id, state) REFERENCES work.trials (id, state),
  CONSTRAINT observations_score_check CHECK (score > '-Infinity' AND score < 'Infinity')
);

-- What a training told after each of its steps (epochs): for people, and rungs learn from it. A step is told once: an
-- attempt that goes on from a checkpoint repeats some.
CREATE TABLE work.curves (
  trial_id  bigint NOT NULL CONSTRAINT curves_trial_fkey REFERENCES work.trials,
  step      integer NOT NULL,
  of        integer,
  quality   double precision CONSTRAINT curves_quality_check CHECK (quality >= 0 AND quality <= 1),
  loss      double precision CONSTRAINT curves_loss_check CHECK (loss > '-Infinity' AND loss < 'Infinity'),
  seconds   double precision NOT NULL CONSTRAINT curves_seconds_check CHECK (seconds >= 0 AND seconds <= 1e9),
  -- Bounded for each trial, whatever its process tells.
  CONSTRAINT curves_step_check CHECK (step BETWEEN 1 AND 10000),
  CONSTRAINT curves_of_check CHECK ("of" >= step),
  CONSTRAINT curves_told_check CHECK (num_nonnulls(quality, loss) > 0),
  CONSTRAINT curves_pkey PRIMARY KEY (trial_id, step)
);

-- What was decided when a trial reached a rung, a share of its epochs. Once for each: an attempt that comes by again is
-- bound by it. hoped: the end it was allowed for; needed: what that must not be below; known: trials that taught it.
CREATE TABLE work.rungs (
  trial_id    bigint NOT NULL CONSTRAINT rungs_trial_fkey REFERENCES work.trials,
  rung        integer NOT NULL CONSTRAINT rungs_rung_check CHECK (rung BETWEEN 1 AND 20),
  step        integer NOT NULL,
  of          integer NOT NULL,
  quality     double precision NOT NULL CONSTRAINT rungs_quality_check CHECK (quality >= 0 AND quality <= 1),
  hoped       double precision,
  needed      double precision CONSTRAINT rungs_needed_check CHECK (needed >= 0 AND needed <= 1),
  known       integer NOT NULL CONSTRAINT rungs_known_check CHECK (known >= 0),
  rule        text NOT NULL CONSTRAINT rungs_rule_check CHECK (rule IN ('gains', 'median')),
  goes_on     boolean NOT NULL,
  decided_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT rungs_step_check CHECK (step BETWEEN 1 AND "of"),
  CONSTRAINT rungs_hoped_check CHECK (hoped >= quality AND hoped <= 1),
  -- Nobody is stopped without a reason.
  CONSTRAINT rungs_reason_check CHECK (goes_on OR coalesce(hoped < needed, false)),
  CONSTRAINT rungs_pkey PRIMARY KEY (trial_id, rung)
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

-- An end in the future would make every later one come out of turn, and each decision load everything anew. A result
-- comes with the end of its attempt, in the same transaction: now() would not tell.
CREATE FUNCTION work.trials_ended_now() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.finished_at := clock_timestamp();
  NEW.ended_xact := pg_current_xact_id();
  RETURN NEW;
END $$;
CREATE TRIGGER trials_ended_now BEFORE UPDATE OF finished_at ON work.trials FOR EACH ROW WHEN (OLD.finished_at IS NULL
  AND NEW.finished_at IS NOT NULL) EXECUTE FUNCTION work.trials_ended_now();

-- An attempt keeps its executor: another one is another attempt, with a claim of its own.
CREATE FUNCTION work.trials_executor_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'attempt % of trial % is executed by %; another executor claims another attempt',
    OLD.attempt, OLD.id, OLD.executor
    USING ERRCODE = 'check_violation', CONSTRAINT = 'trials_executor_kept';
END $$;
CREATE TRIGGER trials_executor_kept BEFORE UPDATE ON work.trials FOR EACH ROW WHEN (NEW.attempt = OLD.attempt
  AND OLD.executor IS NOT NULL AND (NEW.executor, NEW.executor_details) IS DISTINCT FROM (OLD.executor,
  OLD.executor_details)) EXECUTE FUNCTION work.trials_executor_kept();

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
CREATE TRIGGER trials_checkpoint_spent BEFORE UPDATE ON work.trials FOR EACH ROW WHEN (NEW.checkpoint IS NOT NULL
  AND NEW.state NOT IN ('SUGGESTED', 'RUNNING')) EXECUTE FUNCTION work.trials_checkpoint_spent();

-- Whoever writes a heartbeat writes now. Whoever takes a lease away lets the database say whether that is excused: a
-- worker that is told to go (a drained node) gives its lease up with a heartbeat in the same statement. Both kinds of
-- excuse share one bound: a training may be what makes its worker go.
CREATE FUNCTION work.trials_excuse() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE is_alive boolean := NEW.beat_at IS DISTINCT FROM OLD.beat_at;
BEGIN
  IF NEW.attempt > OLD.attempt OR is_alive THEN
    NEW.beat_at := clock_timestamp();
  END IF;
  NEW.excused := OLD.excused;
  IF OLD.state = 'RUNNING' AND (NEW.state = 'SUGGESTED' OR NEW.attempt > OLD.attempt) AND OLD.excused < 10
     AND (work.was_restarted(OLD.beat_at) OR (is_alive AND NEW.attempt = OLD.attempt))
  THEN
    NEW.excused := OLD.excused + 1;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER trials_excuse BEFORE UPDATE ON work.trials FOR EACH ROW EXECUTE FUNCTION work.trials_excuse();

-- A lease is its login's: the key, which every device reads, takes nothing over in another login.
CREATE FUNCTION work.trials_lease_ends() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.lease_hash IS NOT DISTINCT FROM OLD.lease_hash THEN
    NEW.lease_hash := NULL;
  END IF;
  NEW.lease_login := work.caller();
  RETURN NEW;
END $$;
CREATE TRIGGER trials_lease_ends BEFORE UPDATE ON work.trials FOR EACH ROW WHEN (NEW.attempt > OLD.attempt)
  EXECUTE FUNCTION work.trials_lease_ends();

-- What a worker with a lease reports is bounded by what the clock says since its attempt began.
CREATE FUNCTION work.trials_by_lease() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  now_is timestamptz := clock_timestamp();
  wall double precision := work.device_weight(OLD.device) * greatest(1e-6, extract(epoch FROM now_is - OLD.attempt_started_at));
  most double precision := OLD.resumed_seconds + wall;
  stated double precision;
BEGIN
  IF NEW.cost_seconds > most THEN  -- NaN is above every number
    NEW.cost_seconds := most;
  END IF;
  IF NEW.start_seconds > greatest(0, most - NEW.cost_seconds) THEN
    NEW.start_seconds := greatest(0, most - NEW.cost_seconds);
  END IF;
  IF NEW.checkpoint_seconds > most THEN
    NEW.checkpoint_seconds := most;
  END IF;
  IF NEW.resumed_seconds <> 0 THEN  -- a checkpoint that cannot be used is forgotten, and nothing else
    NEW.resumed_seconds := OLD.resumed_seconds;
  END IF;
  -- Pages read it with every list of trials, and Python refuses numbers of very many digits.
  IF octet_length(NEW.progress::text) > 20000 OR NEW.progress::text ~ '[0-9]{250}' THEN
    NEW.progress := OLD.progress;
  END IF;
  NEW.failure := left(NEW.failure, 4000);
  NEW.lost_seconds := greatest(OLD.lost_seconds, least(NEW.lost_seconds, OLD.lost_seconds + most));
  IF NEW.state = 'RUNNING' THEN
    NEW.lease_key := OLD.lease_key;
    NEW.lease_until := least(NEW.lease_until, now_is + make_interval(secs => work.lease_seconds(
      (SELECT config -> 'training' FROM work.studies WHERE id = NEW.study_id))));
  ELSE
    NEW.lease_key := NULL;
    NEW.lease_until := NULL;
    stated := coalesce(NEW.cost_seconds, 0) + coalesce(NEW.start_seconds, 0)
      + CASE WHEN NEW.cost_seconds IS NULL THEN coalesce(NEW.checkpoint_seconds, 0) ELSE 0 END;
    NEW.lost_seconds := greatest(NEW.lost_seconds, least(
      NEW.limit_seconds - stated, OLD.lost_seconds + 0.9 * wall - 30 - greatest(0, stated - OLD.resumed_seconds)));
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER trials_by_lease BEFORE UPDATE ON work.trials FOR EACH ROW WHEN (current_user NOT IN ('easeml_worker',
  'easeml_referee', 'easeml_scheduler') AND NOT pg_has_role(current_user, 'easeml_owner', 'USAGE'))
  EXECUTE FUNCTION work.trials_by_lease();

-- The scheduler learns from the cost that the trial was charged, not from another one that is said beside it.
CREATE FUNCTION work.observations_by_lease() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.cost_seconds := (SELECT cost_seconds FROM work.trials WHERE id = NEW.trial_id);
  RETURN NEW;
END $$;
CREATE TRIGGER observations_by_lease BEFORE INSERT ON work.observations FOR EACH ROW
  WHEN (current_user NOT IN ('easeml_worker', 'easeml_referee', 'easeml_scheduler') AND NOT pg_has_role(current_user,
  'easeml_owner', 'USAGE')) EXECUTE FUNCTION work.observations_by_lease();

-- Whether the caller may have a study, its pause and its trials: a tenant's login its own ones, a device every trial.
CREATE FUNCTION work.may_change(study bigint, devices boolean) RETURNS boolean LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (devices AND work.kind_of_caller() = 'device')
  OR EXISTS (SELECT FROM work.studies WHERE id = study AND tenant_id = ANY (work.my_changes()));
REVOKE EXECUTE ON FUNCTION work.may_change(bigint, boolean) FROM PUBLIC;

-- Takes a trial's lease, and makes its token, of which the hash alone is kept. What services/trials/claiming.py
-- does for the role easeml_worker, in one statement. The outcome is claimed, ended, held, or elsewhere (another
-- implementation is named by the candidate: the trial is given back); NULL where the caller has no such trial.
CREATE FUNCTION work.claim_trial(trial bigint, key text, with_executor text, with_details jsonb, OUT outcome text,
  OUT token text) RETURNS record LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  t work.trials;
  settings jsonb;
  saved double precision;
  wall double precision;
  counted integer;
  is_late boolean;
BEGIN
  -- Without waiting, and so that a foreign key to this trial does not wait for it: a tenant may keep its transaction
  -- open for hours.
  SELECT * INTO t FROM work.trials WHERE id = trial AND work.may_change(study_id, true) FOR NO KEY UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    outcome := (SELECT 'held' FROM work.trials WHERE id = trial AND work.may_change(study_id, true));
    RETURN;
  END IF;
  settings := (SELECT config -> 'training' FROM work.studies WHERE id = t.study_id);
  IF t.finished_at IS NOT NULL THEN
    outcome := 'ended';
    RETURN;
  END IF;
  IF t.state = 'RUNNING' THEN
    IF t.lease_until >= now() AND (t.lease_key IS DISTINCT FROM key
        OR t.lease_login IS DISTINCT FROM work.caller()) THEN
      outcome := 'held';
      RETURN;
    END IF;
    saved := coalesce(t.checkpoint_seconds, 0);
    wall := work.device_weight(t.device) * greatest(0, extract(epoch FROM least(t.lease_until, CASE WHEN t.lease_hash IS NULL
      THEN coalesce(t.beat_at, clock_timestamp()) ELSE clock_timestamp() END) - t.attempt_started_at));
    UPDATE work.trials SET state = 'SUGGESTED', lease_key = NULL, lease_until = NULL, lost_seconds = least(
        limit_seconds - saved, 1e9, lost_seconds + greatest(0, wall - (saved - resumed_seconds)))
      WHERE id = trial RETURNING * INTO t;
  END IF;
  saved := coalesce(t.checkpoint_seconds, 0);
  counted := t.attempt - t.excused;
  is_late := counted < (settings ->> 'max_attempts')::int;
  IF t.cancel_requested OR NOT is_late OR t.limit_seconds - t.lost_seconds - saved < 0.5 THEN
    UPDATE work.trials SET state = CASE WHEN cancel_requested THEN 'CANCELLED' ELSE 'FAILED' END,
        failure = CASE WHEN NOT cancel_requested THEN CASE WHEN is_late
          THEN 'lost workers used up what was reserved for it'
          ELSE 'its worker was lost ' || counted || ' times' END END,
        finished_at = clock_timestamp() WHERE id = trial;
    outcome := 'ended';
    RETURN;
  END IF;
  IF NOT EXISTS (SELECT FROM work.candidates WHERE id = t.candidate_id AND implementation = with_executor) THEN
    UPDATE work.trials SET lease_until = NULL WHERE id = trial;
    outcome := 'elsewhere';
    RETURN;
  END IF;
  token := replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
  UPDATE work.trials SET state = 'RUNNING', attempt = attempt + 1, lease_key = key, progress = NULL, last_key = key,
      last_try = nullif(current_setting('easeml.try', true), '')::int,
      executor = with_executor, executor_details = with_details, resumed_seconds = saved,
      attempt_started_at = clock_timestamp(), started_at = coalesce(started_at, clock_timestamp()),
      lease_until = clock_timestamp() + make_interval(secs => least(
        work.lease_seconds(settings), (limit_seconds - saved - lost_seconds) / work.device_weight(device))),
      lease_hash = encode(sha256(convert_to(token, 'UTF8')), 'hex')
    WHERE id = trial;
  outcome := 'claimed';
END $$;
REVOKE EXECUTE ON FUNCTION work.claim_trial(bigint, text, text, jsonb) FROM PUBLIC;
