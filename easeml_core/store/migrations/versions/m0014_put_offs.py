"""Requests that met a fault of the machine wait for their next try, whoever restarts meanwhile."""

from alembic import op

revision = "0014"
down_revision = "0013"

PUT_OFFS = """
-- One row each time; bounded: the request may have brought the fault about itself (a kill, a time-out, no memory).
-- reason: a word of ours, an errno or the name of an error, never what a model says.
CREATE TABLE sealed.put_offs (
  request_id  bigint NOT NULL,
  attempt     integer NOT NULL,
  bounded     boolean NOT NULL,
  reason      text NOT NULL,
  put_off_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  until       timestamptz NOT NULL,
  CONSTRAINT put_offs_pkey PRIMARY KEY (request_id, attempt),
  CONSTRAINT put_offs_attempt_fkey FOREIGN KEY (request_id, attempt) REFERENCES sealed.attempts (request_id, attempt),
  CONSTRAINT put_offs_reason_check CHECK (reason ~ '^[A-Za-z0-9_]{1,100}$'),
  CONSTRAINT put_offs_until_check CHECK (until > put_off_at AND until <= put_off_at + interval '1 day')
);
ALTER TABLE sealed.put_offs SET (autovacuum_enabled = false);
GRANT SELECT, INSERT ON sealed.put_offs TO easeml_referee;
"""


def upgrade() -> None:
    op.execute(PUT_OFFS)
