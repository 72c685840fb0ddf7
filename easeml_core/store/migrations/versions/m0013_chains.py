"""Hash chains over ledgers, verdicts, the audit and promotions; the public heads that leave with the answers.

A chain of an earlier ledger begins with an entry that states what was there when it began: what was changed before
that cannot be found.
"""

from alembic import op

from easeml_core.store.tables.chain import open_missing

revision = "0013"
down_revision = "0012"

TABLES = """
CREATE TABLE sealed.chains (
  name       text NOT NULL CONSTRAINT chains_pkey PRIMARY KEY,
  opened_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT chains_name_check CHECK (name ~ '^(audit|set/[1-9][0-9]{0,17})$')
);

-- A nonce, two hashes and a signature for each answer, all of one length; only a chain that begins, a key that changes
-- and an acknowledgement carry a content.
CREATE TABLE sealed.chain (
  chain       text NOT NULL CONSTRAINT chain_chain_fkey REFERENCES sealed.chains,
  place       bigint NOT NULL,
  kind        text NOT NULL,
  subject     bigint,
  at          timestamptz NOT NULL,
  content     jsonb,
  nonce       bytea NOT NULL,
  previous    bytea NOT NULL,
  commitment  bytea NOT NULL,
  hash        bytea NOT NULL,
  key_id      text,
  signature   bytea,
  CONSTRAINT chain_pkey PRIMARY KEY (chain, place),
  CONSTRAINT chain_subject_key UNIQUE (chain, kind, subject),
  CONSTRAINT chain_place_check CHECK (place >= 1),
  CONSTRAINT chain_kind_check CHECK (CASE
    WHEN kind IN ('ledger', 'verdict', 'reading', 'audit', 'promotion') THEN subject IS NOT NULL AND content IS NULL
    WHEN kind IN ('genesis', 'key', 'acknowledged') THEN subject IS NULL AND content IS NOT NULL
    ELSE false END),
  CONSTRAINT chain_length_check CHECK (
    octet_length(nonce) = 32 AND octet_length(previous) = 32 AND octet_length(commitment) = 32
    AND octet_length(hash) = 32),
  CONSTRAINT chain_signature_check CHECK (
    (key_id IS NULL) = (signature IS NULL) AND key_id ~ '^[0-9a-f]{64}$' AND octet_length(signature) = 64)
);
ALTER TABLE sealed.chain ALTER COLUMN nonce SET STORAGE EXTERNAL, ALTER COLUMN previous SET STORAGE EXTERNAL,
  ALTER COLUMN commitment SET STORAGE EXTERNAL, ALTER COLUMN hash SET STORAGE EXTERNAL,
  ALTER COLUMN signature SET STORAGE EXTERNAL;
ALTER TABLE sealed.chain SET (autovacuum_enabled = false, toast.autovacuum_enabled = false);
CREATE TRIGGER chain_append_only BEFORE UPDATE OR DELETE ON sealed.chain
  FOR EACH ROW EXECUTE FUNCTION sealed.append_only();
CREATE TRIGGER chain_keep_all BEFORE TRUNCATE ON sealed.chain EXECUTE FUNCTION sealed.append_only();

-- What leaves with an answer: the end of its set's chain, that of the audit's, and the signed statement that every
-- role may read. It is written when the answer leaves, never before.
CREATE TABLE work.evidence (
  request_id   bigint NOT NULL CONSTRAINT evidence_pkey PRIMARY KEY
               CONSTRAINT evidence_request_fkey REFERENCES work.requests,
  study_id     bigint NOT NULL CONSTRAINT evidence_study_fkey REFERENCES work.studies,
  test_set_id  bigint NOT NULL CONSTRAINT evidence_test_set_fkey REFERENCES work.test_sets,
  head         text NOT NULL,
  audit_head   text NOT NULL,
  envelope     jsonb,
  left_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT evidence_head_check CHECK (head ~ '^[0-9a-f]{64}$' AND audit_head ~ '^[0-9a-f]{64}$')
);
CREATE INDEX evidence_study_idx ON work.evidence (study_id, request_id);
GRANT SELECT ON work.evidence TO easeml_worker, easeml_referee;
GRANT INSERT ON work.evidence TO easeml_referee;
GRANT SELECT, INSERT ON sealed.chains, sealed.chain TO easeml_referee;
-- What nothing changes, so that the row can be locked: one referee after the other appends to a chain.
GRANT UPDATE (opened_at) ON sealed.chains TO easeml_referee;
"""


def upgrade() -> None:
    op.execute(TABLES)
    open_missing(op.get_bind())
