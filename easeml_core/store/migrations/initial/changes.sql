-- Changes that logins ask for and the scheduler makes; archived and deleted studies and tenants.

-- What a login wants changed in a row that other roles wait for: the scheduler's process changes it, in a short
-- transaction. No foreign key: it would lock the row that it names.
CREATE TABLE work.change_requests (
  id        bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT change_requests_pkey PRIMARY KEY,
  login     text NOT NULL DEFAULT work.caller(),
  study_id  bigint NOT NULL,
  trial_id  bigint,
  change    text NOT NULL,
  actor     text DEFAULT work.audit_word(current_setting('easeml.actor', true), 100),
  door      text DEFAULT work.audit_word(current_setting('easeml.door', true), 40),
  reason    text DEFAULT left(current_setting('easeml.reason', true), 2000),
  filed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  outcome   text,
  refusal   text,
  ended_at  timestamptz,
  CONSTRAINT change_requests_outcome_check CHECK (outcome IN ('made', 'refused', 'late')),
  CONSTRAINT change_requests_change_check CHECK (change IN ('pause', 'resume', 'cancel', 'archive', 'withdraw',
    'restore', 'delete') AND (change = 'cancel') = (trial_id IS NOT NULL))
);
CREATE INDEX change_requests_login_idx ON work.change_requests (login, id);
CREATE UNIQUE INDEX change_requests_key ON work.change_requests (login, study_id, coalesce(trial_id, 0));

-- What a login adds is counted by one of its transactions at a time: those that are open would count apart. It waits
-- for its own alone. The workers that share easeml_device would wait for one another; they have no bound of this kind.
CREATE FUNCTION work.await_turn() RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF work.kind_of_caller() IN ('tenant', 'device') AND work.caller() <> 'easeml_device' THEN
    PERFORM pg_advisory_xact_lock(hashtextextended('easeml login ' || work.caller(), 0));
  END IF;
END $$;
REVOKE EXECUTE ON FUNCTION work.await_turn() FROM PUBLIC;

-- Every savepoint that writes holds a lock until its transaction ends, and no time-out of a session's own stops it. A
-- table that is full refuses every new connection. NULL where the owner may not see or end sessions of other roles.
CREATE FUNCTION work.end_sessions(most_locks bigint, longest_seconds double precision) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT (pg_has_role('pg_signal_backend', 'USAGE') AND pg_has_role('pg_read_all_stats', 'USAGE')) THEN
    RETURN NULL;
  END IF;
  RETURN (
    WITH held AS (
      SELECT a.pid, a.xact_start, coalesce(l.n, 0) AS locks, sum(l.n) OVER (PARTITION BY a.usename) AS of_login
      FROM pg_stat_activity a LEFT JOIN (SELECT k.pid, count(*) AS n FROM pg_locks k GROUP BY k.pid) l USING (pid)
      WHERE a.datname = current_database() AND (a.usename = 'easeml_device'
        OR starts_with(a.usename::text, 'easeml_t_') OR starts_with(a.usename::text, 'easeml_d_')))
    SELECT count(pg_terminate_backend(h.pid)) FROM held h
    WHERE (h.of_login > most_locks AND h.locks > most_locks / 50)
      OR h.xact_start < clock_timestamp() - make_interval(secs => longest_seconds));
END $$;
REVOKE EXECUTE ON FUNCTION work.end_sessions(bigint, double precision) FROM PUBLIC;

-- One row for each login and what it wants changed: a newer wish takes the place of an older one. What became of it
-- stays until the next one, or for a day.
CREATE FUNCTION work.file_change(study bigint, trial bigint, wanted text) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.require_audit_room(); PERFORM work.await_turn();
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
REVOKE EXECUTE ON FUNCTION work.file_change(bigint, bigint, text) FROM PUBLIC;

-- A page's transaction is short, so that it makes a change itself; a login may keep its transaction open.
CREATE FUNCTION work.set_study_paused(study bigint, paused boolean) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT work.may_change(study, false)
      OR (SELECT state FROM work.studies WHERE id = study) NOT IN ('ACTIVE', 'PAUSED') THEN
    RETURN false;
  END IF;
  IF work.kind_of_caller() = 'person' THEN
    UPDATE work.studies s SET state = CASE WHEN paused THEN 'PAUSED' ELSE 'ACTIVE' END
      WHERE s.id = study AND s.state = CASE WHEN paused THEN 'ACTIVE' ELSE 'PAUSED' END;
  ELSE
    PERFORM work.file_change(study, NULL, CASE WHEN paused THEN 'pause' ELSE 'resume' END);
  END IF;
  RETURN true;
