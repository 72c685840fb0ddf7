"""Restarts of the installation, and which attempts at a trial were lost to them.

An attempt is excused where the installation was restarted after its last heartbeat: the database server began after it,
or the owner, or a referee, has recorded a restart since. The role of tasks can write neither, nor move a heartbeat.
"""

from alembic import op

revision = "0018"
down_revision = "0017"

RESTARTS = """
-- what: 'server' for a start of the database, which a referee records; 'deployment' for an upgrade of the schema;
-- 'stated' for one that a person has recorded.
CREATE TABLE work.restarts (
  id      bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT restarts_pkey PRIMARY KEY,
  what    text NOT NULL,
  at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  reason  text,
  CONSTRAINT restarts_what_check CHECK (what IN ('server', 'deployment', 'stated')),
  CONSTRAINT restarts_at_check CHECK (at >= '2000-01-01 00:00+00' AND at < '3000-01-01 00:00+00'),
  CONSTRAINT restarts_reason_check CHECK (
    (what = 'stated') = (reason IS NOT NULL) AND reason ~ '^[^[:cntrl:]]{1,200}$' AND reason ~ '[^[:space:]]'),
  CONSTRAINT restarts_once_key UNIQUE (what, at)
);
CREATE INDEX restarts_at_idx ON work.restarts (at);
GRANT SELECT ON work.restarts TO easeml_worker, easeml_referee;
GRANT INSERT (what, at) ON work.restarts TO easeml_referee;
CREATE FUNCTION work.restarts_of_referee() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.what <> 'server' OR NEW.at <> pg_postmaster_start_time())
     AND NOT pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE')
  THEN
    RAISE EXCEPTION 'only the owner records another restart than the start of the database server'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'restarts_of_referee_check';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER restarts_of_referee BEFORE INSERT ON work.restarts
  FOR EACH ROW EXECUTE FUNCTION work.restarts_of_referee();

CREATE FUNCTION work.was_restarted(since timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce(pg_postmaster_start_time() > since, false)
    OR EXISTS (SELECT 1 FROM work.restarts WHERE at > since AND at <= clock_timestamp())
$$;
"""

TRIALS = """
-- beat_at: the last heartbeat of the newest attempt, or its start. excused: attempts lost to a restart, at most
-- 10, since a training may be what brings a machine down.
ALTER TABLE work.trials
  ADD COLUMN beat_at timestamptz,
  ADD COLUMN excused integer NOT NULL DEFAULT 0,
  ADD CONSTRAINT trials_excused_check CHECK (excused >= 0 AND excused <= least(attempt, 10));
GRANT UPDATE (beat_at) ON work.trials TO easeml_worker;

-- Whoever writes a heartbeat writes now. Whoever takes a lease away lets the database say whether that is excused.
CREATE FUNCTION work.trials_excuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.attempt > OLD.attempt OR NEW.beat_at IS DISTINCT FROM OLD.beat_at THEN
    NEW.beat_at := clock_timestamp();
  END IF;
  NEW.excused := OLD.excused;
  IF OLD.state = 'RUNNING' AND (NEW.state = 'SUGGESTED' OR NEW.attempt > OLD.attempt)
     AND OLD.excused < 10 AND work.was_restarted(OLD.beat_at)
  THEN
    NEW.excused := OLD.excused + 1;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER trials_excuse BEFORE UPDATE ON work.trials FOR EACH ROW EXECUTE FUNCTION work.trials_excuse();
"""


def upgrade() -> None:
    op.execute(RESTARTS)
    op.execute(TRIALS)
