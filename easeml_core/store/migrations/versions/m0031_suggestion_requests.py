"""Requests for suggestions: what a role files that may not suggest itself, for the scheduler's process to decide."""

from alembic import op

revision = "0031"
down_revision = "0030"

TABLES = """
CREATE TABLE work.suggestion_requests (
  id           bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT suggestion_requests_pkey PRIMARY KEY,
  -- The batch of suggestions that answers it has the same key. A refused request makes room for a further try.
  request_key  text NOT NULL CONSTRAINT suggestion_requests_key_check CHECK (length(request_key) BETWEEN 1 AND 1000),
  -- Who asks: the trials are of this login's studies. No role has the right to give it.
  login        text NOT NULL DEFAULT work.caller(),
  requested    integer NOT NULL CONSTRAINT suggestion_requests_requested_check CHECK (requested BETWEEN 1 AND 1000),
  device       text CONSTRAINT suggestion_requests_device_check CHECK (length(device) BETWEEN 1 AND 100),
  -- Names of studies to choose from; NULL for all that the login may ask for.
  studies      text[] CONSTRAINT suggestion_requests_studies_check
               CHECK (cardinality(studies) <= 10000 AND octet_length(studies::text) <= 1000000
                      AND coalesce(array_ndims(studies), 1) = 1),
  -- Training functions of the caller, and the hash of each one's source or NULL.
  functions    text[] NOT NULL DEFAULT '{}' CONSTRAINT suggestion_requests_functions_check
               CHECK (cardinality(functions) <= 200 AND octet_length(functions::text) <= 100000
                      AND coalesce(array_ndims(functions), 1) = 1 AND array_position(functions, NULL) IS NULL),
  sources      text[] NOT NULL DEFAULT '{}' CONSTRAINT suggestion_requests_sources_check
               CHECK (cardinality(sources) = cardinality(functions) AND octet_length(sources::text) <= 100000
                      AND coalesce(array_ndims(sources), 1) = 1),
  trainers     boolean NOT NULL,
  runtimes     text[] CONSTRAINT suggestion_requests_runtimes_check
               CHECK (cardinality(runtimes) <= 10 AND octet_length(runtimes::text) <= 1000
                      AND coalesce(array_ndims(runtimes), 1) = 1),
  filed_at     timestamptz NOT NULL DEFAULT now(),
  -- How often a decision was begun: one that ends the process is not begun for ever.
  tries        integer NOT NULL DEFAULT 0 CONSTRAINT suggestion_requests_tries_check CHECK (tries >= 0),
  decided_at   timestamptz,
  -- Why nothing was decided, in a sentence.
  refusal      text CONSTRAINT suggestion_requests_refusal_check
               CHECK (refusal IS NULL OR (length(refusal) BETWEEN 1 AND 2000 AND decided_at IS NOT NULL))
);
CREATE UNIQUE INDEX suggestion_requests_request_key ON work.suggestion_requests (request_key) WHERE refusal IS NULL;
CREATE INDEX suggestion_requests_open_idx ON work.suggestion_requests (login, id) WHERE decided_at IS NULL;
CREATE INDEX suggestion_requests_decided_idx ON work.suggestion_requests (decided_at);

-- One login cannot fill the table: it waits for decisions first.
CREATE FUNCTION work.suggestion_requests_check() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (SELECT count(*) FROM work.suggestion_requests q WHERE q.login = NEW.login AND q.decided_at IS NULL) >= 1000 THEN
    RAISE EXCEPTION 'login % has 1000 requests for suggestions without a decision', NEW.login
      USING ERRCODE = 'check_violation', CONSTRAINT = 'suggestion_requests_open_check';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER suggestion_requests_open BEFORE INSERT ON work.suggestion_requests
  FOR EACH ROW EXECUTE FUNCTION work.suggestion_requests_check();
"""

GRANTS = """
GRANT SELECT ON work.suggestion_requests TO easeml_worker, easeml_referee;
GRANT INSERT (request_key, requested, device, studies, functions, sources, trainers, runtimes)
  ON work.suggestion_requests TO easeml_worker;
"""


def upgrade() -> None:
    for block in (TABLES, GRANTS):
        op.execute(block)