END $$;
REVOKE EXECUTE ON FUNCTION work.set_study_paused(bigint, boolean) FROM PUBLIC;

CREATE FUNCTION work.cancel_trial(trial bigint) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE of_study bigint := (SELECT t.study_id FROM work.trials t
  WHERE t.id = trial AND t.state IN ('SUGGESTED', 'RUNNING') AND work.may_change(t.study_id, false));
BEGIN
  IF of_study IS NULL THEN
    RETURN false;
  END IF;
  IF work.kind_of_caller() = 'person' THEN
    UPDATE work.trials t SET cancel_requested = true,
      state = CASE WHEN t.state = 'SUGGESTED' THEN 'CANCELLED' ELSE t.state END,
      finished_at = CASE WHEN t.state = 'SUGGESTED' THEN clock_timestamp() ELSE t.finished_at END
      WHERE t.id = trial AND t.state IN ('SUGGESTED', 'RUNNING');
  ELSE
    PERFORM work.file_change(of_study, trial, 'cancel');
  END IF;
  RETURN true;
END $$;
REVOKE EXECUTE ON FUNCTION work.cancel_trial(bigint) FROM PUBLIC;

-- After the row: a key that was used before adds none, and its request has the answer that it had. Under REPEATABLE
-- READ a statement does not see that a study was archived meanwhile, while the index of names already lets its name
-- go.
CREATE FUNCTION work.is_open_for_more() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE found text;
BEGIN
  IF TG_TABLE_NAME = 'studies' THEN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a study is added under READ COMMITTED alone' USING ERRCODE = 'invalid_transaction_state';
      END IF;
  found := (SELECT 'tenant ' || t.name || ' is archived' FROM added a JOIN work.tenants t ON t.id = a.tenant_id
      WHERE t.archived_at IS NOT NULL LIMIT 1);
    IF found IS NULL AND EXISTS (SELECT FROM added a JOIN work.studies s ON s.name = a.name
        WHERE s.state = 'ARCHIVED' AND s.tenant_id <> a.tenant_id) THEN
      RAISE EXCEPTION 'an archived study of another tenant has this name'
        USING ERRCODE = 'unique_violation', CONSTRAINT = 'studies_name_archived';
    END IF;
  ELSE
    found := (SELECT 'study ' || s.name || ' is archived' FROM added a JOIN work.studies s ON s.id = a.study_id
      WHERE s.state = 'ARCHIVED' LIMIT 1);
  END IF;
  IF found IS NOT NULL THEN
    RAISE EXCEPTION '%', found USING ERRCODE = 'check_violation', CONSTRAINT = 'archived_closed';
  END IF;
  RETURN NULL;
