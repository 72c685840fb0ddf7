"""How much one login adds to the audit within an hour is bounded, also by what the referee refuses it (ADR 0032)."""

from alembic import op

revision = "0040"
down_revision = "0039"

# Acts of logins: the actor begins with the login, also where another role writes the row. A user of the pages may have
# the same name.
_OF_LOGINS = "left(a.who, 9) IN ('easeml_t_', 'easeml_d_') AND a.door NOT IN ('page', 'service')"

MOST = 10_000

RATE = f"""
CREATE INDEX audit_login_idx ON work.audit (split_part(who, ' ', 1), at) WHERE {_OF_LOGINS.replace("a.", "")};

-- Workers that share easeml_device would wait for one another; they have no bound of this kind.
CREATE FUNCTION work.require_audit_room() RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF work.kind_of_caller() NOT IN ('tenant', 'device') OR work.caller() = 'easeml_device' THEN
    RETURN;
  END IF;
  PERFORM work.await_turn();
  IF (SELECT count(*) FROM (SELECT FROM work.audit a WHERE {_OF_LOGINS} AND split_part(a.who, ' ', 1) = work.caller()
      AND a.at > clock_timestamp() - interval '1 hour' LIMIT {MOST}) n) >= {MOST} THEN
    RAISE EXCEPTION 'acts of login % would be % of at most {MOST} within an hour', work.caller(), {MOST + 1}
      USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_rate_check';
  END IF;
END $$;
REVOKE EXECUTE ON FUNCTION work.require_audit_room() FROM PUBLIC;

CREATE OR REPLACE FUNCTION work.note(
  act text, study bigint, tenant bigint, before jsonb, after jsonb, why text DEFAULT NULL, actor text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.require_audit_room();
  INSERT INTO work.audit (who, door, act, study_id, tenant_id, before, after, reason) VALUES (
    coalesce(work.asker(coalesce(work.audit_word(actor, 200), current_setting('easeml.actor', true))), session_user),
    CASE WHEN work.kind_of_caller() IN ('tenant', 'device') THEN 'database'
      ELSE coalesce(work.audit_word(current_setting('easeml.door', true), 40), 'database') END, act, study,
    coalesce(tenant, (SELECT tenant_id FROM work.studies WHERE id = study)), coalesce(before, '{{}}'),
    coalesce(after, '{{}}'), nullif(left(coalesce(why, current_setting('easeml.reason', true)), 2000), ''));
END $$;
"""

# What others write for a login counts as its own: the changes that it files, and the refusals of what it asks.
FOR_IT = """
CREATE OR REPLACE FUNCTION work.audit_answer() RETURNS trigger LANGUAGE plpgsql
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

DO $patch$
DECLARE
  asked text;
  body text;
  before text := 'PERFORM work.await_turn();';
BEGIN
  FOREACH asked IN ARRAY ARRAY['work.file_change(bigint, bigint, text)', 'work.rows_of_tenants()'] LOOP
    body := pg_get_functiondef(asked::regprocedure);
    IF position(before IN body) = 0 THEN
      RAISE EXCEPTION '% is not the function of revision 0036', asked;
    END IF;
    EXECUTE replace(body, before, 'PERFORM work.require_audit_room(); ' || before);
  END LOOP;
END $patch$;
"""


def upgrade() -> None:
    for block in (RATE, FOR_IT):
        op.execute(block)
