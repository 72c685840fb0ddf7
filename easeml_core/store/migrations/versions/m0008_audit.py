"""Who did what, when, by which door and why: one row for each act, written by triggers, never changed.

Triggers cannot be forgotten, whatever changes a row. They write with their owner's rights: no other role can add a row
by itself. Who acts is what the door says (``easeml.actor``: a page its viewer, the command line its user, a task its
run), and ``role`` is what the database itself knows. Nothing here is of sealed content: the sources are tables that
every role reads anyway.
"""

from alembic import op

revision = "0008"
down_revision = "0007"

TABLE = """
-- No foreign keys: checking one locks the study's row, which a worker may hold, and the referee waits for no worker.
CREATE TABLE work.audit (
  id         bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_pkey PRIMARY KEY,
  at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  who        text NOT NULL,
  door       text NOT NULL,
  role       text NOT NULL DEFAULT session_user,
  act        text NOT NULL,
  study_id   bigint,
  tenant_id  bigint,
  before     jsonb NOT NULL DEFAULT '{}',
  after      jsonb NOT NULL DEFAULT '{}',
  reason     text,
  CONSTRAINT audit_words_check CHECK (
    who ~ '^[^[:cntrl:]]{1,200}$' AND door ~ '^[^[:cntrl:]]{1,40}$' AND act ~ '^[a-z][a-z ]{2,40}$'
    AND length(reason) <= 2000),
  CONSTRAINT audit_facts_check CHECK (
    jsonb_typeof(before) = 'object' AND jsonb_typeof(after) = 'object'
    AND octet_length(before::text) + octet_length(after::text) < 20000)
);
CREATE INDEX audit_study_idx ON work.audit (study_id, id);
CREATE INDEX audit_at_idx ON work.audit (at);

CREATE FUNCTION work.audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_append_only';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON work.audit
  FOR EACH ROW EXECUTE FUNCTION work.audit_is_kept();
CREATE TRIGGER audit_keep_all BEFORE TRUNCATE ON work.audit EXECUTE FUNCTION work.audit_is_kept();
GRANT SELECT ON work.audit TO easeml_worker, easeml_referee;
"""

WRITERS = """
-- Words of others are made to fit: what somebody calls themselves must not keep a change from being made.
CREATE FUNCTION work.audit_word(words text, most integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT nullif(btrim(left(regexp_replace(words, '[[:cntrl:]]', ' ', 'g'), most)), '')
$$;

CREATE FUNCTION work.note(
  act text, study bigint, tenant bigint, before jsonb, after jsonb, why text DEFAULT NULL, actor text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO work.audit (who, door, act, study_id, tenant_id, before, after, reason) VALUES (
    coalesce(work.audit_word(actor, 200), work.audit_word(current_setting('easeml.actor', true), 200), session_user),
    coalesce(work.audit_word(current_setting('easeml.door', true), 40), 'database'), act, study,
    coalesce(tenant, (SELECT tenant_id FROM work.studies WHERE id = study)), coalesce(before, '{}'),
    coalesce(after, '{}'), nullif(left(coalesce(why, current_setting('easeml.reason', true)), 2000), ''));
END $$;
REVOKE ALL ON FUNCTION work.note FROM PUBLIC;

CREATE FUNCTION work.audit_limits() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
END $$;
CREATE TRIGGER tenants_audit AFTER UPDATE OF weight, max_parallel, quota_seconds ON work.tenants
  FOR EACH ROW EXECUTE FUNCTION work.audit_limits('weight', 'max_parallel', 'quota_seconds');
CREATE TRIGGER studies_audit AFTER UPDATE OF weight, budget_seconds, priority, deadline, target_quality ON work.studies
  FOR EACH ROW EXECUTE FUNCTION
  work.audit_limits('weight', 'budget_seconds', 'priority', 'deadline', 'target_quality');

CREATE FUNCTION work.audit_study() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    PERFORM work.note('study registered', NEW.id, NEW.tenant_id, NULL, jsonb_build_object(
      'weight', NEW.weight, 'budget_seconds', NEW.budget_seconds, 'metric', NEW.metric));
  ELSIF OLD.state <> NEW.state THEN
    PERFORM work.note(CASE WHEN OLD.state = 'REGISTERED' AND NEW.state = 'ACTIVE' THEN 'study sealed'
      WHEN NEW.state = 'ACTIVE' THEN 'study resumed' ELSE 'study ' || lower(NEW.state) END,
      NEW.id, NEW.tenant_id, NULL, NULL);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER studies_state_audit AFTER INSERT OR UPDATE OF state ON work.studies
  FOR EACH ROW EXECUTE FUNCTION work.audit_study();

-- Those that a study begins with are part of its registration.
CREATE FUNCTION work.audit_candidate() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (SELECT state FROM work.studies WHERE id = NEW.study_id) <> 'REGISTERED' THEN
    PERFORM work.note('candidate added', NEW.study_id, NULL, NULL,
      jsonb_build_object('candidate', NEW.name, 'kind', NEW.kind));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER candidates_audit AFTER INSERT ON work.candidates
  FOR EACH ROW EXECUTE FUNCTION work.audit_candidate();

CREATE FUNCTION work.audit_trial() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('trial cancelled', NEW.study_id, NULL, NULL, jsonb_build_object('trial', NEW.id, 'candidate',
    (SELECT name FROM work.candidates WHERE id = NEW.candidate_id)));
  RETURN NULL;
END $$;
CREATE TRIGGER trials_audit AFTER UPDATE OF cancel_requested ON work.trials
  FOR EACH ROW WHEN (NEW.cancel_requested AND NOT OLD.cancel_requested) EXECUTE FUNCTION work.audit_trial();

CREATE FUNCTION work.audit_policy() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE was jsonb := (SELECT config FROM work.selection_settings WHERE id < NEW.id ORDER BY id DESC LIMIT 1);
BEGIN
  PERFORM work.note('policy changed', NULL, NULL,
    jsonb_build_object('policy', left(was ->> 'policy', 100), 'price_per_second', was -> 'price_per_second'),
    jsonb_build_object('policy', left(NEW.config ->> 'policy', 100), 'price_per_second',
      NEW.config -> 'price_per_second', 'settings', NEW.id, 'backtest', NEW.report IS NOT NULL), NEW.reason);
  RETURN NULL;
END $$;
CREATE TRIGGER selection_settings_audit AFTER INSERT ON work.selection_settings
  FOR EACH ROW EXECUTE FUNCTION work.audit_policy();
"""

