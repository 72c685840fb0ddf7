"""What an attack on the tenants' logins found open (ADR 0032): a rival's row, outcomes of changes, names in the audit,
bounds that counted within one transaction, results after the end of an attempt, leases without a login."""

from alembic import op

revision = "0036"
down_revision = "0035"

# 'role' is one of the installation's roles. Only these are believed where they say for whom they act.
CALLERS = """
CREATE FUNCTION work.kind_of_caller() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN starts_with(work.caller(), 'easeml_t_') THEN 'tenant'
  WHEN work.caller() = 'easeml_device' OR starts_with(work.caller(), 'easeml_d_') THEN 'device'
  WHEN work.caller() = 'easeml_viewer' THEN 'viewer' ELSE 'role' END;

CREATE OR REPLACE FUNCTION work.may_change(study bigint, devices boolean) RETURNS boolean LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (devices AND work.kind_of_caller() = 'device')
  OR EXISTS (SELECT FROM work.studies WHERE id = study AND tenant_id = ANY (work.my_tenants()));

-- With SET ROLE the session's user is another one.
ALTER TABLE work.requests ALTER COLUMN requested_by SET DEFAULT work.caller();

-- The rest of the reasons of a suggestion, for a role that reads the column, or for a login that has both tenants: that
-- of the suggested trial, and that of its rival.
CREATE OR REPLACE FUNCTION work.rival_of(batch bigint, place integer) RETURNS jsonb LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (SELECT g.rival FROM work.suggestions g WHERE g.batch_id = batch AND g.position = place AND g.rival IS NOT NULL
  AND (has_column_privilege(work.caller(), 'work.suggestions', 'rival', 'SELECT') OR (
    EXISTS (SELECT FROM work.studies s WHERE s.id = (g.rival -> 'runner_up' ->> 'study_id')::bigint
      AND s.tenant_id = ANY (work.my_tenants()))
    AND EXISTS (SELECT FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE t.id = g.trial_id
      AND s.tenant_id = ANY (work.my_tenants())))));
"""

# What a login says of itself stands behind its name, in brackets.
AUDIT = """
CREATE FUNCTION work.asker(words text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN work.kind_of_caller() NOT IN ('tenant', 'device') OR work.audit_word(words, 200) = work.caller()
  THEN work.audit_word(words, 200)
  ELSE left(work.caller() || coalesce(' (' || work.audit_word(words, 200) || ')', ''), 200) END;

CREATE OR REPLACE FUNCTION work.note(
  act text, study bigint, tenant bigint, before jsonb, after jsonb, why text DEFAULT NULL, actor text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO work.audit (who, door, act, study_id, tenant_id, before, after, reason) VALUES (
    coalesce(work.asker(coalesce(work.audit_word(actor, 200), current_setting('easeml.actor', true))), session_user),
    CASE WHEN work.kind_of_caller() IN ('tenant', 'device') THEN 'database'
      ELSE coalesce(work.audit_word(current_setting('easeml.door', true), 40), 'database') END, act, study,
    coalesce(tenant, (SELECT tenant_id FROM work.studies WHERE id = study)), coalesce(before, '{}'),
    coalesce(after, '{}'), nullif(left(coalesce(why, current_setting('easeml.reason', true)), 2000), ''));
END $$;

CREATE OR REPLACE FUNCTION work.audit_request() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note(CASE NEW.kind WHEN 'force' THEN 'forced promotion asked' WHEN 'rollback' THEN 'rollback asked'
    ELSE 'promotion asked' END, NEW.study_id, NULL, NULL, jsonb_build_object('request', NEW.id, 'model', NEW.model_id,
    'approved_by', CASE WHEN NEW.arguments ->> 'who' IS NOT NULL THEN work.asker(NEW.arguments ->> 'who') END),
    NEW.arguments ->> 'why');
  RETURN NULL;
END $$;
"""

# A result comes with the end of its attempt: in the same transaction, which now() does not tell. An older one may
# begin before the end and add more after it.
ENDS = """
ALTER TABLE work.trials ADD COLUMN ended_xact xid8;

CREATE OR REPLACE FUNCTION work.trials_ended_now() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.finished_at := clock_timestamp();
  NEW.ended_xact := pg_current_xact_id();
  RETURN NEW;
END $$;
"""

# In full: revision 0033 patched the text of 0032. A lease without a login, of before 0033, is another login's.
CLAIMS = r"""
CREATE OR REPLACE FUNCTION work.claim_trial(trial bigint, key text, with_executor text, with_details jsonb,
  OUT outcome text, OUT token text) LANGUAGE plpgsql
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
    wall := greatest(0, extract(epoch FROM least(t.lease_until, CASE WHEN t.lease_hash IS NULL
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
        work.lease_seconds(settings), limit_seconds - saved - lost_seconds)),
      lease_hash = encode(sha256(convert_to(token, 'UTF8')), 'hex')
    WHERE id = trial;
  outcome := 'claimed';
END $$;
"""

