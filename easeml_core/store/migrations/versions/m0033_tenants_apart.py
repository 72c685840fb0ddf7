"""What was still open between tenants (ADR 0032): a runner-up of another tenant, leases by login, changes that another
role makes, bounds on what a tenant adds, and the pages' look with a tenant's rights."""

from alembic import op

revision = "0033"
down_revision = "0032"

# A group's name is nobody's: before PostgreSQL 16 a member can take it with SET ROLE, and would be another login.
# The role easeml_viewer is taken by the pages alone, for who looks at them; they say which tenants that is. Who can
# take it, easeml_worker, reads all rows anyway.
CALLERS = """
CREATE OR REPLACE FUNCTION work.caller() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN current_setting('role') IN ('none', 'easeml_tenant', 'easeml_device') THEN session_user::text
  ELSE current_setting('role') END;

CREATE OR REPLACE FUNCTION work.my_tenants() RETURNS bigint[] LANGUAGE sql STABLE PARALLEL SAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN work.caller() = 'easeml_viewer'
  THEN coalesce(nullif(current_setting('easeml.viewer_tenants', true), '')::bigint[], '{}')
  ELSE (SELECT coalesce(array_agg(tenant_id), '{}') FROM work.tenant_logins WHERE login = work.caller()) END;

CREATE OR REPLACE FUNCTION work.may_change(study bigint, devices boolean) RETURNS boolean LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (devices AND (work.caller() = 'easeml_device' OR starts_with(work.caller(), 'easeml_d_')))
  OR EXISTS (SELECT FROM work.studies WHERE id = study AND tenant_id = ANY (work.my_tenants()));
"""

# The second best of another tenant lies in a column that tenants and devices cannot read.
RIVALS = """
ALTER TABLE work.suggestions ADD COLUMN rival jsonb
  CONSTRAINT suggestions_rival_check CHECK (jsonb_typeof(rival) = 'object');
UPDATE work.suggestions g SET
    rival = jsonb_build_object('runner_up', g.reasons -> 'runner_up', 'sentence', g.reasons -> 'sentence'),
    reasons = g.reasons || jsonb_build_object('runner_up', NULL, 'of_other_tenant', true, 'sentence',
      regexp_replace(g.reasons ->> 'sentence', '; next best was .*', '; next best was a trial of another tenant'))
  FROM work.trials t JOIN work.studies s ON s.id = t.study_id, work.studies other
  WHERE t.id = g.trial_id AND jsonb_typeof(g.reasons -> 'runner_up') = 'object'
    AND other.id = (g.reasons -> 'runner_up' ->> 'study_id')::bigint AND other.tenant_id <> s.tenant_id;

-- The rest of the reasons of a suggestion, for who may read it: a role that reads the column, or that tenant's login.
CREATE FUNCTION work.rival_of(batch bigint, place integer) RETURNS jsonb LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (SELECT g.rival FROM work.suggestions g WHERE g.batch_id = batch AND g.position = place AND g.rival IS NOT NULL
  AND (has_column_privilege(work.caller(), 'work.suggestions', 'rival', 'SELECT') OR EXISTS (
    SELECT FROM work.studies s WHERE s.id = (g.rival -> 'runner_up' ->> 'study_id')::bigint
    AND s.tenant_id = ANY (work.my_tenants()))));
REVOKE EXECUTE ON FUNCTION work.rival_of(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work.rival_of(bigint, integer) TO easeml_worker, easeml_referee;
"""

# A lease is its login's: the key, which every device reads, takes nothing over in another login.
LEASES = r"""
ALTER TABLE work.trials ADD COLUMN lease_login text;

CREATE OR REPLACE FUNCTION work.trials_lease_ends() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.lease_hash IS NOT DISTINCT FROM OLD.lease_hash THEN
    NEW.lease_hash := NULL;
  END IF;
  NEW.lease_login := work.caller();
  RETURN NEW;
END $$;
DROP TRIGGER trials_lease_ends ON work.trials;
CREATE TRIGGER trials_lease_ends BEFORE UPDATE ON work.trials FOR EACH ROW
  WHEN (NEW.attempt > OLD.attempt) EXECUTE FUNCTION work.trials_lease_ends();

DO $patch$
DECLARE
  body text := pg_get_functiondef('work.claim_trial(bigint, text, text, jsonb)'::regprocedure);
  before text := 'IF t.lease_until >= now() AND t.lease_key IS DISTINCT FROM key THEN';
BEGIN
  IF position(before IN body) = 0 THEN
    RAISE EXCEPTION 'work.claim_trial is not the function of revision 0032';
  END IF;
  EXECUTE replace(body, before, 'IF t.lease_until >= now() AND (t.lease_key IS DISTINCT FROM key
        OR coalesce(t.lease_login, work.caller()) <> work.caller()) THEN');
END $patch$;
"""

