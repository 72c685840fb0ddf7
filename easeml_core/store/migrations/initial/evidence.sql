-- Hash chains of what the referee did, and the audit of what people and programs did.

-- Hash chains: one of each sealed set, one of the audit.
CREATE TABLE sealed.chains (
  name       text CONSTRAINT chains_pkey PRIMARY KEY
             CONSTRAINT chains_name_check CHECK (name ~ '^(audit|set/[1-9][0-9]{0,17})$'),
  opened_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);

-- A nonce, two hashes and a signature for each answer, all of one length; only a chain that begins, a key that changes
-- and an acknowledgement carry a content.
CREATE TABLE sealed.chain (
  chain       text NOT NULL CONSTRAINT chain_chain_fkey REFERENCES sealed.chains (name),
  place       bigint NOT NULL CONSTRAINT chain_place_check CHECK (place >= 1),
  kind        text NOT NULL,
  subject     bigint,
  at          timestamptz NOT NULL,
  content     jsonb,
  nonce       bytea NOT NULL,
  previous    bytea NOT NULL,
  commitment  bytea NOT NULL,
  hash        bytea NOT NULL,
  key_id      text,
  signature   bytea,
  CONSTRAINT chain_length_check CHECK (octet_length(nonce) = 32 AND octet_length(previous) = 32
    AND octet_length(commitment) = 32 AND octet_length(hash) = 32),
  CONSTRAINT chain_signature_check
    CHECK ((key_id IS NULL) = (signature IS NULL) AND key_id ~ '^[0-9a-f]{64}$' AND octet_length(signature) = 64),
  CONSTRAINT chain_pkey PRIMARY KEY (chain, place),
  CONSTRAINT chain_subject_key UNIQUE (chain, kind, subject),
  CONSTRAINT chain_kind_check CHECK (CASE WHEN kind IN ('ledger', 'verdict', 'reading', 'audit',
    'promotion') THEN subject IS NOT NULL AND content IS NULL WHEN kind IN ('genesis', 'key', 'acknowledged',
    'labels') THEN subject IS NULL AND content IS NOT NULL ELSE false END)
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE sealed.chain ALTER COLUMN content SET STORAGE EXTERNAL, ALTER COLUMN nonce SET STORAGE EXTERNAL,
  ALTER COLUMN previous SET STORAGE EXTERNAL, ALTER COLUMN commitment SET STORAGE EXTERNAL,
  ALTER COLUMN hash SET STORAGE EXTERNAL, ALTER COLUMN signature SET STORAGE EXTERNAL;

-- What leaves with an answer: the end of its set's chain, that of the audit's, and the signed statement that every
-- role may read. It is written when the answer leaves, never before.
CREATE TABLE work.evidence (
  request_id   bigint CONSTRAINT evidence_pkey PRIMARY KEY CONSTRAINT evidence_request_fkey REFERENCES work.requests,
  study_id     bigint NOT NULL CONSTRAINT evidence_study_fkey REFERENCES work.studies,
  test_set_id  bigint NOT NULL CONSTRAINT evidence_test_set_fkey REFERENCES work.test_sets,
  head         text NOT NULL,
  audit_head   text NOT NULL,
  envelope     jsonb,
  left_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT evidence_head_check CHECK (head ~ '^[0-9a-f]{64}$' AND audit_head ~ '^[0-9a-f]{64}$')
);
CREATE INDEX evidence_study_idx ON work.evidence (study_id, request_id);

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
  CONSTRAINT audit_words_check CHECK (who ~ '^[^[:cntrl:]]{1,200}$' AND door ~ '^[^[:cntrl:]]{1,40}$'
    AND act ~ '^[a-z][a-z ]{2,40}$' AND length(reason) <= 2000),
  CONSTRAINT audit_facts_check CHECK (jsonb_typeof(before) = 'object' AND jsonb_typeof(after) = 'object'
    AND octet_length(before::text) + octet_length(after::text) < 20000)
);
CREATE INDEX audit_study_idx ON work.audit (study_id, id);
CREATE INDEX audit_at_idx ON work.audit (at);
CREATE INDEX audit_sealed_idx ON work.audit (study_id, (after ->> 'set')) WHERE act IN ('set sealed', 'set live');
CREATE INDEX audit_login_idx ON work.audit (split_part(who, ' ', 1), at) WHERE left(who, 9) IN ('easeml_t_',
  'easeml_d_') AND door NOT IN ('page', 'service');

CREATE FUNCTION sealed.append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_append_only';
END $$;
CREATE TRIGGER chain_append_only BEFORE UPDATE OR DELETE ON sealed.chain FOR EACH ROW
  EXECUTE FUNCTION sealed.append_only();
CREATE TRIGGER chain_keep_all BEFORE TRUNCATE ON sealed.chain EXECUTE FUNCTION sealed.append_only();
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE ON sealed.ledger FOR EACH ROW
  EXECUTE FUNCTION sealed.append_only();
CREATE TRIGGER ledger_keep_all BEFORE TRUNCATE ON sealed.ledger EXECUTE FUNCTION sealed.append_only();

