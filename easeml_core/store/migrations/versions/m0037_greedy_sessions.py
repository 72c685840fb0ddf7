"""Ends sessions of logins that fill the server's table of locks, or keep one transaction open for long (ADR 0032)."""

from alembic import op

revision = "0037"
down_revision = "0036"

# Every savepoint that writes holds a lock until its transaction ends, and no time-out of a session's own stops it. A
# table that is full refuses every new connection. NULL where the owner may not see or end sessions of other roles.
SESSIONS = """
CREATE FUNCTION work.end_sessions(most_locks bigint, longest_seconds double precision) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT (pg_has_role('pg_signal_backend', 'USAGE') AND pg_has_role('pg_read_all_stats', 'USAGE')) THEN
    RETURN NULL;
  END IF;
  RETURN (
    WITH held AS (
      SELECT a.pid, a.xact_start, coalesce(l.n, 0) AS locks, sum(l.n) OVER (PARTITION BY a.usename) AS of_login
      FROM pg_stat_activity a LEFT JOIN (SELECT k.pid, count(*) AS n FROM pg_locks k GROUP BY k.pid) l USING (pid)
      WHERE a.datname = current_database() AND (a.usename = 'easeml_device'
        OR starts_with(a.usename::text, 'easeml_t_') OR starts_with(a.usename::text, 'easeml_d_')))
    SELECT count(pg_terminate_backend(h.pid)) FROM held h
    WHERE (h.of_login > most_locks AND h.locks > most_locks / 50)
      OR h.xact_start < clock_timestamp() - make_interval(secs => longest_seconds));
END $$;
REVOKE EXECUTE ON FUNCTION work.end_sessions(bigint, double precision) FROM PUBLIC;
"""


def upgrade() -> None:
    op.execute(SESSIONS)
