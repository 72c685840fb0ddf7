-- Made by scripts/reference.py (make reference); do not edit. Migrations change these functions.

CREATE OR REPLACE FUNCTION work.add_decision(INOUT batch_id bigint, of_key text, of_policy text, trials_requested integer, of_position integer, of_study bigint, of_candidate bigint, of_data_version bigint, of_device text, of_limit double precision, of_reasons jsonb, of_rival jsonb, reserve_seconds double precision, channel text, topics text[], OUT trial_id bigint)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION work.announce_device(of_host text, of_name text, of_holder text, of_kind text, of_model text, of_memory_mb integer, of_driver text, of_slots integer, of_held integer)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

-- CREATE TRIGGER answers_assessed AFTER INSERT ON work.answers FOR EACH ROW EXECUTE FUNCTION work.answer_changed()
CREATE OR REPLACE FUNCTION work.answer_changed()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  INSERT INTO work.study_changes (study_id) SELECT study_id FROM work.requests WHERE id = NEW.request_id;
  RETURN NULL;
END $function$;

CREATE OR REPLACE FUNCTION work.apply_changes()
 RETURNS TABLE(study text, trial bigint)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION work.archive_now(of_study bigint, wanted text)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION work.asker(words text)
 RETURNS text
 LANGUAGE sql
 STABLE PARALLEL SAFE
RETURN CASE WHEN ((work.kind_of_caller() <> ALL (ARRAY['tenant'::text, 'device'::text])) OR (work.audit_word(words, 200) = work.caller())) THEN work.audit_word(words, 200) ELSE "left"((work.caller() || COALESCE(((' ('::text || work.audit_word(words, 200)) || ')'::text), ''::text)), 200) END;

-- CREATE TRIGGER quality_checks_acknowledged AFTER UPDATE ON work.quality_checks FOR EACH ROW WHEN ((new.acknowledged_at IS DISTINCT FROM old.acknowledged_at)) EXECUTE FUNCTION work.audit_acknowledged()
CREATE OR REPLACE FUNCTION work.audit_acknowledged()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note('result acknowledged', NEW.study_id, NULL, NULL,
    jsonb_build_object('trial', NEW.trial_id, 'model', NEW.model_id), NEW.acknowledged_why);
  RETURN NULL;
END $function$;

-- CREATE TRIGGER alerts_audit AFTER UPDATE OF cleared_at ON work.alerts FOR EACH ROW WHEN (((old.cleared_at IS NULL) AND (new.cleared_at IS NOT NULL))) EXECUTE FUNCTION work.audit_alert()
CREATE OR REPLACE FUNCTION work.audit_alert()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note('alert cleared', NEW.study_id, NULL, NULL,
    jsonb_build_object('alert', NEW.id, 'kind', NEW.kind, 'team', NEW.team));
  RETURN NULL;
END $function$;

-- CREATE TRIGGER answers_audit AFTER INSERT ON work.answers FOR EACH ROW WHEN (new.refused) EXECUTE FUNCTION work.audit_answer()
CREATE OR REPLACE FUNCTION work.audit_answer()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE asked work.requests;
BEGIN
  SELECT * INTO asked FROM work.requests WHERE id = NEW.request_id;
  IF asked.kind <> 'seal' THEN  -- that is told as the study's refusal
    PERFORM work.note('request refused', asked.study_id, NULL, NULL, jsonb_build_object('request', asked.id,
      'kind', asked.kind, 'model', asked.model_id), left(NEW.message, 1000),
      coalesce(work.audit_asker(asked.study_id, asked.id),
        CASE WHEN starts_with(asked.requested_by, 'easeml_t_') THEN asked.requested_by END));
  END IF;
  RETURN NULL;
END $function$;

CREATE OR REPLACE FUNCTION work.audit_asker(study bigint, request bigint)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
  SELECT who FROM work.audit WHERE study_id = study AND act LIKE '%asked' AND after ->> 'request' = request::text
  ORDER BY id DESC LIMIT 1
$function$;

-- CREATE TRIGGER candidates_audit AFTER INSERT ON work.candidates FOR EACH ROW EXECUTE FUNCTION work.audit_candidate()
CREATE OR REPLACE FUNCTION work.audit_candidate()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  IF (SELECT state FROM work.studies WHERE id = NEW.study_id) <> 'REGISTERED' THEN
    PERFORM work.note('candidate added', NEW.study_id, NULL, NULL,
      jsonb_build_object('candidate', NEW.name, 'kind', NEW.kind));
  END IF;
  RETURN NULL;
END $function$;

-- CREATE TRIGGER feeds_audit AFTER INSERT ON work.feeds FOR EACH ROW EXECUTE FUNCTION work.audit_feed()
CREATE OR REPLACE FUNCTION work.audit_feed()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note('pairs fed', NEW.study_id, NULL, NULL,
    jsonb_build_object('feed', NEW.id, 'rows', NEW.rows, 'origin', NEW.origin), NULL, NEW.fed_by);
  RETURN NULL;
END $function$;

-- CREATE TRIGGER audit_append_only BEFORE DELETE OR UPDATE ON work.audit FOR EACH ROW EXECUTE FUNCTION work.audit_is_kept()
-- CREATE TRIGGER audit_keep_all BEFORE TRUNCATE ON work.audit FOR EACH STATEMENT EXECUTE FUNCTION work.audit_is_kept()
CREATE OR REPLACE FUNCTION work.audit_is_kept()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_append_only';
END $function$;

-- CREATE TRIGGER studies_audit AFTER UPDATE OF weight, budget_seconds, priority, deadline, target_quality ON work.studies FOR EACH ROW EXECUTE FUNCTION work.audit_limits('weight', 'budget_seconds', 'priority', 'deadline', 'target_quality')
-- CREATE TRIGGER tenants_audit AFTER UPDATE OF weight, max_parallel, quota_seconds ON work.tenants FOR EACH ROW EXECUTE FUNCTION work.audit_limits('weight', 'max_parallel', 'quota_seconds')
CREATE OR REPLACE FUNCTION work.audit_limits()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
  was jsonb := to_jsonb(OLD);
  now_is jsonb := to_jsonb(NEW);
  before jsonb;
  after jsonb;
BEGIN
  SELECT jsonb_object_agg(key, was -> key), jsonb_object_agg(key, value) INTO before, after
    FROM jsonb_each(now_is) WHERE key = ANY (TG_ARGV) AND was -> key IS DISTINCT FROM value;
  IF after IS NULL THEN
    RETURN NULL;
  ELSIF TG_TABLE_NAME = 'tenants' THEN
    PERFORM work.note('tenant changed', NULL, NEW.id, before, after);
  ELSE
    PERFORM work.note('study changed', NEW.id, NEW.tenant_id, before, after);
  END IF;
  RETURN NULL;
END $function$;

-- CREATE TRIGGER selection_settings_audit AFTER INSERT ON work.selection_settings FOR EACH ROW EXECUTE FUNCTION work.audit_policy()
CREATE OR REPLACE FUNCTION work.audit_policy()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE was jsonb := (SELECT config FROM work.selection_settings WHERE id < NEW.id ORDER BY id DESC LIMIT 1);
BEGIN
  PERFORM work.note('policy changed', NULL, NULL,
    jsonb_build_object('policy', left(was ->> 'policy', 100), 'price_per_second', was -> 'price_per_second'),
    jsonb_build_object('policy', left(NEW.config ->> 'policy', 100), 'price_per_second',
      NEW.config -> 'price_per_second', 'settings', NEW.id, 'backtest', NEW.report IS NOT NULL), NEW.reason);
  RETURN NULL;
END $function$;