CREATE FUNCTION work.audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_append_only';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON work.audit FOR EACH ROW
  EXECUTE FUNCTION work.audit_is_kept();
CREATE TRIGGER audit_keep_all BEFORE TRUNCATE ON work.audit EXECUTE FUNCTION work.audit_is_kept();

CREATE FUNCTION work.note(act text, study bigint, tenant bigint, before jsonb, after jsonb, why text DEFAULT NULL,
  actor text DEFAULT NULL) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.require_audit_room();
  INSERT INTO work.audit (who, door, act, study_id, tenant_id, before, after, reason) VALUES (
    coalesce(work.asker(coalesce(work.audit_word(actor, 200), current_setting('easeml.actor', true))), session_user),
    CASE WHEN work.kind_of_caller() IN ('tenant', 'device') THEN 'database'
      ELSE coalesce(work.audit_word(current_setting('easeml.door', true), 40), 'database') END, act, study,
    coalesce(tenant, (SELECT tenant_id FROM work.studies WHERE id = study)), coalesce(before, '{}'),
    coalesce(after, '{}'), nullif(left(coalesce(why, current_setting('easeml.reason', true)), 2000), ''));
END $$;
REVOKE EXECUTE ON FUNCTION work.note(text, bigint, bigint, jsonb, jsonb, text, text) FROM PUBLIC;

-- Workers that share easeml_device would wait for one another; they have no bound of this kind.
CREATE FUNCTION work.require_audit_room() RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
END $$;
REVOKE EXECUTE ON FUNCTION work.require_audit_room() FROM PUBLIC;

-- The referee writes both; who has asked is what counts.
CREATE FUNCTION work.audit_asker(study bigint, request bigint) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT who FROM work.audit WHERE study_id = study AND act LIKE '%asked' AND after ->> 'request' = request::text
  ORDER BY id DESC LIMIT 1
$$;

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
CREATE TRIGGER studies_audit AFTER UPDATE OF weight, budget_seconds, priority, deadline, target_quality
  ON work.studies FOR EACH ROW EXECUTE FUNCTION work.audit_limits('weight', 'budget_seconds', 'priority', 'deadline',
  'target_quality');
CREATE TRIGGER tenants_audit AFTER UPDATE OF weight, max_parallel, quota_seconds ON work.tenants FOR EACH ROW
  EXECUTE FUNCTION work.audit_limits('weight', 'max_parallel', 'quota_seconds');

CREATE FUNCTION work.audit_tenant() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note(CASE WHEN NEW.archived_at IS NULL THEN 'tenant restored' ELSE 'tenant archived' END, NULL, NEW.id,
    NULL, jsonb_build_object('tenant', NEW.name), NEW.archived_why);
  RETURN NULL;
END $$;
CREATE TRIGGER tenants_archived_audit AFTER UPDATE OF archived_at ON work.tenants FOR EACH ROW
  WHEN ((OLD.archived_at IS NULL) <> (NEW.archived_at IS NULL)) EXECUTE FUNCTION work.audit_tenant();

CREATE FUNCTION work.audit_study() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
END $$;
CREATE TRIGGER studies_state_audit AFTER INSERT OR UPDATE OF state ON work.studies FOR EACH ROW
  EXECUTE FUNCTION work.audit_study();

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
CREATE TRIGGER candidates_audit AFTER INSERT ON work.candidates FOR EACH ROW EXECUTE FUNCTION work.audit_candidate();

CREATE FUNCTION work.audit_withdrawal() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note(CASE WHEN NEW.withdrawn_at IS NULL THEN 'candidate restored' ELSE 'candidate withdrawn' END,
    NEW.study_id, NULL, NULL, jsonb_build_object('candidate', NEW.name, 'kind', NEW.kind), NEW.withdrawn_why);
  RETURN NULL;
END $$;
CREATE TRIGGER candidates_withdrawn_audit AFTER UPDATE OF withdrawn_at ON work.candidates FOR EACH ROW
  WHEN ((OLD.withdrawn_at IS NULL) <> (NEW.withdrawn_at IS NULL)) EXECUTE FUNCTION work.audit_withdrawal();

CREATE FUNCTION work.audit_trial() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('trial cancelled', NEW.study_id, NULL, NULL, jsonb_build_object('trial', NEW.id, 'candidate',
    (SELECT name FROM work.candidates WHERE id = NEW.candidate_id)));
  RETURN NULL;
END $$;
CREATE TRIGGER trials_audit AFTER UPDATE OF cancel_requested ON work.trials FOR EACH ROW WHEN (NEW.cancel_requested
  AND NOT OLD.cancel_requested) EXECUTE FUNCTION work.audit_trial();

CREATE FUNCTION work.audit_retry() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('trial retried', NEW.study_id, NULL, jsonb_build_object('trial', NEW.retries),
    jsonb_build_object('trial', NEW.id, 'candidate', (SELECT name FROM work.candidates WHERE id = NEW.candidate_id)));
  RETURN NULL;
