-- Test sets, the examples and labels of sealed sets, and the registry of their rows. No vacuum or analyze by itself
-- on any sealed table: the catalogue, which every role may read, then learns no count. Whoever runs VACUUM or ANALYZE
-- by hand writes the counts there. That nobody but the owner may read them is for a superuser to arrange
-- (store/roles.py, docs/install.md).

-- The public side of a sealed set: what it is for, its plan and its state. Its examples are in sealed.test_sets.
CREATE TABLE work.test_sets (
  id                bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT test_sets_pkey PRIMARY KEY,
  study_id          bigint NOT NULL,
  data_version_id   bigint NOT NULL,
  purpose           text NOT NULL,
  state             text NOT NULL DEFAULT 'live',
  rows              integer NOT NULL CONSTRAINT test_sets_rows_check CHECK (rows > 0),
  steps             integer NOT NULL CONSTRAINT test_sets_steps_check CHECK (steps >= 1),
  plan              jsonb NOT NULL,
  created_at        timestamptz NOT NULL DEFAULT now(),
  retired_at        timestamptz,
  name              text CONSTRAINT test_sets_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  labels_on_demand  boolean NOT NULL DEFAULT false,
  retired_why       text,
  artifact          text,
  deleted_at        timestamptz,
  CONSTRAINT test_sets_state_check CHECK (state IN ('planned', 'sealed', 'live', 'retired', 'released')),
  CONSTRAINT test_sets_retired_check CHECK ((state IN ('retired', 'released')) = (retired_at IS NOT NULL)),
  CONSTRAINT test_sets_study_key UNIQUE (id, study_id, purpose),
  CONSTRAINT test_sets_steps_key UNIQUE (id, steps),
  CONSTRAINT test_sets_data_version_fkey FOREIGN KEY (data_version_id, study_id)
    REFERENCES work.data_versions (id, study_id),
  CONSTRAINT test_sets_name_key UNIQUE (study_id, name),
  CONSTRAINT test_sets_artifact_check CHECK (artifact ~ '^sha256:[0-9a-f]{64}$'),
  CONSTRAINT test_sets_released_check CHECK ((state = 'released') = (artifact IS NOT NULL)),
  CONSTRAINT test_sets_purpose_check CHECK (purpose IN ('gate', 'meter', 'joint', 'direct')),
  CONSTRAINT test_sets_why_check
    CHECK (retired_why IN ('steps', 'changes', 'tolerance', 'by hand', 'signals', 'regulation', 'failure', 'overlap')),
  CONSTRAINT test_sets_deleted_check CHECK (deleted_at IS NULL OR (state = 'retired' AND name IS NULL))
);
CREATE UNIQUE INDEX test_sets_live_gate_key ON work.test_sets (study_id) WHERE state = 'live' AND purpose IN ('gate',
  'joint');
CREATE UNIQUE INDEX test_sets_live_meter_key ON work.test_sets (study_id) WHERE state = 'live'
  AND purpose IN ('meter', 'joint');
CREATE UNIQUE INDEX test_sets_live_direct_key ON work.test_sets (study_id) WHERE state = 'live'
  AND purpose = 'direct';

-- The secret of this installation, from which row hashes and sealed choices follow.
CREATE TABLE sealed.installation (
  singleton  boolean DEFAULT true CONSTRAINT installation_pkey PRIMARY KEY
             CONSTRAINT installation_singleton_check CHECK (singleton),
  secret     uuid NOT NULL DEFAULT gen_random_uuid()
) WITH (autovacuum_enabled = false);

INSERT INTO sealed.installation DEFAULT VALUES;