# What a login adds is counted by one of its transactions at a time: those that are open would count apart. It waits for
# its own alone. The workers that share easeml_device would wait for one another; they have no bound of this kind.
BOUNDS = """
CREATE FUNCTION work.await_turn() RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF work.kind_of_caller() IN ('tenant', 'device') AND work.caller() <> 'easeml_device' THEN
    PERFORM pg_advisory_xact_lock(hashtextextended('easeml login ' || work.caller(), 0));
  END IF;
END $$;
REVOKE EXECUTE ON FUNCTION work.await_turn() FROM PUBLIC;

CREATE OR REPLACE FUNCTION work.rows_of_tenants() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  most integer := TG_ARGV[0];
  found bigint;
BEGIN
  PERFORM work.await_turn();
  IF TG_TABLE_NAME = 'studies' THEN
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.studies
      WHERE tenant_id IN (SELECT tenant_id FROM added) GROUP BY tenant_id) c);
  ELSIF TG_TABLE_NAME = 'data_sets' THEN
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.data_sets
      WHERE tenant_id IN (SELECT tenant_id FROM added) GROUP BY tenant_id) c);
  ELSIF TG_TABLE_NAME = 'requests' THEN
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.requests r
      WHERE study_id IN (SELECT study_id FROM added)
      AND NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = r.id) GROUP BY study_id) c);
  ELSIF TG_TABLE_NAME = 'feeds' THEN
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.feeds
      WHERE study_id IN (SELECT study_id FROM added) AND state = 'waiting' GROUP BY study_id) c);
  ELSIF TG_TABLE_NAME = 'switches' THEN
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.switches
      WHERE study_id IN (SELECT study_id FROM added) AND refreshed_by IS NULL GROUP BY study_id) c);
  ELSIF TG_TABLE_NAME = 'models' THEN  -- those that are handed in
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.models
      WHERE study_id IN (SELECT study_id FROM added) AND submitted AND created_at > now() - interval '1 day'
      GROUP BY study_id) c);
  ELSE
    RAISE EXCEPTION 'rows_of_tenants does not count the rows of %', TG_TABLE_NAME;
  END IF;
  IF found > most THEN
    RAISE EXCEPTION '% would be % of at most % %', TG_TABLE_NAME, found, most, TG_ARGV[1]
      USING ERRCODE = 'check_violation', CONSTRAINT = 'rows_of_tenants_check';
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION work.candidates_of_tenants() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.await_turn();
  IF EXISTS (SELECT FROM work.candidates WHERE study_id IN (SELECT study_id FROM added)
             GROUP BY study_id HAVING count(*) > 1000) THEN
    RAISE EXCEPTION 'a study has at most 1000 candidates'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'candidates_of_tenants_check';
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION work.suggestion_requests_check() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.await_turn();
  IF (SELECT count(*) FROM work.suggestion_requests q WHERE q.login = NEW.login AND q.decided_at IS NULL) >= 1000 THEN
    RAISE EXCEPTION 'login % has 1000 requests for suggestions without a decision', NEW.login
      USING ERRCODE = 'check_violation', CONSTRAINT = 'suggestion_requests_open_check';
  END IF;
  RETURN NEW;
END $$;
"""

# A tenant's transaction, which may stay open, never holds the row of work.catalogue.
CATALOGUE = """
CREATE OR REPLACE FUNCTION work.catalogue_changed() RETURNS trigger LANGUAGE plpgsql
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
"""