-- CREATE TRIGGER promotions_audit AFTER INSERT ON work.promotions FOR EACH ROW EXECUTE FUNCTION work.audit_promotion()
CREATE OR REPLACE FUNCTION work.audit_promotion()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note(CASE NEW.kind WHEN 'force' THEN 'forced promotion' WHEN 'rollback' THEN 'rolled back'
    ELSE 'promoted' END, NEW.study_id, NULL,
    jsonb_build_object('model', (SELECT model_id FROM work.production WHERE study_id = NEW.study_id)),
    jsonb_build_object('request', NEW.request_id, 'model', NEW.model_id, 'verdict', NEW.symbol,
      'gate_request', NEW.gate_request_id, 'approved_by', work.audit_word(NEW.who, 200)),
    NEW.why, work.audit_asker(NEW.study_id, NEW.request_id));
  RETURN NULL;
END $function$;

-- CREATE TRIGGER quality_checks_audit AFTER INSERT ON work.quality_checks FOR EACH ROW WHEN ((new.outcome = 'not held'::text)) EXECUTE FUNCTION work.audit_quality()
CREATE OR REPLACE FUNCTION work.audit_quality()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note('result did not hold', NEW.study_id, NULL, jsonb_build_object('quality', NEW.claimed),
    jsonb_build_object('trial', NEW.trial_id, 'model', NEW.model_id, 'quality', NEW.measured));
  RETURN NULL;
END $function$;

-- CREATE TRIGGER requests_audit AFTER INSERT ON work.requests FOR EACH ROW WHEN ((new.kind = ANY (ARRAY['promote'::text, 'rollback'::text, 'force'::text]))) EXECUTE FUNCTION work.audit_request()
CREATE OR REPLACE FUNCTION work.audit_request()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note(CASE NEW.kind WHEN 'force' THEN 'forced promotion asked' WHEN 'rollback' THEN 'rollback asked'
    ELSE 'promotion asked' END, NEW.study_id, NULL, NULL, jsonb_build_object('request', NEW.id, 'model', NEW.model_id,
    'approved_by', CASE WHEN NEW.arguments ->> 'who' IS NOT NULL THEN work.asker(NEW.arguments ->> 'who') END),
    NEW.arguments ->> 'why');
  RETURN NULL;
END $function$;

-- CREATE TRIGGER trials_retry_audit AFTER INSERT ON work.trials FOR EACH ROW WHEN ((new.retries IS NOT NULL)) EXECUTE FUNCTION work.audit_retry()
CREATE OR REPLACE FUNCTION work.audit_retry()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note('trial retried', NEW.study_id, NULL, jsonb_build_object('trial', NEW.retries),
    jsonb_build_object('trial', NEW.id, 'candidate', (SELECT name FROM work.candidates WHERE id = NEW.candidate_id)));
  RETURN NULL;
END $function$;

-- CREATE TRIGGER test_sets_deleted_audit AFTER UPDATE OF deleted_at ON work.test_sets FOR EACH ROW WHEN (((old.deleted_at IS NULL) AND (new.deleted_at IS NOT NULL))) EXECUTE FUNCTION work.audit_set_deleted()
CREATE OR REPLACE FUNCTION work.audit_set_deleted()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note('set deleted', NEW.study_id, NULL, NULL, jsonb_build_object('set', NEW.id, 'name', OLD.name,
    'purpose', NEW.purpose, 'steps', NEW.steps));
  RETURN NULL;
END $function$;

-- CREATE TRIGGER studies_state_audit AFTER INSERT OR UPDATE OF state ON work.studies FOR EACH ROW EXECUTE FUNCTION work.audit_study()
CREATE OR REPLACE FUNCTION work.audit_study()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  IF TG_OP = 'INSERT' THEN
    PERFORM work.note('study registered', NEW.id, NEW.tenant_id, NULL, jsonb_build_object(
      'weight', NEW.weight, 'budget_seconds', NEW.budget_seconds, 'metric', NEW.metric));
  ELSIF NEW.state = 'ARCHIVED' AND OLD.state <> NEW.state THEN
    PERFORM work.note('study archived', NEW.id, NEW.tenant_id, jsonb_build_object('state', OLD.state,
      'model', (SELECT model_id FROM work.production WHERE study_id = NEW.id)), NULL);
  ELSIF OLD.state <> NEW.state THEN
    PERFORM work.note(CASE WHEN OLD.state = 'ARCHIVED' THEN 'study restored'
      WHEN OLD.state = 'REGISTERED' AND NEW.state = 'ACTIVE' THEN 'study sealed'
      WHEN NEW.state = 'ACTIVE' THEN 'study resumed' ELSE 'study ' || lower(NEW.state) END,
      NEW.id, NEW.tenant_id, NULL, CASE WHEN OLD.state = 'ARCHIVED' THEN jsonb_build_object('state', NEW.state) END);
  END IF;
  RETURN NULL;
END $function$;

-- CREATE TRIGGER submissions_audit AFTER INSERT ON work.submissions FOR EACH ROW EXECUTE FUNCTION work.audit_submission()
CREATE OR REPLACE FUNCTION work.audit_submission()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note('model handed in', NEW.study_id, NULL, NULL,
    jsonb_build_object('model', NEW.model_id, 'kind', NEW.kind), NEW.message);
  RETURN NULL;
END $function$;

-- CREATE TRIGGER switches_audit AFTER INSERT ON work.switches REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION work.audit_switches()
CREATE OR REPLACE FUNCTION work.audit_switches()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note('pairs switched', study_id, NULL, NULL, jsonb_build_object('rows', count(*), 'is_on', is_on),
    reason, switched_by) FROM added GROUP BY study_id, is_on, reason, switched_by;
  RETURN NULL;
END $function$;

-- CREATE TRIGGER tenants_archived_audit AFTER UPDATE OF archived_at ON work.tenants FOR EACH ROW WHEN (((old.archived_at IS NULL) <> (new.archived_at IS NULL))) EXECUTE FUNCTION work.audit_tenant()
CREATE OR REPLACE FUNCTION work.audit_tenant()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note(CASE WHEN NEW.archived_at IS NULL THEN 'tenant restored' ELSE 'tenant archived' END, NULL, NEW.id,
    NULL, jsonb_build_object('tenant', NEW.name), NEW.archived_why);
  RETURN NULL;
END $function$;

-- CREATE TRIGGER test_sets_audit AFTER INSERT OR UPDATE OF state ON work.test_sets FOR EACH ROW EXECUTE FUNCTION work.audit_test_set()
CREATE OR REPLACE FUNCTION work.audit_test_set()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  IF TG_OP = 'INSERT' OR OLD.state <> NEW.state THEN
    PERFORM work.note('set ' || NEW.state, NEW.study_id, NULL, NULL, jsonb_build_object('set', NEW.id, 'name', NEW.name,
      'purpose', NEW.purpose, 'steps', NEW.steps, 'why', CASE WHEN NEW.state = 'retired' THEN NEW.retired_why END));
  END IF;
  RETURN NULL;
END $function$;

-- CREATE TRIGGER trials_audit AFTER UPDATE OF cancel_requested ON work.trials FOR EACH ROW WHEN ((new.cancel_requested AND (NOT old.cancel_requested))) EXECUTE FUNCTION work.audit_trial()
CREATE OR REPLACE FUNCTION work.audit_trial()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note('trial cancelled', NEW.study_id, NULL, NULL, jsonb_build_object('trial', NEW.id, 'candidate',
    (SELECT name FROM work.candidates WHERE id = NEW.candidate_id)));
  RETURN NULL;
END $function$;

-- CREATE TRIGGER data_versions_audit AFTER INSERT ON work.data_versions FOR EACH ROW WHEN ((new.same_training_as IS NOT NULL)) EXECUTE FUNCTION work.audit_validation()
CREATE OR REPLACE FUNCTION work.audit_validation()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note('validation set replaced', NEW.study_id, NULL,
    jsonb_build_object('version', NEW.version - 1), jsonb_build_object('version', NEW.version));
  RETURN NULL;
