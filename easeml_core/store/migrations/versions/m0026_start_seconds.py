"""The start of a training process is no cost of its candidate: it has its own column, and budgets charge it."""

from alembic import op

revision = "0026"
down_revision = "0025"

START = """
-- Until the child had imported its libraries; NULL where cost_seconds includes it: trials that failed, or ended before
-- this column was there.
ALTER TABLE work.trials
  ADD COLUMN start_seconds double precision,
  ADD CONSTRAINT trials_start_check CHECK (
    start_seconds >= 0 AND start_seconds <= 1e9 AND (start_seconds IS NULL OR state = 'SUCCEEDED')),
  -- What budgets and shares charge.
  ADD COLUMN charged_seconds double precision NOT NULL GENERATED ALWAYS AS (
    lost_seconds + coalesce(cost_seconds, 0) + coalesce(start_seconds, 0)) STORED,
  DROP CONSTRAINT trials_limit_check,
  ADD CONSTRAINT trials_limit_check CHECK (
    limit_seconds > 0 AND limit_seconds <= 1e9
    AND lost_seconds + coalesce(cost_seconds, 0) + coalesce(start_seconds, 0) <= limit_seconds);
GRANT UPDATE (start_seconds) ON work.trials TO easeml_worker;

CREATE OR REPLACE FUNCTION work.charge(t work.trials) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN t.state IN ('SUGGESTED', 'RUNNING') THEN t.limit_seconds
         ELSE t.lost_seconds + coalesce(t.cost_seconds, 0) + coalesce(t.start_seconds, 0) END
$$;
"""


def upgrade() -> None:
    op.execute(START)
