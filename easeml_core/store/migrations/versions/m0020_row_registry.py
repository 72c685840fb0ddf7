"""One registry of all rows of the installation: each is sealed or open, and known again by its cells."""

from alembic import op

revision = "0020"
down_revision = "0019"

REGISTRY = """
-- Rows with the same columns: the table of a study, or what was brought to it later. names: tokens of the columns.
CREATE TABLE sealed.row_sources (
  id             bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT row_sources_pkey PRIMARY KEY,
  study_id       bigint NOT NULL CONSTRAINT row_sources_study_fkey REFERENCES work.studies,
  names          bytea NOT NULL,
  registered_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX row_sources_study_idx ON sealed.row_sources (study_id);

-- id: keyed hash of the row's cells, labels excluded. tokens: keyed hashes of its cells, in the order of names.
-- test_set_id: the set that holds it, or has held it before it was released.
CREATE TABLE sealed.registry (
  id           bytea CONSTRAINT registry_pkey PRIMARY KEY,
  source_id    bigint NOT NULL CONSTRAINT registry_source_fkey REFERENCES sealed.row_sources,
  state        text NOT NULL,
  test_set_id  bigint CONSTRAINT registry_test_set_fkey REFERENCES sealed.test_sets,
  tokens       bytea NOT NULL,
  CONSTRAINT registry_id_check CHECK (octet_length(id) = 16),
  CONSTRAINT registry_tokens_check CHECK (octet_length(tokens) % 8 = 0),
  CONSTRAINT registry_state_check CHECK (state IN ('sealed', 'open')),
  CONSTRAINT registry_sealed_check CHECK (state = 'open' OR test_set_id IS NOT NULL)
);
CREATE INDEX registry_source_idx ON sealed.registry (source_id);
CREATE INDEX registry_set_idx ON sealed.registry (test_set_id);

-- A known row that another sealed set holds too.
CREATE TABLE sealed.row_holds (
  row_id       bytea NOT NULL CONSTRAINT row_holds_row_fkey REFERENCES sealed.registry,
  test_set_id  bigint NOT NULL CONSTRAINT row_holds_test_set_fkey REFERENCES sealed.test_sets,
  CONSTRAINT row_holds_pkey PRIMARY KEY (row_id, test_set_id)
);
CREATE INDEX row_holds_set_idx ON sealed.row_holds (test_set_id);

-- How many rows of a new table were known already tells of sealed rows: no statistics of it.
ALTER TABLE sealed.row_sources SET (autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE sealed.registry SET (autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE sealed.row_holds SET (autovacuum_enabled = false);
-- Nor does the size on disk.
ALTER TABLE sealed.row_sources ALTER COLUMN names SET STORAGE EXTERNAL;
ALTER TABLE sealed.registry ALTER COLUMN id SET STORAGE EXTERNAL, ALTER COLUMN tokens SET STORAGE EXTERNAL;
ALTER TABLE sealed.row_holds ALTER COLUMN row_id SET STORAGE EXTERNAL;
"""

# What is open stays open, and what is sealed opens only with the release of every set that holds it.
FORWARD = """
CREATE FUNCTION sealed.registry_forward() RETURNS trigger LANGUAGE plpgsql AS $$
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
END $$;
CREATE TRIGGER registry_forward BEFORE UPDATE ON sealed.registry
  FOR EACH ROW EXECUTE FUNCTION sealed.registry_forward();
CREATE FUNCTION sealed.registry_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a registered row is never removed'
    USING ERRCODE = 'check_violation', CONSTRAINT = 'registry_keep', TABLE = TG_TABLE_NAME, SCHEMA = 'sealed';
END $$;
CREATE TRIGGER registry_keep BEFORE DELETE ON sealed.registry FOR EACH ROW EXECUTE FUNCTION sealed.registry_keep();
CREATE TRIGGER registry_keep_all BEFORE TRUNCATE ON sealed.registry EXECUTE FUNCTION sealed.registry_keep();
"""

RIGHTS = """
GRANT SELECT, INSERT ON sealed.row_sources, sealed.registry, sealed.row_holds TO easeml_referee;
GRANT UPDATE (state, tokens) ON sealed.registry TO easeml_referee;
-- A set whose rows are open in another study is worth nothing: it is retired for that.
ALTER TABLE work.test_sets
  DROP CONSTRAINT test_sets_why_check,
  ADD CONSTRAINT test_sets_why_check CHECK (
    retired_why IN ('steps', 'changes', 'tolerance', 'by hand', 'signals', 'regulation', 'failure', 'overlap'));
"""


def upgrade() -> None:
    for block in (REGISTRY, FORWARD, RIGHTS):
        op.execute(block)