END $function$;

-- CREATE TRIGGER candidates_withdrawn_audit AFTER UPDATE OF withdrawn_at ON work.candidates FOR EACH ROW WHEN (((old.withdrawn_at IS NULL) <> (new.withdrawn_at IS NULL))) EXECUTE FUNCTION work.audit_withdrawal()
CREATE OR REPLACE FUNCTION work.audit_withdrawal()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.note(CASE WHEN NEW.withdrawn_at IS NULL THEN 'candidate restored' ELSE 'candidate withdrawn' END,
    NEW.study_id, NULL, NULL, jsonb_build_object('candidate', NEW.name, 'kind', NEW.kind), NEW.withdrawn_why);
  RETURN NULL;
END $function$;

CREATE OR REPLACE FUNCTION work.audit_word(words text, most integer)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE
AS $function$
  SELECT nullif(btrim(left(regexp_replace(words, '[[:cntrl:]]', ' ', 'g'), most)), '')
$function$;

CREATE OR REPLACE FUNCTION work.await_turn()
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  IF work.kind_of_caller() IN ('tenant', 'device') AND work.caller() <> 'easeml_device' THEN
    PERFORM pg_advisory_xact_lock(hashtextextended('easeml login ' || work.caller(), 0));
  END IF;
END $function$;

CREATE OR REPLACE FUNCTION work.caller()
 RETURNS text
 LANGUAGE sql
 STABLE PARALLEL SAFE
RETURN CASE WHEN (current_setting('role'::text) = ANY (ARRAY['none'::text, 'easeml_tenant'::text, 'easeml_device'::text])) THEN (SESSION_USER)::text ELSE current_setting('role'::text) END;

CREATE OR REPLACE FUNCTION work.cancel_trial(trial bigint)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

-- CREATE TRIGGER candidates_of_tenants AFTER INSERT ON work.candidates REFERENCING NEW TABLE AS added FOR EACH STATEMENT WHEN (((CURRENT_USER <> ALL (ARRAY['easeml_worker'::name, 'easeml_referee'::name, 'easeml_scheduler'::name])) AND (NOT pg_has_role(CURRENT_USER, 'easeml_owner'::name, 'USAGE'::text)))) EXECUTE FUNCTION work.candidates_of_tenants()
CREATE OR REPLACE FUNCTION work.candidates_of_tenants()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.await_turn();
  IF EXISTS (SELECT FROM work.candidates WHERE study_id IN (SELECT study_id FROM added)
             GROUP BY study_id HAVING count(*) > 1000) THEN
    RAISE EXCEPTION 'a study has at most 1000 candidates'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'candidates_of_tenants_check';
  END IF;
  RETURN NULL;
END $function$;

-- CREATE CONSTRAINT TRIGGER candidates_catalogue AFTER INSERT OR DELETE OR UPDATE ON work.candidates DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION work.catalogue_changed()
-- CREATE CONSTRAINT TRIGGER data_versions_catalogue AFTER INSERT OR DELETE OR UPDATE ON work.data_versions DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION work.catalogue_changed()
-- CREATE CONSTRAINT TRIGGER quality_checks_catalogue AFTER INSERT ON work.quality_checks DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.outcome = 'not held'::text)) EXECUTE FUNCTION work.catalogue_changed()
-- CREATE CONSTRAINT TRIGGER studies_catalogue AFTER INSERT OR DELETE OR UPDATE ON work.studies DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION work.catalogue_changed()
-- CREATE CONSTRAINT TRIGGER tenants_catalogue AFTER INSERT OR DELETE OR UPDATE ON work.tenants DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION work.catalogue_changed()
CREATE OR REPLACE FUNCTION work.catalogue_changed()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION work.change_study(study bigint, wanted text, why text)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION work.change_tenant(of_tenant bigint, wanted text, why text)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

-- CREATE TRIGGER study_changes_taken AFTER UPDATE ON work.study_changes FOR EACH STATEMENT EXECUTE FUNCTION work.changes_taken()
CREATE OR REPLACE FUNCTION work.changes_taken()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  DELETE FROM work.study_changes WHERE taken;
  RETURN NULL;
END $function$;

CREATE OR REPLACE FUNCTION work.charge(t work.trials)
 RETURNS double precision
 LANGUAGE sql
 IMMUTABLE
AS $function$
  SELECT CASE WHEN t.state IN ('SUGGESTED', 'RUNNING') THEN t.limit_seconds
         ELSE t.lost_seconds + coalesce(t.cost_seconds, 0) + coalesce(t.start_seconds, 0) END
$function$;

CREATE OR REPLACE FUNCTION work.check_budget(of_study bigint)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
DECLARE
  study work.studies;
  unbounded boolean;
  taken double precision;
BEGIN
  SELECT * INTO study FROM work.studies WHERE id = of_study;
  IF study.budget_seconds IS NOT NULL THEN
    SELECT bool_or(work.charge(t) IS NULL), sum(work.charge(t)) INTO unbounded, taken
      FROM work.trials t WHERE t.study_id = of_study;
    IF unbounded OR taken > study.budget_seconds THEN
      PERFORM work.refuse('studies_budget_kept', 'compute budget', study.name,
        CASE WHEN NOT unbounded THEN taken END, study.budget_seconds);
    END IF;
  END IF;
END $function$;

CREATE OR REPLACE FUNCTION work.check_parallel(of_tenant bigint)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
DECLARE
  tenant work.tenants;
  taken double precision;
BEGIN
  SELECT * INTO tenant FROM work.tenants WHERE id = of_tenant;
  IF tenant.max_parallel IS NOT NULL THEN
    SELECT count(*) INTO taken FROM work.trials t JOIN work.studies s ON s.id = t.study_id
      WHERE s.tenant_id = of_tenant AND t.state IN ('SUGGESTED', 'RUNNING');
    IF taken > tenant.max_parallel THEN
      PERFORM work.refuse('tenants_parallel_kept', 'number of open trials', tenant.name, taken, tenant.max_parallel);
    END IF;
  END IF;
END $function$;

CREATE OR REPLACE FUNCTION work.check_quota(of_tenant bigint)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
DECLARE
  tenant work.tenants;
  unbounded boolean;
  taken double precision;
BEGIN
  SELECT * INTO tenant FROM work.tenants WHERE id = of_tenant;
  IF tenant.quota_seconds IS NOT NULL THEN
    SELECT bool_or(work.charge(t) IS NULL), sum(work.charge(t)) INTO unbounded, taken
      FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE s.tenant_id = of_tenant;
    IF unbounded OR taken > tenant.quota_seconds THEN
      PERFORM work.refuse('tenants_quota_kept', 'quota', tenant.name,
        CASE WHEN NOT unbounded THEN taken END, tenant.quota_seconds);
    END IF;
  END IF;
END $function$;

CREATE OR REPLACE FUNCTION work.claim_trial(trial bigint, key text, with_executor text, with_details jsonb, OUT outcome text, OUT token text)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION work.delete_now(of_study bigint)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION work.delete_tenant_now(of_tenant bigint)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION work.device_fits(devices jsonb, offered text)
 RETURNS boolean
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN (devices IS NULL) THEN COALESCE((offered !~ '[:/]'::text), true) WHEN (offered IS NULL) THEN jsonb_path_exists(devices, 'strict $[*]?(!(@ like_regex "[:/]"))'::jsonpath) ELSE jsonb_exists(devices, offered) END;