# One row for each login and what it wants changed: a newer wish takes the place of an older one. What became of it
# stays until the next one, or for a day.
CHANGES = """
ALTER TABLE work.change_requests
  ADD COLUMN outcome text CONSTRAINT change_requests_outcome_check CHECK (outcome IN ('made', 'refused', 'late')),
  ADD COLUMN refusal text,
  ADD COLUMN ended_at timestamptz,
  ALTER COLUMN filed_at SET DEFAULT clock_timestamp();
DELETE FROM work.change_requests q USING work.change_requests n WHERE n.id > q.id AND n.login = q.login
  AND n.study_id = q.study_id AND n.trial_id IS NOT DISTINCT FROM q.trial_id;
CREATE UNIQUE INDEX change_requests_key ON work.change_requests (login, study_id, coalesce(trial_id, 0));

CREATE OR REPLACE FUNCTION work.file_change(study bigint, trial bigint, wanted text) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.await_turn();
  IF (SELECT count(*) FROM work.change_requests q WHERE q.login = work.caller() AND q.outcome IS NULL
      AND (q.study_id, coalesce(q.trial_id, 0)) <> (study, coalesce(trial, 0))) >= 1000 THEN
    RAISE EXCEPTION 'login % has 1000 changes that were not made yet, of at most 1000', work.caller()
      USING ERRCODE = 'check_violation', CONSTRAINT = 'change_requests_open_check';
  END IF;
  INSERT INTO work.change_requests AS q (study_id, trial_id, change) VALUES (study, trial, wanted)
    ON CONFLICT (login, study_id, coalesce(trial_id, 0)) DO UPDATE SET change = excluded.change,
      actor = excluded.actor, door = excluded.door, reason = excluded.reason, filed_at = clock_timestamp(),
      outcome = NULL, refusal = NULL;
  PERFORM pg_notify('easeml_scheduler', '');  -- every role may listen
END $$;

-- Makes the changes that were asked for, some of each login; gives what was changed. A row that another transaction
-- holds is left for the next call, for an hour; a study is paused or resumed once a second at most. One change that
-- fails is refused with its error, and the others are made; a fault that passes leaves it for the next call.
CREATE OR REPLACE FUNCTION work.apply_changes() RETURNS TABLE (study text, trial bigint) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  q work.change_requests;
  actor text := coalesce(current_setting('easeml.actor', true), '');
  door text := coalesce(current_setting('easeml.door', true), '');
  reason text := coalesce(current_setting('easeml.reason', true), '');
  is_made boolean;
  result text;
  said text;
BEGIN
  DELETE FROM work.change_requests WHERE id IN (
    SELECT r.id FROM work.change_requests r WHERE r.outcome IS NOT NULL AND r.ended_at < now() - interval '1 day'
    FOR UPDATE SKIP LOCKED);
  FOR q IN SELECT * FROM work.change_requests WHERE outcome IS NULL AND id IN (
      SELECT n.id FROM (SELECT r.id, row_number() OVER (PARTITION BY r.login ORDER BY r.filed_at, r.id) AS turn
                        FROM work.change_requests r WHERE r.outcome IS NULL) n WHERE n.turn <= 20)
    ORDER BY filed_at, id FOR UPDATE SKIP LOCKED
  LOOP
    is_made := false;
    result := 'made';
    said := NULL;
    PERFORM set_config('easeml.actor', left(q.login || coalesce(' (' || q.actor || ')', ''), 200), true),
      set_config('easeml.door', CASE WHEN q.login = 'easeml_viewer' THEN coalesce(q.door, '') ELSE '' END, true),
      set_config('easeml.reason', coalesce(q.reason, ''), true);
    BEGIN
      IF q.change = 'cancel' THEN
        PERFORM FROM work.trials t WHERE t.id = q.trial_id AND t.state IN ('SUGGESTED', 'RUNNING')
          FOR NO KEY UPDATE SKIP LOCKED;
        IF FOUND THEN
          UPDATE work.trials t SET cancel_requested = true,
            state = CASE WHEN t.state = 'SUGGESTED' THEN 'CANCELLED' ELSE t.state END,
            finished_at = CASE WHEN t.state = 'SUGGESTED' THEN clock_timestamp() ELSE t.finished_at END
            WHERE t.id = q.trial_id;
          is_made := true;
        ELSIF EXISTS (SELECT FROM work.trials t WHERE t.id = q.trial_id AND t.state IN ('SUGGESTED', 'RUNNING')) THEN
          result := 'late';
        END IF;
      ELSE
        CONTINUE WHEN EXISTS (SELECT FROM work.change_requests r WHERE r.study_id = q.study_id AND r.change <> 'cancel'
          AND (r.outcome IS NULL AND (r.filed_at, r.id) < (q.filed_at, q.id)  -- in the order of asking
               OR r.ended_at > clock_timestamp() - interval '1 second'));
        PERFORM FROM work.studies s WHERE s.id = q.study_id FOR NO KEY UPDATE SKIP LOCKED;
        IF FOUND THEN
          UPDATE work.studies s SET state = CASE q.change WHEN 'pause' THEN 'PAUSED' ELSE 'ACTIVE' END
            WHERE s.id = q.study_id AND s.state = CASE q.change WHEN 'pause' THEN 'ACTIVE' ELSE 'PAUSED' END;
          is_made := FOUND;
        ELSIF EXISTS (SELECT FROM work.studies s WHERE s.id = q.study_id) THEN
          result := 'late';
        END IF;
      END IF;
    EXCEPTION
      WHEN transaction_rollback OR lock_not_available OR insufficient_resources OR system_error THEN
        result := 'late';
        said := SQLERRM;
      WHEN OTHERS THEN
        result := 'refused';
        said := SQLERRM;
    END;
    CONTINUE WHEN result = 'late' AND q.filed_at > clock_timestamp() - interval '1 hour';
    IF result = 'late' THEN
      said := coalesce(said, 'another transaction held its row for an hour');
    END IF;
    UPDATE work.change_requests SET outcome = result, refusal = left(said, 2000), ended_at = clock_timestamp()
      WHERE id = q.id;
    IF is_made AND result = 'made' THEN
      study := (SELECT s.name FROM work.studies s WHERE s.id = q.study_id);
      trial := q.trial_id;
      RETURN NEXT;
    END IF;
  END LOOP;
  PERFORM set_config('easeml.actor', actor, true), set_config('easeml.door', door, true),
    set_config('easeml.reason', reason, true);
END $$;
"""


def upgrade() -> None:
    for block in (CALLERS, AUDIT, ENDS, CLAIMS, BOUNDS, CATALOGUE, CHANGES):
        op.execute(block)