# What a tenant wants changed in a row that other roles wait for: the scheduler's process changes it, in a short
# transaction. No foreign key: it would lock the row that it names.
CHANGES = """
CREATE TABLE work.change_requests (
  id        bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT change_requests_pkey PRIMARY KEY,
  login     text NOT NULL DEFAULT work.caller(),
  study_id  bigint NOT NULL,
  trial_id  bigint,
  change    text NOT NULL,
  actor     text DEFAULT work.audit_word(current_setting('easeml.actor', true), 100),
  door      text DEFAULT work.audit_word(current_setting('easeml.door', true), 40),
  reason    text DEFAULT left(current_setting('easeml.reason', true), 2000),
  filed_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT change_requests_change_check CHECK (
    change IN ('pause', 'resume', 'cancel') AND (change = 'cancel') = (trial_id IS NOT NULL))
);
CREATE INDEX change_requests_login_idx ON work.change_requests (login, id);
GRANT SELECT ON work.change_requests TO easeml_worker, easeml_referee;

CREATE FUNCTION work.file_change(study bigint, trial bigint, wanted text) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (SELECT count(*) FROM work.change_requests q WHERE q.login = work.caller()) >= 1000 THEN
    RAISE EXCEPTION 'login % has 1000 changes that were not made yet, of at most 1000', work.caller()
      USING ERRCODE = 'check_violation', CONSTRAINT = 'change_requests_open_check';
  END IF;
  INSERT INTO work.change_requests (study_id, trial_id, change) VALUES (study, trial, wanted);
  PERFORM pg_notify('easeml_scheduler', CASE WHEN trial IS NULL
    THEN 'study:' || (SELECT name FROM work.studies WHERE id = study) ELSE 'trial:' || trial END);
END $$;
REVOKE EXECUTE ON FUNCTION work.file_change(bigint, bigint, text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION work.set_study_paused(study bigint, paused boolean) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT work.may_change(study, false)
      OR (SELECT state FROM work.studies WHERE id = study) NOT IN ('ACTIVE', 'PAUSED') THEN
    RETURN false;
  END IF;
  PERFORM work.file_change(study, NULL, CASE WHEN paused THEN 'pause' ELSE 'resume' END);
  RETURN true;
END $$;

CREATE OR REPLACE FUNCTION work.cancel_trial(trial bigint) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE of_study bigint := (SELECT t.study_id FROM work.trials t
  WHERE t.id = trial AND t.state IN ('SUGGESTED', 'RUNNING') AND work.may_change(t.study_id, false));
BEGIN
  IF of_study IS NULL THEN
    RETURN false;
  END IF;
  PERFORM work.file_change(of_study, trial, 'cancel');
  RETURN true;
END $$;

-- Makes the changes that were asked for, some of each login; gives what was changed. A row that another transaction
-- holds is left for the next call, for an hour.
CREATE FUNCTION work.apply_changes() RETURNS TABLE (study text, trial bigint) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE q work.change_requests;
BEGIN
  FOR q IN SELECT * FROM work.change_requests WHERE id IN (
      SELECT n.id FROM (SELECT r.id, row_number() OVER (PARTITION BY r.login ORDER BY r.id) AS turn
                        FROM work.change_requests r) n WHERE n.turn <= 20)
    ORDER BY id FOR UPDATE SKIP LOCKED
  LOOP
    PERFORM set_config('easeml.actor', left(q.login || coalesce(' (' || q.actor || ')', ''), 200), true),
      set_config('easeml.door', coalesce(q.door, ''), true), set_config('easeml.reason', coalesce(q.reason, ''), true);
    IF q.change = 'cancel' THEN
      PERFORM FROM work.trials t WHERE t.id = q.trial_id AND t.state IN ('SUGGESTED', 'RUNNING')
        FOR NO KEY UPDATE SKIP LOCKED;
      IF FOUND THEN
        UPDATE work.trials t SET cancel_requested = true,
          state = CASE WHEN t.state = 'SUGGESTED' THEN 'CANCELLED' ELSE t.state END,
          finished_at = CASE WHEN t.state = 'SUGGESTED' THEN clock_timestamp() ELSE t.finished_at END
          WHERE t.id = q.trial_id;
      ELSIF q.filed_at > now() - interval '1 hour' AND EXISTS (
          SELECT FROM work.trials t WHERE t.id = q.trial_id AND t.state IN ('SUGGESTED', 'RUNNING')) THEN
        CONTINUE;
      END IF;
    ELSE
      CONTINUE WHEN EXISTS (SELECT FROM work.change_requests r
        WHERE r.study_id = q.study_id AND r.change <> 'cancel' AND r.id < q.id);  -- in the order of asking
      PERFORM FROM work.studies s WHERE s.id = q.study_id FOR NO KEY UPDATE SKIP LOCKED;
      IF FOUND THEN
        UPDATE work.studies s SET state = CASE q.change WHEN 'pause' THEN 'PAUSED' ELSE 'ACTIVE' END
          WHERE s.id = q.study_id AND s.state = CASE q.change WHEN 'pause' THEN 'ACTIVE' ELSE 'PAUSED' END;
      ELSIF q.filed_at > now() - interval '1 hour' THEN
        CONTINUE;
      END IF;
    END IF;
    DELETE FROM work.change_requests WHERE id = q.id;
    study := (SELECT s.name FROM work.studies s WHERE s.id = q.study_id);
    trial := q.trial_id;
    RETURN NEXT;
  END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION work.apply_changes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work.apply_changes() TO easeml_worker;
"""