CREATE OR REPLACE FUNCTION work.device_weight(device text)
 RETURNS double precision
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN (POSITION((':'::text) IN (device)) > 0) THEN (split_part(device, ':'::text, 2))::double precision WHEN (POSITION(('/'::text) IN (device)) > 0) THEN ((1)::double precision / (split_part(device, '/'::text, 2))::double precision) ELSE (1)::double precision END;

CREATE OR REPLACE FUNCTION work.end_sessions(most_locks bigint, longest_seconds double precision)
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION work.file_change(study bigint, trial bigint, wanted text)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION work.forget_curves(days double precision)
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

-- CREATE TRIGGER is_open_for_more AFTER INSERT ON work.candidates REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION work.is_open_for_more()
-- CREATE TRIGGER is_open_for_more AFTER INSERT ON work.feeds REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION work.is_open_for_more()
-- CREATE TRIGGER is_open_for_more AFTER INSERT ON work.requests REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION work.is_open_for_more()
-- CREATE TRIGGER is_open_for_more AFTER INSERT ON work.studies REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION work.is_open_for_more()
-- CREATE TRIGGER is_open_for_more AFTER INSERT ON work.submissions REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION work.is_open_for_more()
-- CREATE TRIGGER is_open_for_more AFTER INSERT ON work.switches REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION work.is_open_for_more()
CREATE OR REPLACE FUNCTION work.is_open_for_more()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION work.kind_of_caller()
 RETURNS text
 LANGUAGE sql
 STABLE PARALLEL SAFE
RETURN CASE WHEN starts_with(work.caller(), 'easeml_t_'::text) THEN 'tenant'::text WHEN ((work.caller() = 'easeml_device'::text) OR starts_with(work.caller(), 'easeml_d_'::text)) THEN 'device'::text WHEN (work.caller() = ANY (ARRAY['easeml_viewer'::text, 'easeml_person'::text])) THEN 'person'::text ELSE 'role'::text END;

CREATE OR REPLACE FUNCTION work.lease()
 RETURNS text
 LANGUAGE sql
 STABLE PARALLEL SAFE
RETURN encode(sha256(convert_to(NULLIF(current_setting('easeml.lease'::text, true), ''::text), 'UTF8'::name)), 'hex'::text);

CREATE OR REPLACE FUNCTION work.lease_seconds(training jsonb)
 RETURNS double precision
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN LEAST((3600)::double precision, GREATEST((1)::double precision, COALESCE(((training ->> 'lease_seconds'::text))::double precision, (60)::double precision)));

CREATE OR REPLACE FUNCTION work.look(of_key text, last bigint, known bigint[])
 RETURNS json
 LANGUAGE plpgsql
AS $function$
BEGIN
  PERFORM FROM work.locks WHERE name = 'suggest' FOR UPDATE;
  RETURN work.seen(of_key, last, known);
END $function$;

CREATE OR REPLACE FUNCTION work.may_change(study bigint, devices boolean)
 RETURNS boolean
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
RETURN ((devices AND (work.kind_of_caller() = 'device'::text)) OR (EXISTS (SELECT FROM work.studies WHERE ((studies.id = may_change.study) AND (studies.tenant_id = ANY (work.my_changes()))))));

CREATE OR REPLACE FUNCTION work.my_changes()
 RETURNS bigint[]
 LANGUAGE sql
 STABLE PARALLEL SAFE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
RETURN CASE work.caller() WHEN 'easeml_viewer'::text THEN '{}'::bigint[] WHEN 'easeml_person'::text THEN COALESCE((NULLIF(current_setting('easeml.person_tenants'::text, true), ''::text))::bigint[], '{}'::bigint[]) ELSE work.my_tenants() END;

CREATE OR REPLACE FUNCTION work.my_tenants()
 RETURNS bigint[]
 LANGUAGE sql
 STABLE PARALLEL SAFE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
RETURN CASE WHEN (work.caller() = ANY (ARRAY['easeml_viewer'::text, 'easeml_person'::text])) THEN COALESCE((NULLIF(current_setting('easeml.viewer_tenants'::text, true), ''::text))::bigint[], '{}'::bigint[]) ELSE (SELECT COALESCE(array_agg(tenant_logins.tenant_id), '{}'::bigint[]) AS "coalesce" FROM work.tenant_logins WHERE (tenant_logins.login = work.caller())) END;

CREATE OR REPLACE FUNCTION work.note(act text, study bigint, tenant bigint, before jsonb, after jsonb, why text DEFAULT NULL::text, actor text DEFAULT NULL::text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.require_audit_room();
  INSERT INTO work.audit (who, door, act, study_id, tenant_id, before, after, reason) VALUES (
    coalesce(work.asker(coalesce(work.audit_word(actor, 200), current_setting('easeml.actor', true))), session_user),
    CASE WHEN work.kind_of_caller() IN ('tenant', 'device') THEN 'database'
      ELSE coalesce(work.audit_word(current_setting('easeml.door', true), 40), 'database') END, act, study,
    coalesce(tenant, (SELECT tenant_id FROM work.studies WHERE id = study)), coalesce(before, '{}'),
    coalesce(after, '{}'), nullif(left(coalesce(why, current_setting('easeml.reason', true)), 2000), ''));
END $function$;

-- CREATE TRIGGER observations_assessed AFTER INSERT OR UPDATE ON work.observations FOR EACH ROW EXECUTE FUNCTION work.observation_changed()
CREATE OR REPLACE FUNCTION work.observation_changed()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  INSERT INTO work.study_changes (study_id) SELECT study_id FROM work.trials WHERE id = NEW.trial_id;
  RETURN NULL;
END $function$;

-- CREATE TRIGGER observations_by_lease BEFORE INSERT ON work.observations FOR EACH ROW WHEN (((CURRENT_USER <> ALL (ARRAY['easeml_worker'::name, 'easeml_referee'::name, 'easeml_scheduler'::name])) AND (NOT pg_has_role(CURRENT_USER, 'easeml_owner'::name, 'USAGE'::text)))) EXECUTE FUNCTION work.observations_by_lease()
CREATE OR REPLACE FUNCTION work.observations_by_lease()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  NEW.cost_seconds := (SELECT cost_seconds FROM work.trials WHERE id = NEW.trial_id);
  RETURN NEW;
END $function$;

-- CREATE TRIGGER production_is_open BEFORE INSERT OR UPDATE ON work.production FOR EACH ROW EXECUTE FUNCTION work.production_is_open()
CREATE OR REPLACE FUNCTION work.production_is_open()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE found text;
BEGIN
  SELECT CASE state WHEN 'ARCHIVED' THEN name END INTO found FROM work.studies WHERE id = NEW.study_id FOR SHARE;
  IF found IS NOT NULL THEN
    RAISE EXCEPTION 'study % is archived', found USING ERRCODE = 'check_violation', CONSTRAINT = 'archived_closed';
  END IF;
  RETURN NEW;
END $function$;

CREATE OR REPLACE FUNCTION work.queue_place(of_request bigint, most integer)
 RETURNS TABLE(is_long boolean, short_ahead integer, long_ahead integer)
 LANGUAGE sql
 STABLE
AS $function$
  WITH waiting AS MATERIALIZED (
    SELECT r.id, r.kind IN ('gate', 'meter') AS is_long,
      row_number() OVER (PARTITION BY s.tenant_id, r.kind IN ('gate', 'meter') ORDER BY r.id) AS turn
    FROM (SELECT q.id, q.kind, q.study_id FROM work.requests q ORDER BY q.id DESC LIMIT most) r
    JOIN work.studies s ON s.id = r.study_id
    WHERE NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = r.id))
  SELECT m.is_long, count(o.id) FILTER (WHERE NOT o.is_long)::integer, count(o.id) FILTER (WHERE o.is_long)::integer
  FROM waiting m LEFT JOIN waiting o ON (o.is_long, o.turn, o.id) < (m.is_long, m.turn, m.id)
  WHERE m.id = of_request GROUP BY m.id, m.is_long