-- Examples and labels of a sealed set, encoded.
CREATE TABLE sealed.test_sets (
  id           bigint CONSTRAINT test_sets_pkey PRIMARY KEY,
  steps        integer NOT NULL,
  fingerprint  text NOT NULL CONSTRAINT test_sets_fingerprint_key UNIQUE,
  inputs       bytea NOT NULL,
  labels       bytea NOT NULL,
  sealed_at    timestamptz NOT NULL DEFAULT now(),
  -- keys: the uploader's names of the examples; slices: one code an example, the place of its slice in the public plan.
  keys         jsonb,
  slices       bytea,
  -- Names of the columns as they were brought, where the cells are kept: of sets that ask for labels and have words.
  cell_names   jsonb,
  CONSTRAINT test_sets_steps_key UNIQUE (id, steps),
  CONSTRAINT test_sets_public_fkey FOREIGN KEY (id, steps) REFERENCES work.test_sets (id, steps)
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE sealed.test_sets ALTER COLUMN inputs SET STORAGE EXTERNAL, ALTER COLUMN labels SET STORAGE EXTERNAL,
  ALTER COLUMN keys SET STORAGE EXTERNAL, ALTER COLUMN slices SET STORAGE EXTERNAL;

-- No example of a study lies in two sealed sets; one row an example, so the count tells the size only.
CREATE TABLE sealed.examples (
  study_id     bigint NOT NULL,
  hash         bytea NOT NULL,
  test_set_id  bigint NOT NULL CONSTRAINT examples_test_set_fkey REFERENCES sealed.test_sets,
  CONSTRAINT examples_pkey PRIMARY KEY (study_id, hash)
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);

-- What a labeler has said: one whole number an example, -1 where nothing. In place and at full length.
CREATE TABLE sealed.labels (
  test_set_id  bigint NOT NULL CONSTRAINT labels_test_set_fkey REFERENCES sealed.test_sets,
  labeler      text NOT NULL,
  labels       bytea NOT NULL,
  CONSTRAINT labels_labeler_check CHECK (labeler ~ '^[a-z0-9][a-z0-9_.@-]{0,62}$'),
  CONSTRAINT labels_pkey PRIMARY KEY (test_set_id, labeler)
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE sealed.labels ALTER COLUMN labels SET STORAGE EXTERNAL;

-- One row an example, all written when the set is sealed: how many there are tells nothing of labels.
CREATE TABLE sealed.cells (
  test_set_id  bigint NOT NULL CONSTRAINT cells_test_set_fkey REFERENCES sealed.test_sets,
  place        integer NOT NULL CONSTRAINT cells_place_check CHECK (place >= 0),
  cells        jsonb NOT NULL CONSTRAINT cells_cells_check CHECK (jsonb_typeof(cells) = 'array'),
  CONSTRAINT cells_pkey PRIMARY KEY (test_set_id, place)
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);

-- Rows with the same columns: the table of a study, or what was brought to it later. names: tokens of the columns.
CREATE TABLE sealed.row_sources (
  id             bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT row_sources_pkey PRIMARY KEY,
  study_id       bigint NOT NULL CONSTRAINT row_sources_study_fkey REFERENCES work.studies,
  names          bytea NOT NULL,
  registered_at  timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
CREATE INDEX row_sources_study_idx ON sealed.row_sources (study_id);
ALTER TABLE sealed.row_sources ALTER COLUMN names SET STORAGE EXTERNAL;

-- id: keyed hash of the row's cells, labels excluded. tokens: keyed hashes of its cells, in the order of names.
-- test_set_id: the set that holds it, or has held it before it was released.
CREATE TABLE sealed.registry (
  id           bytea CONSTRAINT registry_pkey PRIMARY KEY CONSTRAINT registry_id_check CHECK (octet_length(id) = 16),
  source_id    bigint NOT NULL CONSTRAINT registry_source_fkey REFERENCES sealed.row_sources,
  state        text NOT NULL CONSTRAINT registry_state_check CHECK (state IN ('sealed', 'open')),
  test_set_id  bigint CONSTRAINT registry_test_set_fkey REFERENCES sealed.test_sets,
  tokens       bytea NOT NULL CONSTRAINT registry_tokens_check CHECK (octet_length(tokens) % 8 = 0),
  CONSTRAINT registry_sealed_check CHECK (state = 'open' OR test_set_id IS NOT NULL)
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
CREATE INDEX registry_source_idx ON sealed.registry (source_id);
CREATE INDEX registry_set_idx ON sealed.registry (test_set_id);
ALTER TABLE sealed.registry ALTER COLUMN id SET STORAGE EXTERNAL, ALTER COLUMN tokens SET STORAGE EXTERNAL;

-- A known row that another sealed set holds too.
CREATE TABLE sealed.row_holds (
  row_id       bytea NOT NULL CONSTRAINT row_holds_row_fkey REFERENCES sealed.registry,
  test_set_id  bigint NOT NULL CONSTRAINT row_holds_test_set_fkey REFERENCES sealed.test_sets,
  CONSTRAINT row_holds_pkey PRIMARY KEY (row_id, test_set_id)
) WITH (autovacuum_enabled = false);
CREATE INDEX row_holds_set_idx ON sealed.row_holds (test_set_id);
ALTER TABLE sealed.row_holds ALTER COLUMN row_id SET STORAGE EXTERNAL;

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

-- planned -> sealed -> live -> retired -> released, and nothing leads back: what was used up stays used up. What was
-- planned gets its size when it is sealed, and never another one.
CREATE FUNCTION work.test_sets_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE life text[] := ARRAY['planned', 'sealed', 'live', 'retired', 'released'];
BEGIN
  IF NEW.state <> OLD.state AND array_position(life, NEW.state) <= array_position(life, OLD.state) THEN
    RAISE EXCEPTION 'test set % cannot go from % to %', OLD.id, OLD.state, NEW.state
      USING ERRCODE = 'check_violation', CONSTRAINT = 'test_sets_forward_check';
  END IF;
  IF OLD.state <> 'planned' AND (NEW.rows, NEW.data_version_id, NEW.labels_on_demand)
     IS DISTINCT FROM (OLD.rows, OLD.data_version_id, OLD.labels_on_demand)
  THEN
    RAISE EXCEPTION 'test set % is % and keeps its content', OLD.id, OLD.state
      USING ERRCODE = 'check_violation', CONSTRAINT = 'test_sets_forward_check';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER test_sets_forward BEFORE UPDATE ON work.test_sets FOR EACH ROW
  EXECUTE FUNCTION work.test_sets_forward();

-- What is open stays open, and what is sealed opens only with the release of every set that holds it.
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
CREATE TRIGGER registry_forward BEFORE UPDATE ON sealed.registry FOR EACH ROW
  EXECUTE FUNCTION sealed.registry_forward();

CREATE FUNCTION sealed.registry_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a registered row is never removed'
    USING ERRCODE = 'check_violation', CONSTRAINT = 'registry_keep', TABLE = TG_TABLE_NAME, SCHEMA = 'sealed';
END $$;
CREATE TRIGGER registry_keep BEFORE DELETE ON sealed.registry FOR EACH ROW EXECUTE FUNCTION sealed.registry_keep();
CREATE TRIGGER registry_keep_all BEFORE TRUNCATE ON sealed.registry EXECUTE FUNCTION sealed.registry_keep();

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
    FROM cells WHERE token <> '\x0000000000000000' GROUP BY token
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

CREATE FUNCTION sealed.registry_indexed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM sealed.index_rows(source_id, array_agg(tokens)) FROM added GROUP BY source_id;
  RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION sealed.registry_indexed() FROM PUBLIC;
CREATE TRIGGER registry_indexed AFTER INSERT ON sealed.registry REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION sealed.registry_indexed();

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
CREATE TRIGGER registry_reindexed AFTER UPDATE ON sealed.registry REFERENCING OLD TABLE AS before NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION sealed.registry_reindexed();

-- Whether it served is read from the ledger and from what it was asked for, both before anything leaves. The registry
-- keeps its rows as sealed for ever: deleting a set opens none of them, in no study.
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
