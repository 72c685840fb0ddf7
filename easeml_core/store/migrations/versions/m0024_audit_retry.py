"""A trial that takes the place of one that failed because of its task is in the audit, with whoever asked for it."""

from alembic import op

revision = "0024"
down_revision = "0023"

RETRY = """
CREATE FUNCTION work.audit_retry() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('trial retried', NEW.study_id, NULL, jsonb_build_object('trial', NEW.retries),
    jsonb_build_object('trial', NEW.id, 'candidate', (SELECT name FROM work.candidates WHERE id = NEW.candidate_id)));
  RETURN NULL;
END $$;
CREATE TRIGGER trials_retry_audit AFTER INSERT ON work.trials
  FOR EACH ROW WHEN (NEW.retries IS NOT NULL) EXECUTE FUNCTION work.audit_retry();
"""


def upgrade() -> None:
    op.execute(RETRY)
