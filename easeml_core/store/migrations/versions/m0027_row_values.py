"""An index of the registered rows by their values, so that new rows are compared with few sources only."""

from alembic import op

revision = "0027"
down_revision = "0026"

TABLES = """
-- Rows of a source that were registered, or indexed anew, together. records: how many of row_values it has.
CREATE TABLE sealed.row_parts (
  id         bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT row_parts_pkey PRIMARY KEY,
  source_id  bigint NOT NULL CONSTRAINT row_parts_source_fkey REFERENCES sealed.row_sources,
  is_packed  boolean NOT NULL,
  records    integer NOT NULL DEFAULT 0
) WITH (autovacuum_enabled = false);
CREATE INDEX row_parts_source_idx ON sealed.row_parts (source_id);

-- Values of a part; triggers alone write it. cells: 12 bytes each, a token and the number of its row within the part,
-- which is 0 where more than 8 rows have the value. key: the token as a number; in a packed part its first 16 bits, so
-- that a large part has few rows here.
CREATE TABLE sealed.row_values (
  key      bigint NOT NULL,
  part_id  bigint NOT NULL,
  cells    bytea NOT NULL,
  CONSTRAINT row_values_pkey PRIMARY KEY (key, part_id)
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE sealed.row_values ALTER COLUMN cells SET STORAGE EXTERNAL;
GRANT SELECT ON sealed.row_parts, sealed.row_values TO easeml_referee;
"""

INDEX = """
-- Groups are sorted: a hash table with a buffer for each of a million values takes a gigabyte.
CREATE FUNCTION sealed.index_rows(source bigint, rows bytea[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_hashagg = off SET work_mem = '64MB' AS $$
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
    FROM cells WHERE token <> '\\x0000000000000000' GROUP BY token
  ), keyed AS (
    SELECT ('x' || encode(token, 'hex'))::bit(64)::bigint >> CASE WHEN packed THEN 48 ELSE 0 END AS key, cells
    FROM grouped
  )
  SELECT key, part, string_agg(cells, '') FROM keyed GROUP BY key;
  GET DIAGNOSTICS inserted = ROW_COUNT;
  UPDATE sealed.row_parts SET records = inserted WHERE id = part;
END $$;
REVOKE EXECUTE ON FUNCTION sealed.index_rows(bigint, bytea[]) FROM PUBLIC;

-- All rows of a source, in parts of the size in which they are registered.
CREATE FUNCTION sealed.index_source(source bigint) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_hashagg = off SET work_mem = '64MB' AS $$
BEGIN
  DELETE FROM sealed.row_values v USING sealed.row_parts p WHERE p.source_id = source AND v.part_id = p.id;
  DELETE FROM sealed.row_parts WHERE source_id = source;
  PERFORM sealed.index_rows(source, array_agg(r.tokens)) FROM (
    SELECT tokens, (row_number() OVER () - 1) / 20000 AS chunk FROM sealed.registry WHERE source_id = source) AS r
  GROUP BY r.chunk;
END $$;
REVOKE EXECUTE ON FUNCTION sealed.index_source(bigint) FROM PUBLIC;
"""

TRIGGERS = """
CREATE FUNCTION sealed.registry_indexed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM sealed.index_rows(source_id, array_agg(tokens)) FROM added GROUP BY source_id;
  RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION sealed.registry_indexed() FROM PUBLIC;
CREATE TRIGGER registry_indexed AFTER INSERT ON sealed.registry REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION sealed.registry_indexed();

-- A value that is removed from rows is a label elsewhere: the index forgets it, too. An update that leaves the state is
-- one of tokens, and is followed whether or not it has removed a value: the time must not tell.
CREATE FUNCTION sealed.registry_reindexed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM sealed.index_source(s.source_id) FROM (
    SELECT DISTINCT n.source_id FROM after n JOIN before b ON b.id = n.id WHERE n.state = b.state) AS s;
  RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION sealed.registry_reindexed() FROM PUBLIC;
CREATE TRIGGER registry_reindexed AFTER UPDATE ON sealed.registry
  REFERENCING OLD TABLE AS before NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION sealed.registry_reindexed();
"""

EXISTING = "SELECT sealed.index_source(id) FROM sealed.row_sources ORDER BY id"


def upgrade() -> None:
    for block in (TABLES, INDEX, TRIGGERS, EXISTING):
        op.execute(block)
