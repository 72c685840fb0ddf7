"""An attempt at a trial that its living worker hands back does not count, as one that a restart took."""

from alembic import op

revision = "0023"
down_revision = "0022"

# A worker that is told to go (a drained node) gives its lease up with a heartbeat in the same statement. Both kinds of
# excuse share one bound: a training may be what makes its worker go.
EXCUSE = """
CREATE OR REPLACE FUNCTION work.trials_excuse() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE is_alive boolean := NEW.beat_at IS DISTINCT FROM OLD.beat_at;
BEGIN
  IF NEW.attempt > OLD.attempt OR is_alive THEN
    NEW.beat_at := clock_timestamp();
  END IF;
  NEW.excused := OLD.excused;
  IF OLD.state = 'RUNNING' AND (NEW.state = 'SUGGESTED' OR NEW.attempt > OLD.attempt) AND OLD.excused < 10
     AND (work.was_restarted(OLD.beat_at) OR (is_alive AND NEW.attempt = OLD.attempt))
  THEN
    NEW.excused := OLD.excused + 1;
  END IF;
  RETURN NEW;
END $$;
"""


def upgrade() -> None:
    op.execute(EXCUSE)