END $$;
CREATE TRIGGER trials_retry_audit AFTER INSERT ON work.trials FOR EACH ROW WHEN (NEW.retries IS NOT NULL)
  EXECUTE FUNCTION work.audit_retry();

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
CREATE TRIGGER selection_settings_audit AFTER INSERT ON work.selection_settings FOR EACH ROW
  EXECUTE FUNCTION work.audit_policy();

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
CREATE TRIGGER test_sets_audit AFTER INSERT OR UPDATE OF state ON work.test_sets FOR EACH ROW
  EXECUTE FUNCTION work.audit_test_set();

CREATE FUNCTION work.audit_set_deleted() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('set deleted', NEW.study_id, NULL, NULL, jsonb_build_object('set', NEW.id, 'name', OLD.name,
    'purpose', NEW.purpose, 'steps', NEW.steps));
  RETURN NULL;
END $$;
CREATE TRIGGER test_sets_deleted_audit AFTER UPDATE OF deleted_at ON work.test_sets FOR EACH ROW
  WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION work.audit_set_deleted();

CREATE FUNCTION work.audit_alert() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('alert cleared', NEW.study_id, NULL, NULL,
    jsonb_build_object('alert', NEW.id, 'kind', NEW.kind, 'team', NEW.team));
  RETURN NULL;
END $$;
CREATE TRIGGER alerts_audit AFTER UPDATE OF cleared_at ON work.alerts FOR EACH ROW WHEN (OLD.cleared_at IS NULL
  AND NEW.cleared_at IS NOT NULL) EXECUTE FUNCTION work.audit_alert();

CREATE FUNCTION work.audit_acknowledged() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('result acknowledged', NEW.study_id, NULL, NULL,
    jsonb_build_object('trial', NEW.trial_id, 'model', NEW.model_id), NEW.acknowledged_why);
  RETURN NULL;
END $$;
CREATE TRIGGER quality_checks_acknowledged AFTER UPDATE ON work.quality_checks FOR EACH ROW
  WHEN (NEW.acknowledged_at IS DISTINCT FROM OLD.acknowledged_at) EXECUTE FUNCTION work.audit_acknowledged();

CREATE FUNCTION work.audit_request() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note(CASE NEW.kind WHEN 'force' THEN 'forced promotion asked' WHEN 'rollback' THEN 'rollback asked'
    ELSE 'promotion asked' END, NEW.study_id, NULL, NULL, jsonb_build_object('request', NEW.id, 'model', NEW.model_id,
    'approved_by', CASE WHEN NEW.arguments ->> 'who' IS NOT NULL THEN work.asker(NEW.arguments ->> 'who') END),
    NEW.arguments ->> 'why');
  RETURN NULL;
END $$;
CREATE TRIGGER requests_audit AFTER INSERT ON work.requests FOR EACH ROW WHEN (NEW.kind IN ('promote', 'rollback',
  'force')) EXECUTE FUNCTION work.audit_request();

-- What others write for a login counts as its own: the changes that it files, and the refusals of what it asks.
CREATE FUNCTION work.audit_answer() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
END $$;
CREATE TRIGGER answers_audit AFTER INSERT ON work.answers FOR EACH ROW WHEN (NEW.refused)
  EXECUTE FUNCTION work.audit_answer();

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
CREATE TRIGGER promotions_audit AFTER INSERT ON work.promotions FOR EACH ROW EXECUTE FUNCTION work.audit_promotion();

CREATE FUNCTION work.audit_submission() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('model handed in', NEW.study_id, NULL, NULL,
    jsonb_build_object('model', NEW.model_id, 'kind', NEW.kind), NEW.message);
  RETURN NULL;
END $$;
CREATE TRIGGER submissions_audit AFTER INSERT ON work.submissions FOR EACH ROW
  EXECUTE FUNCTION work.audit_submission();

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
CREATE TRIGGER switches_audit AFTER INSERT ON work.switches REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION work.audit_switches();

-- A version of the data with the training part of an earlier one brings validation rows, and is made by nobody else.
CREATE FUNCTION work.audit_validation() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('validation set replaced', NEW.study_id, NULL,
    jsonb_build_object('version', NEW.version - 1), jsonb_build_object('version', NEW.version));
  RETURN NULL;
END $$;
CREATE TRIGGER data_versions_audit AFTER INSERT ON work.data_versions FOR EACH ROW
  WHEN (NEW.same_training_as IS NOT NULL) EXECUTE FUNCTION work.audit_validation();

CREATE FUNCTION work.audit_quality() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('result did not hold', NEW.study_id, NULL, jsonb_build_object('quality', NEW.claimed),
    jsonb_build_object('trial', NEW.trial_id, 'model', NEW.model_id, 'quality', NEW.measured));
  RETURN NULL;
END $$;
CREATE TRIGGER quality_checks_audit AFTER INSERT ON work.quality_checks FOR EACH ROW WHEN (NEW.outcome = 'not held')
  EXECUTE FUNCTION work.audit_quality();