_BY_TENANT = """WHEN (current_user NOT IN ('easeml_worker', 'easeml_referee', 'easeml_scheduler')
    AND NOT pg_has_role(current_user, 'easeml_owner', 'USAGE'))"""

# Rows that tenants add are rows that others read, count and wait for. Transactions that are open at once count apart,
# so that a login with all its connections can have that many times as much.
BOUNDS = f"""
DROP TRIGGER candidates_of_tenants ON work.candidates;
CREATE TRIGGER candidates_of_tenants AFTER INSERT ON work.candidates REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT {_BY_TENANT} EXECUTE FUNCTION work.candidates_of_tenants();

CREATE FUNCTION work.rows_of_tenants() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  most integer := TG_ARGV[0];
  found bigint;
BEGIN
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
  ELSE  -- models that are handed in
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.models
      WHERE study_id IN (SELECT study_id FROM added) AND submitted AND created_at > now() - interval '1 day'
      GROUP BY study_id) c);
  END IF;
  IF found > most THEN
    RAISE EXCEPTION '% would be % of at most % %', TG_TABLE_NAME, found, most, TG_ARGV[1]
      USING ERRCODE = 'check_violation', CONSTRAINT = 'rows_of_tenants_check';
  END IF;
  RETURN NULL;
END $$;
"""

MOST = {
    "studies": (1000, "of a tenant"),
    "data_sets": (1000, "of a tenant"),
    "requests": (1000, "of a study without an answer"),
    "feeds": (1000, "of a study that wait"),
    "switches": (200_000, "of a study that wait"),
    "models": (1000, "handed in for a study within a day"),
}


def upgrade() -> None:
    for block in (CALLERS, RIVALS, LEASES, CHANGES, BOUNDS):
        op.execute(block)
    for table, (most, which) in MOST.items():
        op.execute(
            f"CREATE TRIGGER rows_of_tenants AFTER INSERT ON work.{table} REFERENCING NEW TABLE AS added "
            f"FOR EACH STATEMENT {_BY_TENANT} EXECUTE FUNCTION work.rows_of_tenants('{most}', '{which}')"
        )