$function$;

CREATE OR REPLACE FUNCTION work.refuse(name text, what text, owner text, taken double precision, allowed double precision)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
BEGIN
  RAISE EXCEPTION '% of % is exceeded: % of %', what, owner, coalesce(taken::text, 'no bound'), allowed
    USING ERRCODE = 'check_violation', CONSTRAINT = name,
          DETAIL = jsonb_build_object('owner', owner, 'taken', taken, 'allowed', allowed);
END $function$;

-- CREATE TRIGGER requests_have_a_file AFTER INSERT ON work.requests REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION work.requests_have_a_file()
CREATE OR REPLACE FUNCTION work.requests_have_a_file()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE found text;
BEGIN
  found := (SELECT format('the file of model %s was removed: %s', m.id, m.removed_why) FROM added a
    JOIN work.models m ON m.id = a.model_id WHERE m.removed_at IS NOT NULL LIMIT 1);
  IF found IS NOT NULL THEN
    RAISE EXCEPTION '%', found USING ERRCODE = 'check_violation', CONSTRAINT = 'requests_file_check';
  END IF;
  RETURN NULL;
END $function$;

CREATE OR REPLACE FUNCTION work.require_audit_room()
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  IF work.kind_of_caller() NOT IN ('tenant', 'device') OR work.caller() = 'easeml_device' THEN
    RETURN;
  END IF;
  PERFORM work.await_turn();
  IF (SELECT count(*) FROM (SELECT FROM work.audit a WHERE left(a.who, 9) IN ('easeml_t_', 'easeml_d_') AND a.door NOT IN ('page', 'service') AND split_part(a.who, ' ', 1) = work.caller()
      AND a.at > clock_timestamp() - interval '1 hour' LIMIT 10000) n) >= 10000 THEN
    RAISE EXCEPTION 'acts of login % would be % of at most 10000 within an hour', work.caller(), 10001
      USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_rate_check';
  END IF;
END $function$;

-- CREATE TRIGGER restarts_of_referee BEFORE INSERT ON work.restarts FOR EACH ROW EXECUTE FUNCTION work.restarts_of_referee()
CREATE OR REPLACE FUNCTION work.restarts_of_referee()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF (NEW.what <> 'server' OR NEW.at <> pg_postmaster_start_time())
     AND NOT pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE')
  THEN
    RAISE EXCEPTION 'only the owner records another restart than the start of the database server'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'restarts_of_referee_check';
  END IF;
  RETURN NEW;
END $function$;

CREATE OR REPLACE FUNCTION work.rival_of(batch bigint, place integer)
 RETURNS jsonb
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
RETURN (SELECT g.rival FROM work.suggestions g WHERE ((g.batch_id = rival_of.batch) AND (g."position" = rival_of.place) AND (g.rival IS NOT NULL) AND (has_column_privilege((work.caller())::name, 'work.suggestions'::text, 'rival'::text, 'SELECT'::text) OR ((EXISTS (SELECT FROM work.studies s WHERE ((s.id = (((g.rival -> 'runner_up'::text) ->> 'study_id'::text))::bigint) AND (s.tenant_id = ANY (work.my_tenants()))))) AND (EXISTS (SELECT FROM (work.trials t JOIN work.studies s ON ((s.id = t.study_id))) WHERE ((t.id = g.trial_id) AND (s.tenant_id = ANY (work.my_tenants())))))))));

-- CREATE TRIGGER rows_of_tenants AFTER INSERT ON work.data_sets REFERENCING NEW TABLE AS added FOR EACH STATEMENT WHEN (((CURRENT_USER <> ALL (ARRAY['easeml_worker'::name, 'easeml_referee'::name, 'easeml_scheduler'::name])) AND (NOT pg_has_role(CURRENT_USER, 'easeml_owner'::name, 'USAGE'::text)))) EXECUTE FUNCTION work.rows_of_tenants('1000', 'of a tenant')
-- CREATE TRIGGER rows_of_tenants AFTER INSERT ON work.feeds REFERENCING NEW TABLE AS added FOR EACH STATEMENT WHEN (((CURRENT_USER <> ALL (ARRAY['easeml_worker'::name, 'easeml_referee'::name, 'easeml_scheduler'::name])) AND (NOT pg_has_role(CURRENT_USER, 'easeml_owner'::name, 'USAGE'::text)))) EXECUTE FUNCTION work.rows_of_tenants('1000', 'of a study that wait')
-- CREATE TRIGGER rows_of_tenants AFTER INSERT ON work.models REFERENCING NEW TABLE AS added FOR EACH STATEMENT WHEN (((CURRENT_USER <> ALL (ARRAY['easeml_worker'::name, 'easeml_referee'::name, 'easeml_scheduler'::name])) AND (NOT pg_has_role(CURRENT_USER, 'easeml_owner'::name, 'USAGE'::text)))) EXECUTE FUNCTION work.rows_of_tenants('1000', 'handed in for a study within a day')
-- CREATE TRIGGER rows_of_tenants AFTER INSERT ON work.requests REFERENCING NEW TABLE AS added FOR EACH STATEMENT WHEN (((CURRENT_USER <> ALL (ARRAY['easeml_worker'::name, 'easeml_referee'::name, 'easeml_scheduler'::name])) AND (NOT pg_has_role(CURRENT_USER, 'easeml_owner'::name, 'USAGE'::text)))) EXECUTE FUNCTION work.rows_of_tenants('1000', 'of a study without an answer')
-- CREATE TRIGGER rows_of_tenants AFTER INSERT ON work.studies REFERENCING NEW TABLE AS added FOR EACH STATEMENT WHEN (((CURRENT_USER <> ALL (ARRAY['easeml_worker'::name, 'easeml_referee'::name, 'easeml_scheduler'::name])) AND (NOT pg_has_role(CURRENT_USER, 'easeml_owner'::name, 'USAGE'::text)))) EXECUTE FUNCTION work.rows_of_tenants('1000', 'of a tenant')
-- CREATE TRIGGER rows_of_tenants AFTER INSERT ON work.switches REFERENCING NEW TABLE AS added FOR EACH STATEMENT WHEN (((CURRENT_USER <> ALL (ARRAY['easeml_worker'::name, 'easeml_referee'::name, 'easeml_scheduler'::name])) AND (NOT pg_has_role(CURRENT_USER, 'easeml_owner'::name, 'USAGE'::text)))) EXECUTE FUNCTION work.rows_of_tenants('200000', 'of a study that wait')
CREATE OR REPLACE FUNCTION work.rows_of_tenants()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
  most integer := TG_ARGV[0];
  found bigint;
BEGIN
  PERFORM work.require_audit_room(); PERFORM work.await_turn();
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
END $function$;

CREATE OR REPLACE FUNCTION work.seen(of_key text, last bigint, known bigint[])
 RETURNS json
 LANGUAGE plpgsql
 STABLE
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION work.set_candidate_withdrawn(study bigint, candidate text, withdrawn boolean, why text)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  IF work.kind_of_caller() <> 'role' AND NOT work.may_change(study, false) THEN
    RETURN false;
  END IF;
  PERFORM set_config('easeml.reason', left(coalesce(why, ''), 2000), true);
  UPDATE work.candidates c SET withdrawn_at = CASE WHEN withdrawn THEN clock_timestamp() END,
      withdrawn_why = CASE WHEN withdrawn THEN left(coalesce(why, ''), 2000) END
    WHERE c.study_id = study AND c.name = candidate AND (c.withdrawn_at IS NOT NULL) <> withdrawn;
  RETURN FOUND;
END $function$;