END $$;
DO $do$
DECLARE named text;
BEGIN
  FOREACH named IN ARRAY ARRAY['studies', 'candidates', 'requests', 'submissions', 'feeds', 'switches'] LOOP
    EXECUTE format('CREATE TRIGGER is_open_for_more AFTER INSERT ON work.%I REFERENCING NEW TABLE AS added
      FOR EACH STATEMENT EXECUTE FUNCTION work.is_open_for_more()', named);
  END LOOP;
END $do$;

-- No model is moved into production of an archived study, whichever of the two transactions comes first.
CREATE FUNCTION work.production_is_open() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE found text;
BEGIN
  SELECT CASE state WHEN 'ARCHIVED' THEN name END INTO found FROM work.studies WHERE id = NEW.study_id FOR SHARE;
  IF found IS NOT NULL THEN
    RAISE EXCEPTION 'study % is archived', found USING ERRCODE = 'check_violation', CONSTRAINT = 'archived_closed';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER production_is_open BEFORE INSERT OR UPDATE ON work.production FOR EACH ROW
  EXECUTE FUNCTION work.production_is_open();

-- A model without a file is not judged and not promoted.
CREATE FUNCTION work.requests_have_a_file() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE found text;
BEGIN
  found := (SELECT format('the file of model %s was removed: %s', m.id, m.removed_why) FROM added a
    JOIN work.models m ON m.id = a.model_id WHERE m.removed_at IS NOT NULL LIMIT 1);
  IF found IS NOT NULL THEN
    RAISE EXCEPTION '%', found USING ERRCODE = 'check_violation', CONSTRAINT = 'requests_file_check';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER requests_have_a_file AFTER INSERT ON work.requests REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION work.requests_have_a_file();

-- Made in a short transaction: by the pages and the command line at once, for a login by the scheduler's process. It
-- waits for no row that a login can hold: a trial that is held is cancelled by the next apply_changes, or at its next
-- heartbeat, which reads the state of the study.
CREATE FUNCTION work.archive_now(of_study bigint, wanted text) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE s work.studies;
BEGIN
  SELECT * INTO s FROM work.studies WHERE id = of_study FOR NO KEY UPDATE;
  PERFORM FROM work.tenants WHERE id = s.tenant_id FOR NO KEY UPDATE;
  IF wanted = 'restore' THEN
    IF s.state <> 'ARCHIVED' THEN
      RETURN false;
    END IF;
    IF EXISTS (SELECT FROM work.tenants WHERE id = s.tenant_id AND archived_at IS NOT NULL) THEN
      RAISE EXCEPTION 'tenant % is archived', (SELECT name FROM work.tenants WHERE id = s.tenant_id)
        USING ERRCODE = 'check_violation', CONSTRAINT = 'archived_closed';
    END IF;
    -- Its data may have been refused meanwhile.
    UPDATE work.studies SET state = CASE WHEN archived_from = 'REGISTERED' AND EXISTS (
        SELECT FROM work.requests r JOIN work.answers a ON a.request_id = r.id
        WHERE r.study_id = of_study AND r.kind = 'seal' AND a.refused) THEN 'REFUSED' ELSE archived_from END
      WHERE id = of_study;
    RETURN true;
  END IF;
  IF s.state = 'ARCHIVED' THEN
    RETURN false;
  END IF;
  IF wanted <> 'withdraw' AND EXISTS (SELECT FROM work.production WHERE study_id = of_study) THEN
    RAISE EXCEPTION 'study % has a model in production', s.name
      USING ERRCODE = 'check_violation', CONSTRAINT = 'studies_production_kept';
  END IF;
  UPDATE work.studies SET state = 'ARCHIVED' WHERE id = of_study;
  UPDATE work.trials t SET cancel_requested = true,
    state = CASE WHEN t.state = 'SUGGESTED' THEN 'CANCELLED' ELSE t.state END,
    finished_at = CASE WHEN t.state = 'SUGGESTED' THEN clock_timestamp() ELSE t.finished_at END
    WHERE t.id IN (SELECT id FROM work.trials WHERE study_id = of_study AND state IN ('SUGGESTED', 'RUNNING')
      AND NOT cancel_requested FOR NO KEY UPDATE SKIP LOCKED);
  INSERT INTO work.change_requests AS q (study_id, trial_id, change)
    SELECT of_study, id, 'cancel' FROM work.trials WHERE study_id = of_study AND state IN ('SUGGESTED', 'RUNNING')
      AND NOT cancel_requested
    ON CONFLICT (login, study_id, coalesce(trial_id, 0)) DO UPDATE SET change = excluded.change,
      actor = excluded.actor, door = excluded.door, reason = excluded.reason, filed_at = clock_timestamp(),
      outcome = NULL, refusal = NULL;
  RETURN true;
END $$;
REVOKE EXECUTE ON FUNCTION work.archive_now(bigint, text) FROM PUBLIC;

-- What nothing depends on: no sealed data, no trial, no model. The audit keeps that it was there.
CREATE FUNCTION work.delete_now(of_study bigint) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s work.studies;
  asked bigint[];
BEGIN
  -- Without waiting: a login may hold what its open transaction refers to.
  SELECT * INTO s FROM work.studies WHERE id = of_study FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    IF NOT EXISTS (SELECT FROM work.studies WHERE id = of_study) THEN
      RETURN false;
    END IF;
    RAISE EXCEPTION 'another transaction holds the study' USING ERRCODE = 'lock_not_available';
  END IF;
  PERFORM FROM work.candidates WHERE study_id = of_study FOR UPDATE NOWAIT;
  asked := ARRAY(SELECT id FROM work.requests WHERE study_id = of_study);
  IF EXISTS (SELECT FROM work.data_versions WHERE study_id = of_study)
      OR EXISTS (SELECT FROM work.requests WHERE study_id = of_study AND kind <> 'seal') THEN
    RAISE EXCEPTION 'study % has sealed data', s.name
      USING ERRCODE = 'check_violation', CONSTRAINT = 'studies_kept';
  END IF;
  -- A tenant's refusals for known rows are counted for 30 days: each reveals one bit.
  IF EXISTS (SELECT FROM work.answers WHERE request_id = ANY (asked) AND refused
      AND strpos(message, 'rows of it belong to') > 0 AND answered_at > now() - interval '30 days') THEN
    RAISE EXCEPTION 'study % was refused within 30 days since its rows are known', s.name
      USING ERRCODE = 'check_violation', CONSTRAINT = 'studies_counted';
  END IF;
  IF EXISTS (SELECT FROM sealed.claims c JOIN sealed.referees f ON f.id = c.referee_id
      WHERE c.request_id = ANY (asked) AND f.until > clock_timestamp()
      AND NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = c.request_id)) THEN
    RAISE EXCEPTION 'the referee works on study %', s.name
      USING ERRCODE = 'check_violation', CONSTRAINT = 'studies_worked_on';
  END IF;
  DELETE FROM sealed.put_offs WHERE request_id = ANY (asked);
  DELETE FROM sealed.attempts WHERE request_id = ANY (asked);
  DELETE FROM sealed.claims WHERE request_id = ANY (asked);
  DELETE FROM sealed.outbox WHERE request_id = ANY (asked);
  DELETE FROM work.answers WHERE request_id = ANY (asked);
  DELETE FROM work.switches WHERE study_id = of_study;
  DELETE FROM work.feeds WHERE study_id = of_study;
  DELETE FROM work.requests WHERE study_id = of_study;
  DELETE FROM work.candidates WHERE study_id = of_study;
  DELETE FROM work.studies WHERE id = of_study;
  DELETE FROM work.study_changes WHERE study_id = of_study;
  PERFORM work.note('study deleted', of_study, s.tenant_id, jsonb_build_object('name', s.name, 'state', s.state,
    'source', (SELECT left(source, 2000) FROM work.data_sets WHERE id = s.data_set_id)), NULL);
  RETURN true;
