"""Who was last at work on a trial, kept when it has ended: under which key, and in which try of its task.

A lease ends with its attempt, and ``trials_lease_check`` takes its key away; where the log of a trial lies is then
known nowhere. A task that is tried again works under the same key, so the number of the try stands beside it.

When a set was sealed is looked up in the audit for every open alert (``store.alert_state``): an index finds it among
all else that has happened to the study.
"""

from alembic import op

revision = "0010"
down_revision = "0009"

LAST = """
-- last_key: of the newest lease, whoever holds it now; NULL before the first. last_try: from 1, of an Airflow task.
ALTER TABLE work.trials
  ADD COLUMN last_key text,
  ADD COLUMN last_try integer,
  ADD CONSTRAINT trials_last_check CHECK (last_try IS NULL OR (last_try >= 1 AND last_key IS NOT NULL)),
  ADD CONSTRAINT trials_key_length_check CHECK (greatest(octet_length(lease_key), octet_length(last_key)) <= 4000);
UPDATE work.trials SET last_key = lease_key WHERE lease_key IS NOT NULL;
GRANT UPDATE (last_key, last_try) ON work.trials TO easeml_worker;
"""

SEALED = """
CREATE INDEX audit_sealed_idx ON work.audit (study_id, (after ->> 'set')) WHERE act IN ('set sealed', 'set live');
"""


def upgrade() -> None:
    op.execute(LAST)
    op.execute(SEALED)
