"""The pages' roles: one looks, one changes for a person (ADR 0032); changes that logins ask for are the scheduler's."""

from alembic import op

revision = "0039"
down_revision = "0038"

# Both roles are taken by the pages alone, which say whose rows the person may read, and whose change.
CALLERS = """
CREATE OR REPLACE FUNCTION work.my_tenants() RETURNS bigint[] LANGUAGE sql STABLE PARALLEL SAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN work.caller() IN ('easeml_viewer', 'easeml_person')
  THEN coalesce(nullif(current_setting('easeml.viewer_tenants', true), '')::bigint[], '{}')
  ELSE (SELECT coalesce(array_agg(tenant_id), '{}') FROM work.tenant_logins WHERE login = work.caller()) END;

-- Of which tenants the caller may change rows: a person may see more than that.
CREATE FUNCTION work.my_changes() RETURNS bigint[] LANGUAGE sql STABLE PARALLEL SAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN CASE work.caller() WHEN 'easeml_viewer' THEN '{}'
  WHEN 'easeml_person' THEN coalesce(nullif(current_setting('easeml.person_tenants', true), '')::bigint[], '{}')
  ELSE work.my_tenants() END;
REVOKE EXECUTE ON FUNCTION work.my_changes() FROM PUBLIC;

CREATE OR REPLACE FUNCTION work.kind_of_caller() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN starts_with(work.caller(), 'easeml_t_') THEN 'tenant'
  WHEN work.caller() = 'easeml_device' OR starts_with(work.caller(), 'easeml_d_') THEN 'device'
  WHEN work.caller() IN ('easeml_viewer', 'easeml_person') THEN 'person' ELSE 'role' END;

CREATE OR REPLACE FUNCTION work.may_change(study bigint, devices boolean) RETURNS boolean LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (devices AND work.kind_of_caller() = 'device')
  OR EXISTS (SELECT FROM work.studies WHERE id = study AND tenant_id = ANY (work.my_changes()));
"""

# A page's transaction is short, so that it makes a change itself; a login may keep its transaction open.
CHANGES = """
CREATE OR REPLACE FUNCTION work.set_study_paused(study bigint, paused boolean) RETURNS boolean LANGUAGE plpgsql
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

CREATE OR REPLACE FUNCTION work.cancel_trial(trial bigint) RETURNS boolean LANGUAGE plpgsql
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

REVOKE EXECUTE ON FUNCTION work.apply_changes() FROM easeml_worker;
"""


def upgrade() -> None:
    for block in (CALLERS, CHANGES):
        op.execute(block)