CREATE OR REPLACE FUNCTION work.set_study_paused(study bigint, paused boolean)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

-- CREATE TRIGGER selection_settings_append_only BEFORE DELETE OR UPDATE ON work.selection_settings FOR EACH ROW EXECUTE FUNCTION work.settings_are_kept()
-- CREATE TRIGGER selection_settings_keep_all BEFORE TRUNCATE ON work.selection_settings FOR EACH STATEMENT EXECUTE FUNCTION work.settings_are_kept()
CREATE OR REPLACE FUNCTION work.settings_are_kept()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  RAISE EXCEPTION 'settings of the scheduler are append-only: batches of suggestions refer to them'
    USING ERRCODE = 'check_violation', CONSTRAINT = 'selection_settings_append_only';
END $function$;

-- CREATE TRIGGER studies_active_since BEFORE UPDATE OF state ON work.studies FOR EACH ROW WHEN (((old.state <> new.state) AND (new.state = 'ACTIVE'::text))) EXECUTE FUNCTION work.studies_active_since()
CREATE OR REPLACE FUNCTION work.studies_active_since()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  NEW.active_since := clock_timestamp();
  RETURN NEW;
END $function$;

-- CREATE TRIGGER studies_assessed AFTER INSERT OR UPDATE ON work.studies FOR EACH ROW EXECUTE FUNCTION work.studies_changed()
CREATE OR REPLACE FUNCTION work.studies_changed()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  -- A refused study is shown until another one has its name.
  INSERT INTO work.study_changes (study_id) SELECT id FROM work.studies WHERE name = NEW.name;
  RETURN NULL;
END $function$;

-- CREATE TRIGGER studies_forward BEFORE UPDATE OF state ON work.studies FOR EACH ROW WHEN ((old.state <> new.state)) EXECUTE FUNCTION work.studies_forward()
CREATE OR REPLACE FUNCTION work.studies_forward()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
DECLARE
  is_owner boolean := pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE');
BEGIN
  IF NOT ((OLD.state = 'REGISTERED' AND NEW.state IN ('ACTIVE', 'REFUSED')
           AND (current_user = 'easeml_referee' OR is_owner))
       OR (OLD.state IN ('ACTIVE', 'PAUSED') AND NEW.state IN ('ACTIVE', 'PAUSED'))
       -- By work.archive_now alone, which cancels the trials as well.
       OR (is_owner AND (NEW.state = 'ARCHIVED' OR OLD.state = 'ARCHIVED' AND (NEW.state = OLD.archived_from
           OR NEW.state = 'REFUSED' AND OLD.archived_from = 'REGISTERED'))))
  THEN
    RAISE EXCEPTION 'study % cannot go from % to %', OLD.name, OLD.state, NEW.state
      USING ERRCODE = 'check_violation', CONSTRAINT = 'studies_forward_check';
  END IF;
  NEW.archived_at := CASE NEW.state WHEN 'ARCHIVED' THEN clock_timestamp() END;
  NEW.archived_from := CASE NEW.state WHEN 'ARCHIVED' THEN OLD.state END;
  NEW.archived_why := CASE NEW.state WHEN 'ARCHIVED'
    THEN left(coalesce(current_setting('easeml.reason', true), ''), 2000) END;
  RETURN NEW;
END $function$;

-- CREATE TRIGGER studies_within_limits AFTER UPDATE OF budget_seconds ON work.studies FOR EACH ROW WHEN ((new.budget_seconds < COALESCE(old.budget_seconds, 'Infinity'::double precision))) EXECUTE FUNCTION work.studies_within_limits()
CREATE OR REPLACE FUNCTION work.studies_within_limits()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM FROM work.tenants WHERE id = NEW.tenant_id FOR NO KEY UPDATE;
  PERFORM work.check_budget(NEW.id);
  RETURN NULL;
END $function$;

-- CREATE TRIGGER alerts_assessed AFTER INSERT OR UPDATE ON work.alerts FOR EACH ROW EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER candidates_assessed AFTER INSERT ON work.candidates FOR EACH ROW EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER candidates_withdrawn_assessed AFTER UPDATE ON work.candidates FOR EACH ROW EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER data_versions_assessed AFTER INSERT OR UPDATE ON work.data_versions FOR EACH ROW EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER gate_verdicts_assessed AFTER INSERT OR UPDATE ON work.gate_verdicts FOR EACH ROW EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER meter_readings_assessed AFTER INSERT OR UPDATE ON work.meter_readings FOR EACH ROW EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER models_assessed AFTER INSERT OR UPDATE ON work.models FOR EACH ROW EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER production_assessed AFTER INSERT OR UPDATE ON work.production FOR EACH ROW EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER promotions_assessed AFTER INSERT ON work.promotions FOR EACH ROW EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER quality_checks_assessed AFTER INSERT OR UPDATE ON work.quality_checks FOR EACH ROW WHEN ((new.outcome = 'not held'::text)) EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER requests_assessed AFTER INSERT OR UPDATE ON work.requests FOR EACH ROW EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER test_sets_assessed AFTER INSERT OR UPDATE ON work.test_sets FOR EACH ROW EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER trials_added_assessed AFTER INSERT ON work.trials FOR EACH ROW EXECUTE FUNCTION work.study_changed()
-- CREATE TRIGGER trials_assessed AFTER UPDATE ON work.trials FOR EACH ROW WHEN ((((((((((((old.state IS DISTINCT FROM new.state) OR (old.candidate_id IS DISTINCT FROM new.candidate_id)) OR (old.data_version_id IS DISTINCT FROM new.data_version_id)) OR (old.limit_seconds IS DISTINCT FROM new.limit_seconds)) OR (old.lost_seconds IS DISTINCT FROM new.lost_seconds)) OR (old.cost_seconds IS DISTINCT FROM new.cost_seconds)) OR (old.start_seconds IS DISTINCT FROM new.start_seconds)) OR (old.attempt_started_at IS DISTINCT FROM new.attempt_started_at)) OR (old.finished_at IS DISTINCT FROM new.finished_at)) OR (old.failure_kind IS DISTINCT FROM new.failure_kind)) OR (new.lease_until < old.lease_until) OR (old.lease_until < now()))) EXECUTE FUNCTION work.study_changed()
CREATE OR REPLACE FUNCTION work.study_changed()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  INSERT INTO work.study_changes (study_id) VALUES (NEW.study_id);
  RETURN NULL;
END $function$;

-- CREATE TRIGGER suggestion_requests_open BEFORE INSERT ON work.suggestion_requests FOR EACH ROW EXECUTE FUNCTION work.suggestion_requests_check()
CREATE OR REPLACE FUNCTION work.suggestion_requests_check()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM work.await_turn();
  IF (SELECT count(*) FROM work.suggestion_requests q WHERE q.login = NEW.login AND q.decided_at IS NULL) >= 1000 THEN
    RAISE EXCEPTION 'login % has 1000 requests for suggestions without a decision', NEW.login
      USING ERRCODE = 'check_violation', CONSTRAINT = 'suggestion_requests_open_check';
  END IF;
  RETURN NEW;
END $function$;

-- CREATE TRIGGER tenants_assessed AFTER UPDATE ON work.tenants FOR EACH ROW EXECUTE FUNCTION work.tenant_changed()
CREATE OR REPLACE FUNCTION work.tenant_changed()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  INSERT INTO work.study_changes (study_id) SELECT id FROM work.studies WHERE tenant_id = NEW.id;
  RETURN NULL;
END $function$;