SEALED_SETS = """
-- Its size is told nowhere here.
CREATE FUNCTION work.audit_test_set() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' OR OLD.state <> NEW.state THEN
    PERFORM work.note('set ' || NEW.state, NEW.study_id, NULL, NULL, jsonb_build_object('set', NEW.id, 'name', NEW.name,
      'purpose', NEW.purpose, 'steps', NEW.steps, 'why', CASE WHEN NEW.state = 'retired' THEN NEW.retired_why END));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER test_sets_audit AFTER INSERT OR UPDATE OF state ON work.test_sets
  FOR EACH ROW EXECUTE FUNCTION work.audit_test_set();

CREATE FUNCTION work.audit_alert() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('alert cleared', NEW.study_id, NULL, NULL,
    jsonb_build_object('alert', NEW.id, 'kind', NEW.kind, 'team', NEW.team));
  RETURN NULL;
END $$;
CREATE TRIGGER alerts_audit AFTER UPDATE OF cleared_at ON work.alerts
  FOR EACH ROW WHEN (OLD.cleared_at IS NULL AND NEW.cleared_at IS NOT NULL) EXECUTE FUNCTION work.audit_alert();
"""

PRODUCTION = """
CREATE FUNCTION work.audit_request() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note(CASE NEW.kind WHEN 'force' THEN 'forced promotion asked' WHEN 'rollback' THEN 'rollback asked'
    ELSE 'promotion asked' END, NEW.study_id, NULL, NULL, jsonb_build_object('request', NEW.id, 'model', NEW.model_id,
    'approved_by', work.audit_word(NEW.arguments ->> 'who', 200)), NEW.arguments ->> 'why');
  RETURN NULL;
END $$;
CREATE TRIGGER requests_audit AFTER INSERT ON work.requests
  FOR EACH ROW WHEN (NEW.kind IN ('promote', 'rollback', 'force')) EXECUTE FUNCTION work.audit_request();

-- The referee writes both; who has asked is what counts.
CREATE FUNCTION work.audit_asker(study bigint, request bigint) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT who FROM work.audit WHERE study_id = study AND act LIKE '%asked' AND after ->> 'request' = request::text
  ORDER BY id DESC LIMIT 1
$$;

CREATE FUNCTION work.audit_answer() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE asked work.requests;
BEGIN
  SELECT * INTO asked FROM work.requests WHERE id = NEW.request_id;
  IF asked.kind <> 'seal' THEN  -- that is told as the study's refusal
    PERFORM work.note('request refused', asked.study_id, NULL, NULL, jsonb_build_object('request', asked.id,
      'kind', asked.kind, 'model', asked.model_id), left(NEW.message, 1000),
      work.audit_asker(asked.study_id, asked.id));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER answers_audit AFTER INSERT ON work.answers
  FOR EACH ROW WHEN (NEW.refused) EXECUTE FUNCTION work.audit_answer();

CREATE FUNCTION work.audit_promotion() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note(CASE NEW.kind WHEN 'force' THEN 'forced promotion' WHEN 'rollback' THEN 'rolled back'
    ELSE 'promoted' END, NEW.study_id, NULL,
    jsonb_build_object('model', (SELECT model_id FROM work.production WHERE study_id = NEW.study_id)),
    jsonb_build_object('request', NEW.request_id, 'model', NEW.model_id, 'verdict', NEW.symbol,
      'gate_request', NEW.gate_request_id, 'approved_by', work.audit_word(NEW.who, 200)),
    NEW.why, work.audit_asker(NEW.study_id, NEW.request_id));
  RETURN NULL;
END $$;
CREATE TRIGGER promotions_audit AFTER INSERT ON work.promotions
  FOR EACH ROW EXECUTE FUNCTION work.audit_promotion();
"""

