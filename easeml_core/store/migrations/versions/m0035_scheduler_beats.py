"""When each process of the scheduler last wrote that it lives, so that every role may know whether one does."""

from alembic import op

revision = "0035"
down_revision = "0034"

TABLES = """
CREATE TABLE work.scheduler_beats (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT scheduler_beats_pkey PRIMARY KEY,
  started_at  timestamptz NOT NULL DEFAULT now(),
  beat_at     timestamptz NOT NULL DEFAULT now()
              CONSTRAINT scheduler_beats_beat_check CHECK (beat_at >= started_at)
) WITH (fillfactor = 50);
GRANT SELECT ON work.scheduler_beats TO easeml_worker, easeml_referee;
"""


def upgrade() -> None:
    op.execute(TABLES)