-- CREATE TRIGGER tenants_within_limits AFTER UPDATE OF max_parallel, quota_seconds ON work.tenants FOR EACH ROW EXECUTE FUNCTION work.tenants_within_limits()
CREATE OR REPLACE FUNCTION work.tenants_within_limits()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  IF NEW.quota_seconds < coalesce(OLD.quota_seconds, 'Infinity') THEN
    PERFORM work.check_quota(NEW.id);
  END IF;
  IF NEW.max_parallel IS NOT NULL AND (OLD.max_parallel IS NULL OR NEW.max_parallel < OLD.max_parallel) THEN
    PERFORM work.check_parallel(NEW.id);
  END IF;
  RETURN NULL;
END $function$;

-- CREATE TRIGGER test_sets_forward BEFORE UPDATE ON work.test_sets FOR EACH ROW EXECUTE FUNCTION work.test_sets_forward()
CREATE OR REPLACE FUNCTION work.test_sets_forward()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
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
END $function$;

-- CREATE TRIGGER trials_by_lease BEFORE UPDATE ON work.trials FOR EACH ROW WHEN (((CURRENT_USER <> ALL (ARRAY['easeml_worker'::name, 'easeml_referee'::name, 'easeml_scheduler'::name])) AND (NOT pg_has_role(CURRENT_USER, 'easeml_owner'::name, 'USAGE'::text)))) EXECUTE FUNCTION work.trials_by_lease()
CREATE OR REPLACE FUNCTION work.trials_by_lease()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$;

-- CREATE TRIGGER trials_checkpoint_spent BEFORE UPDATE ON work.trials FOR EACH ROW WHEN (((new.checkpoint IS NOT NULL) AND (new.state <> ALL (ARRAY['SUGGESTED'::text, 'RUNNING'::text])))) EXECUTE FUNCTION work.trials_checkpoint_spent()
CREATE OR REPLACE FUNCTION work.trials_checkpoint_spent()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF NEW.cost_seconds IS NULL THEN
    NEW.lost_seconds := least(NEW.limit_seconds, 1e9, NEW.lost_seconds + coalesce(NEW.checkpoint_seconds, 0));
  END IF;
  NEW.checkpoint := NULL;
  NEW.checkpoint_seconds := NULL;
  NEW.checkpoint_progress := NULL;
  RETURN NEW;
END $function$;

-- CREATE TRIGGER trials_ended_now BEFORE UPDATE OF finished_at ON work.trials FOR EACH ROW WHEN (((old.finished_at IS NULL) AND (new.finished_at IS NOT NULL))) EXECUTE FUNCTION work.trials_ended_now()
CREATE OR REPLACE FUNCTION work.trials_ended_now()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  NEW.finished_at := clock_timestamp();
  NEW.ended_xact := pg_current_xact_id();
  RETURN NEW;
END $function$;

-- CREATE TRIGGER trials_excuse BEFORE UPDATE ON work.trials FOR EACH ROW EXECUTE FUNCTION work.trials_excuse()
CREATE OR REPLACE FUNCTION work.trials_excuse()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
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
END $function$;

-- CREATE TRIGGER trials_executor_kept BEFORE UPDATE ON work.trials FOR EACH ROW WHEN (((new.attempt = old.attempt) AND (old.executor IS NOT NULL) AND ((new.executor IS DISTINCT FROM old.executor) OR (new.executor_details IS DISTINCT FROM old.executor_details)))) EXECUTE FUNCTION work.trials_executor_kept()
CREATE OR REPLACE FUNCTION work.trials_executor_kept()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  RAISE EXCEPTION 'attempt % of trial % is executed by %; another executor claims another attempt',
    OLD.attempt, OLD.id, OLD.executor
    USING ERRCODE = 'check_violation', CONSTRAINT = 'trials_executor_kept';
END $function$;

-- CREATE TRIGGER trials_forward BEFORE UPDATE ON work.trials FOR EACH ROW EXECUTE FUNCTION work.trials_forward()
CREATE OR REPLACE FUNCTION work.trials_forward()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF OLD.state NOT IN ('SUGGESTED', 'RUNNING') OR (OLD.state = 'SUGGESTED' AND NEW.state = 'SUCCEEDED')
     OR NEW.attempt < OLD.attempt
  THEN
    RAISE EXCEPTION 'trial % cannot go from % (attempt %) to % (attempt %)',
      OLD.id, OLD.state, OLD.attempt, NEW.state, NEW.attempt
      USING ERRCODE = 'check_violation', CONSTRAINT = 'trials_forward_check';
  END IF;
  RETURN NEW;
END $function$;

-- CREATE TRIGGER trials_lease_ends BEFORE UPDATE ON work.trials FOR EACH ROW WHEN ((new.attempt > old.attempt)) EXECUTE FUNCTION work.trials_lease_ends()
CREATE OR REPLACE FUNCTION work.trials_lease_ends()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF NEW.lease_hash IS NOT DISTINCT FROM OLD.lease_hash THEN
    NEW.lease_hash := NULL;
  END IF;
  NEW.lease_login := work.caller();
  RETURN NEW;
END $function$;

-- CREATE TRIGGER trials_limit_kept AFTER UPDATE OF limit_seconds ON work.trials FOR EACH ROW WHEN (((new.limit_seconds > old.limit_seconds) OR ((new.limit_seconds IS NULL) AND (old.limit_seconds IS NOT NULL)))) EXECUTE FUNCTION work.trials_within_limits()
-- CREATE TRIGGER trials_within_limits AFTER INSERT ON work.trials FOR EACH ROW WHEN ((new.reevaluates IS NULL)) EXECUTE FUNCTION work.trials_within_limits()
CREATE OR REPLACE FUNCTION work.trials_within_limits()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
  owner record;
BEGIN
  SELECT t.id, t.quota_seconds IS NOT NULL AS has_quota, t.max_parallel IS NOT NULL AS has_most INTO owner
    FROM work.tenants t WHERE t.id = (SELECT tenant_id FROM work.studies WHERE id = NEW.study_id)
    FOR NO KEY UPDATE;
  PERFORM work.check_budget(NEW.study_id);
  IF owner.has_quota THEN
    PERFORM work.check_quota(owner.id);
  END IF;
  IF TG_OP = 'INSERT' THEN  -- a reservation that grows makes no further trial
    IF owner.has_most THEN
      PERFORM work.check_parallel(owner.id);
    END IF;
    -- work.archive_now locks the tenant, too: the second of the two sees what the first has written.
    IF EXISTS (SELECT FROM work.studies WHERE id = NEW.study_id AND state = 'ARCHIVED') THEN
      RAISE EXCEPTION 'study % is archived', (SELECT name FROM work.studies WHERE id = NEW.study_id)
        USING ERRCODE = 'check_violation', CONSTRAINT = 'archived_closed';
    END IF;
  END IF;
  RETURN NULL;
END $function$;

CREATE OR REPLACE FUNCTION work.was_restarted(since timestamp with time zone)
 RETURNS boolean
 LANGUAGE sql
 STABLE
AS $function$
  SELECT coalesce(pg_postmaster_start_time() > since, false)
    OR EXISTS (SELECT 1 FROM work.restarts WHERE at > since AND at <= clock_timestamp())
$function$;

-- CREATE TRIGGER chain_append_only BEFORE DELETE OR UPDATE ON sealed.chain FOR EACH ROW EXECUTE FUNCTION sealed.append_only()
-- CREATE TRIGGER chain_keep_all BEFORE TRUNCATE ON sealed.chain FOR EACH STATEMENT EXECUTE FUNCTION sealed.append_only()
-- CREATE TRIGGER ledger_append_only BEFORE DELETE OR UPDATE ON sealed.ledger FOR EACH ROW EXECUTE FUNCTION sealed.append_only()
-- CREATE TRIGGER ledger_keep_all BEFORE TRUNCATE ON sealed.ledger FOR EACH STATEMENT EXECUTE FUNCTION sealed.append_only()
CREATE OR REPLACE FUNCTION sealed.append_only()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_append_only';
END $function$;

