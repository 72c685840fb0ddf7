"""A test set that never served is deleted: its rows, labels and predictions go, and its number stays (ADR 0035)."""

from alembic import op

revision = "0043"
down_revision = "0042"

COLUMN = """
ALTER TABLE work.test_sets
  ADD COLUMN deleted_at timestamptz,
  ADD CONSTRAINT test_sets_deleted_check CHECK (deleted_at IS NULL OR (state = 'retired' AND name IS NULL));

CREATE FUNCTION work.audit_set_deleted() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.note('set deleted', NEW.study_id, NULL, NULL, jsonb_build_object('set', NEW.id, 'name', OLD.name,
    'purpose', NEW.purpose, 'steps', NEW.steps));
  RETURN NULL;
END $$;
CREATE TRIGGER test_sets_deleted_audit AFTER UPDATE OF deleted_at ON work.test_sets FOR EACH ROW
  WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION work.audit_set_deleted();
"""

# Whether it served is read from the ledger and from what it was asked for, both before anything leaves. The registry
# keeps its rows as sealed for ever: deleting a set opens none of them, in no study.
DELETION = """
CREATE FUNCTION sealed.delete_set(of_set bigint, why text) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
END $$;
REVOKE EXECUTE ON FUNCTION sealed.delete_set(bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sealed.delete_set(bigint, text) TO easeml_referee;
"""


def upgrade() -> None:
    for block in (COLUMN, DELETION):
        op.execute(block)
