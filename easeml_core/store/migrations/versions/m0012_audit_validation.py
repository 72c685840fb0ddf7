"""Another validation set is in the audit like every other act: who has chosen it, when and why."""

from alembic import op

revision = "0012"
down_revision = "0011"

# A version of the data with the training part of an earlier one brings validation rows, and is made by nobody else.
VALIDATION = """
CREATE FUNCTION work.audit_validation() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('validation set replaced', NEW.study_id, NULL,
    jsonb_build_object('version', NEW.version - 1), jsonb_build_object('version', NEW.version));
  RETURN NULL;
END $$;
CREATE TRIGGER data_versions_audit AFTER INSERT ON work.data_versions
  FOR EACH ROW WHEN (NEW.same_training_as IS NOT NULL) EXECUTE FUNCTION work.audit_validation();
"""


def upgrade() -> None:
    op.execute(VALIDATION)