CREATE OR REPLACE FUNCTION sealed.delete_set(of_set bigint, why text)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE t work.test_sets;
BEGIN
  SELECT * INTO t FROM work.test_sets WHERE id = of_set FOR UPDATE;
  IF NOT FOUND OR t.deleted_at IS NOT NULL THEN
    RETURN false;
  END IF;
  IF EXISTS (SELECT FROM sealed.ledger WHERE test_set_id = of_set)
      OR EXISTS (SELECT FROM sealed.wanted WHERE test_set_id = of_set)
      OR EXISTS (SELECT FROM work.gate_verdicts WHERE test_set_id = of_set)
      OR EXISTS (SELECT FROM work.meter_readings WHERE test_set_id = of_set OR direct_test_set_id = of_set) THEN
    RAISE EXCEPTION 'test set % has served', coalesce(t.name, of_set::text)
      USING ERRCODE = 'check_violation', CONSTRAINT = 'test_sets_served';
  END IF;
  IF t.state IN ('live', 'released') THEN
    RAISE EXCEPTION 'test set % is %', coalesce(t.name, of_set::text), t.state
      USING ERRCODE = 'check_violation', CONSTRAINT = 'test_sets_in_use';
  END IF;
  PERFORM set_config('easeml.reason', left(coalesce(why, ''), 2000), true);
  DELETE FROM sealed.predictions WHERE test_set_id = of_set;
  DELETE FROM sealed.labels WHERE test_set_id = of_set;
  DELETE FROM sealed.cells WHERE test_set_id = of_set;
  DELETE FROM sealed.examples WHERE test_set_id = of_set;
  UPDATE sealed.test_sets SET inputs = '', labels = '', keys = NULL, slices = NULL, cell_names = NULL,
    fingerprint = 'deleted/' || of_set WHERE id = of_set;
  IF t.state <> 'retired' THEN
    UPDATE work.test_sets SET state = 'retired', retired_at = clock_timestamp(), retired_why = 'by hand'
      WHERE id = of_set;
  END IF;
  UPDATE work.test_sets SET deleted_at = clock_timestamp(), name = NULL WHERE id = of_set;
  RETURN true;
END $function$;

CREATE OR REPLACE FUNCTION sealed.index_rows(source bigint, rows bytea[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_hashagg TO 'off'
 SET work_mem TO '64MB'
AS $function$
DECLARE
  packed boolean := (SELECT sum(octet_length(r)) FROM unnest(rows) AS r) > 8 * 131072;
  part bigint;
  inserted bigint;
BEGIN
  INSERT INTO sealed.row_parts (source_id, is_packed) VALUES (source, packed) RETURNING id INTO part;
  INSERT INTO sealed.row_values (key, part_id, cells)
  WITH cells AS (
    SELECT substr(r.tokens, 8 * place + 1, 8) AS token, int4send(r.number::integer) AS row
    FROM unnest(rows) WITH ORDINALITY AS r (tokens, number), generate_series(0, octet_length(r.tokens) / 8 - 1) AS place
  ), grouped AS (
    SELECT token, CASE WHEN count(*) > 8 THEN token || int4send(0) ELSE string_agg(token || row, '') END AS cells
    FROM cells WHERE token <> '\x0000000000000000' GROUP BY token
  ), keyed AS (
    SELECT ('x' || encode(token, 'hex'))::bit(64)::bigint >> CASE WHEN packed THEN 48 ELSE 0 END AS key, cells
    FROM grouped
  )
  SELECT key, part, string_agg(cells, '') FROM keyed GROUP BY key;
  GET DIAGNOSTICS inserted = ROW_COUNT;
  UPDATE sealed.row_parts SET records = inserted WHERE id = part;
END $function$;

CREATE OR REPLACE FUNCTION sealed.index_source(source bigint)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_hashagg TO 'off'
 SET work_mem TO '64MB'
AS $function$
BEGIN
  DELETE FROM sealed.row_values v USING sealed.row_parts p WHERE p.source_id = source AND v.part_id = p.id;
  DELETE FROM sealed.row_parts WHERE source_id = source;
  PERFORM sealed.index_rows(source, array_agg(r.tokens)) FROM (
    SELECT tokens, (row_number() OVER () - 1) / 20000 AS chunk FROM sealed.registry WHERE source_id = source) AS r
  GROUP BY r.chunk;
END $function$;

-- CREATE TRIGGER claims_held BEFORE UPDATE ON sealed.claims FOR EACH ROW WHEN (((new.referee_id IS NOT NULL) AND (old.referee_id IS NOT NULL) AND (old.referee_id <> new.referee_id))) EXECUTE FUNCTION sealed.keep_claim()
CREATE OR REPLACE FUNCTION sealed.keep_claim()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF EXISTS (SELECT FROM sealed.referees f WHERE f.id = OLD.referee_id AND f.until > clock_timestamp()) THEN
    RAISE EXCEPTION 'another referee works on it' USING ERRCODE = 'check_violation', CONSTRAINT = 'claims_held';
  END IF;
  RETURN NEW;
END $function$;

-- CREATE TRIGGER registry_forward BEFORE UPDATE ON sealed.registry FOR EACH ROW EXECUTE FUNCTION sealed.registry_forward()
CREATE OR REPLACE FUNCTION sealed.registry_forward()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF (OLD.id, OLD.source_id, OLD.test_set_id) IS DISTINCT FROM (NEW.id, NEW.source_id, NEW.test_set_id)
    OR octet_length(OLD.tokens) <> octet_length(NEW.tokens) OR (OLD.state = 'open' AND NEW.state <> 'open') THEN
    RAISE EXCEPTION 'a registered row only goes from sealed to open'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'registry_forward', TABLE = 'registry', SCHEMA = 'sealed';
  END IF;
  IF OLD.state = 'sealed' AND NEW.state = 'open' AND EXISTS (
    SELECT FROM work.test_sets t WHERE t.state <> 'released' AND (t.id = NEW.test_set_id
      OR t.id IN (SELECT h.test_set_id FROM sealed.row_holds h WHERE h.row_id = NEW.id))) THEN
    RAISE EXCEPTION 'a row opens only when every set that holds it is released'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'registry_released', TABLE = 'registry', SCHEMA = 'sealed';
  END IF;
  RETURN NEW;
END $function$;

-- CREATE TRIGGER registry_indexed AFTER INSERT ON sealed.registry REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION sealed.registry_indexed()
CREATE OR REPLACE FUNCTION sealed.registry_indexed()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM sealed.index_rows(source_id, array_agg(tokens)) FROM added GROUP BY source_id;
  RETURN NULL;
END $function$;

-- CREATE TRIGGER registry_keep BEFORE DELETE ON sealed.registry FOR EACH ROW EXECUTE FUNCTION sealed.registry_keep()
-- CREATE TRIGGER registry_keep_all BEFORE TRUNCATE ON sealed.registry FOR EACH STATEMENT EXECUTE FUNCTION sealed.registry_keep()
CREATE OR REPLACE FUNCTION sealed.registry_keep()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  RAISE EXCEPTION 'a registered row is never removed'
    USING ERRCODE = 'check_violation', CONSTRAINT = 'registry_keep', TABLE = TG_TABLE_NAME, SCHEMA = 'sealed';
END $function$;

-- CREATE TRIGGER registry_reindexed AFTER UPDATE ON sealed.registry REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION sealed.registry_reindexed()
CREATE OR REPLACE FUNCTION sealed.registry_reindexed()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
  PERFORM sealed.index_source(s.source_id) FROM (
    SELECT DISTINCT n.source_id FROM after n JOIN before b ON b.id = n.id WHERE n.state = b.state) AS s;
  RETURN NULL;
END $function$;