END $$;
REVOKE EXECUTE ON FUNCTION work.delete_now(bigint) FROM PUBLIC;

-- 'archive', 'withdraw' (also where a model is in production), 'restore' or 'delete'; false where there was nothing to
-- do, or the caller may not.
CREATE FUNCTION work.change_study(study bigint, wanted text, why text) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF work.kind_of_caller() <> 'role' AND NOT work.may_change(study, false) THEN
    RETURN false;
  END IF;
  IF (wanted IN ('archive', 'withdraw', 'restore', 'delete')) IS NOT TRUE THEN
    RAISE EXCEPTION 'a study is not changed by %', wanted
      USING ERRCODE = 'check_violation', CONSTRAINT = 'change_requests_change_check';
  END IF;
  PERFORM set_config('easeml.reason', left(coalesce(why, ''), 2000), true);
  IF work.kind_of_caller() = 'tenant' THEN
    PERFORM work.file_change(study, NULL, wanted);
    RETURN true;
  ELSIF wanted = 'delete' THEN
    RETURN work.delete_now(study);
  END IF;
  RETURN work.archive_now(study, wanted);
END $$;
REVOKE EXECUTE ON FUNCTION work.change_study(bigint, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work.change_study(bigint, text, text) TO easeml_worker, easeml_referee;

-- At once for a login, too: no other role locks the row of a candidate, but to refer to it.
CREATE FUNCTION work.set_candidate_withdrawn(study bigint, candidate text, withdrawn boolean,
  why text) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF work.kind_of_caller() <> 'role' AND NOT work.may_change(study, false) THEN
    RETURN false;
  END IF;
  PERFORM set_config('easeml.reason', left(coalesce(why, ''), 2000), true);
  UPDATE work.candidates c SET withdrawn_at = CASE WHEN withdrawn THEN clock_timestamp() END,
      withdrawn_why = CASE WHEN withdrawn THEN left(coalesce(why, ''), 2000) END
    WHERE c.study_id = study AND c.name = candidate AND (c.withdrawn_at IS NOT NULL) <> withdrawn;
  RETURN FOUND;
END $$;
REVOKE EXECUTE ON FUNCTION work.set_candidate_withdrawn(bigint, text, boolean, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work.set_candidate_withdrawn(bigint, text, boolean, text) TO easeml_worker, easeml_referee;

CREATE FUNCTION work.delete_tenant_now(of_tenant bigint) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE called text := (SELECT name FROM work.tenants WHERE id = of_tenant);
BEGIN
  IF EXISTS (SELECT FROM work.studies WHERE tenant_id = of_tenant)
      OR EXISTS (SELECT FROM work.tenant_logins WHERE tenant_id = of_tenant) THEN
    RAISE EXCEPTION 'tenant % has studies or logins', called
      USING ERRCODE = 'check_violation', CONSTRAINT = 'tenants_kept';
  END IF;
  DELETE FROM work.data_sets WHERE tenant_id = of_tenant;
  DELETE FROM sealed.turns WHERE tenant_id = of_tenant;
  DELETE FROM work.tenants WHERE id = of_tenant;
  PERFORM work.note('tenant deleted', NULL, of_tenant, jsonb_build_object('name', called), NULL);
END $$;
REVOKE EXECUTE ON FUNCTION work.delete_tenant_now(bigint) FROM PUBLIC;

-- A tenant's studies are archived with it; restored, they stay archived, and are restored one by one.
CREATE FUNCTION work.change_tenant(of_tenant bigint, wanted text, why text) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (wanted IN ('archive', 'withdraw', 'restore', 'delete')) IS NOT TRUE THEN
    RAISE EXCEPTION 'a tenant is not changed by %', wanted
      USING ERRCODE = 'check_violation', CONSTRAINT = 'change_requests_change_check';
  END IF;
  PERFORM set_config('easeml.reason', left(coalesce(why, ''), 2000), true);
  IF wanted = 'delete' THEN
    PERFORM work.delete_tenant_now(of_tenant);
    RETURN true;
  ELSIF wanted = 'restore' THEN
    UPDATE work.tenants SET archived_at = NULL, archived_why = NULL WHERE id = of_tenant AND archived_at IS NOT NULL;
    RETURN FOUND;
  END IF;
  PERFORM work.archive_now(id, wanted) FROM work.studies
    WHERE tenant_id = of_tenant AND state <> 'ARCHIVED' ORDER BY id;
  UPDATE work.tenants SET archived_at = clock_timestamp(), archived_why = left(coalesce(why, ''), 2000)
    WHERE id = of_tenant AND archived_at IS NULL;
  RETURN FOUND;
END $$;
REVOKE EXECUTE ON FUNCTION work.change_tenant(bigint, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work.change_tenant(bigint, text, text) TO easeml_worker;

-- Makes the changes that were asked for, some of each login; gives what was changed. A row that another transaction
-- holds is left for the next call, for an hour; a study is paused or resumed once a second at most. One change that
-- fails is refused with its error, and the others are made; a fault that passes leaves it for the next call.
CREATE FUNCTION work.apply_changes() RETURNS TABLE(study text, trial bigint) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  q work.change_requests;
  actor text := coalesce(current_setting('easeml.actor', true), '');
  door text := coalesce(current_setting('easeml.door', true), '');
  reason text := coalesce(current_setting('easeml.reason', true), '');
  is_made boolean;
  result text;
  said text;
  called text;
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
    called := (SELECT s.name FROM work.studies s WHERE s.id = q.study_id);
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
        IF NOT FOUND THEN
          IF EXISTS (SELECT FROM work.studies s WHERE s.id = q.study_id) THEN
            result := 'late';
          END IF;
        ELSIF q.change = 'delete' THEN
          is_made := work.delete_now(q.study_id);
        ELSIF q.change IN ('archive', 'withdraw', 'restore') THEN
          is_made := work.archive_now(q.study_id, q.change);
        ELSE
          UPDATE work.studies s SET state = CASE q.change WHEN 'pause' THEN 'PAUSED' ELSE 'ACTIVE' END
            WHERE s.id = q.study_id AND s.state = CASE q.change WHEN 'pause' THEN 'ACTIVE' ELSE 'PAUSED' END;
          is_made := FOUND;
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
      study := called;
      trial := q.trial_id;
      RETURN NEXT;
    END IF;
  END LOOP;
  PERFORM set_config('easeml.actor', actor, true), set_config('easeml.door', door, true),
    set_config('easeml.reason', reason, true);
END $$;
REVOKE EXECUTE ON FUNCTION work.apply_changes() FROM PUBLIC;

-- Learning curves that no rule reads any more: of archived studies, and of trials on earlier training data.
CREATE FUNCTION work.forget_curves(days double precision) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE gone bigint;
BEGIN
  IF (days >= 1) IS NOT TRUE THEN
    RAISE EXCEPTION 'curves are kept for a day at least, not for % days', days
      USING ERRCODE = 'check_violation', CONSTRAINT = 'curves_kept';
  END IF;
  DELETE FROM work.curves WHERE trial_id IN (
    SELECT t.id FROM work.trials t JOIN work.studies s ON s.id = t.study_id
    JOIN work.data_versions v ON v.id = t.data_version_id
    WHERE t.finished_at < now() - make_interval(secs => 86400 * days)
    AND EXISTS (SELECT FROM work.curves c WHERE c.trial_id = t.id)
    AND (s.state = 'ARCHIVED' OR EXISTS (SELECT FROM work.data_versions n WHERE n.study_id = t.study_id
      AND n.version > v.version AND n.same_training_as IS NULL)) LIMIT 1000);
  GET DIAGNOSTICS gone = ROW_COUNT;
  RETURN gone;
END $$;
REVOKE EXECUTE ON FUNCTION work.forget_curves(double precision) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work.forget_curves(double precision) TO easeml_referee;