BROUGHT = """
CREATE FUNCTION work.audit_submission() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('model handed in', NEW.study_id, NULL, NULL,
    jsonb_build_object('model', NEW.model_id, 'kind', NEW.kind), NEW.message);
  RETURN NULL;
END $$;
CREATE TRIGGER submissions_audit AFTER INSERT ON work.submissions
  FOR EACH ROW EXECUTE FUNCTION work.audit_submission();

CREATE FUNCTION work.audit_feed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('pairs fed', NEW.study_id, NULL, NULL,
    jsonb_build_object('feed', NEW.id, 'rows', NEW.rows, 'origin', NEW.origin), NULL, NEW.fed_by);
  RETURN NULL;
END $$;
CREATE TRIGGER feeds_audit AFTER INSERT ON work.feeds FOR EACH ROW EXECUTE FUNCTION work.audit_feed();

CREATE FUNCTION work.audit_switches() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('pairs switched', study_id, NULL, NULL, jsonb_build_object('rows', count(*), 'is_on', is_on),
    reason, switched_by) FROM added GROUP BY study_id, is_on, reason, switched_by;
  RETURN NULL;
END $$;
CREATE TRIGGER switches_audit AFTER INSERT ON work.switches REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION work.audit_switches();
"""

# What earlier tables tell of the time before, in its order. Of limits and states that changed nothing was kept.
EARLIER = """
INSERT INTO work.audit (at, who, door, role, act, study_id, tenant_id, after, reason)
SELECT at, coalesce(work.audit_word(who, 200), 'not recorded'), 'before the audit', 'not recorded', act, e.study_id,
       s.tenant_id, facts, left(reason, 2000) FROM (
  SELECT created_at AS at, NULL AS who, 'study registered' AS act, id AS study_id,
         jsonb_build_object('metric', metric) AS facts, NULL AS reason FROM work.studies
  UNION ALL SELECT created_at, NULL, CASE WHEN state = 'planned' THEN 'set planned' ELSE 'set sealed' END, study_id,
         jsonb_build_object('set', id, 'name', name, 'purpose', purpose, 'steps', steps), NULL FROM work.test_sets
  UNION ALL SELECT retired_at, NULL, 'set retired', study_id, jsonb_build_object('set', id, 'name', name, 'purpose',
         purpose, 'steps', steps, 'why', retired_why), NULL FROM work.test_sets WHERE retired_at IS NOT NULL
  UNION ALL SELECT p.promoted_at, r.requested_by, CASE p.kind WHEN 'force' THEN 'forced promotion' WHEN 'rollback' THEN
         'rolled back' ELSE 'promoted' END, p.study_id, jsonb_build_object('request', p.request_id, 'model', p.model_id,
         'verdict', p.symbol, 'gate_request', p.gate_request_id, 'approved_by', work.audit_word(p.who, 200)), p.why
         FROM work.promotions p JOIN work.requests r ON r.id = p.request_id
  UNION ALL SELECT submitted_at, submitted_by, 'model handed in', study_id,
         jsonb_build_object('model', model_id, 'kind', kind), message FROM work.submissions
  UNION ALL SELECT cleared_at, NULL, 'alert cleared', study_id,
         jsonb_build_object('alert', id, 'kind', kind, 'team', team), NULL FROM work.alerts
         WHERE cleared_at IS NOT NULL
  UNION ALL SELECT fed_at, fed_by, 'pairs fed', study_id, jsonb_build_object('feed', id, 'rows', rows, 'origin',
         origin), NULL FROM work.feeds
  UNION ALL SELECT min(switched_at), switched_by, 'pairs switched', study_id, jsonb_build_object('rows', count(*),
         'is_on', is_on), reason FROM work.switches GROUP BY request_key, study_id, is_on, reason, switched_by
  UNION ALL SELECT created_at, created_by, 'policy changed', NULL, jsonb_build_object('policy',
         left(config ->> 'policy', 100), 'settings', id, 'backtest', report IS NOT NULL), reason
         FROM work.selection_settings) e
LEFT JOIN work.studies s ON s.id = e.study_id ORDER BY at, act;
"""


def upgrade() -> None:
    for block in (TABLE, WRITERS, SEALED_SETS, PRODUCTION, BROUGHT, EARLIER):
        op.execute(block)
