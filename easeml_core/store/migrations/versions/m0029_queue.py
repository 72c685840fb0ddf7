"""The referees' queue: tenants take turns, and every role may read a request's place and whether a referee lives."""

from alembic import op

revision = "0029"
down_revision = "0028"

QUEUE = """
-- When a request of the tenant was last taken up: of two tenants the other one comes first.
CREATE TABLE sealed.turns (
  tenant_id  bigint CONSTRAINT turns_pkey PRIMARY KEY CONSTRAINT turns_tenant_fkey REFERENCES work.tenants,
  taken_at   timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_enabled = false, fillfactor = 50);
GRANT SELECT, INSERT, UPDATE (taken_at) ON sealed.turns TO easeml_referee;

-- Whether a referee lives, for every role, with the settings that an estimate needs. It is written at a fixed interval,
-- whatever the process works on, so that it tells nothing about a request.
CREATE TABLE work.heartbeats (
  referee_id      bigint CONSTRAINT heartbeats_pkey PRIMARY KEY
                  CONSTRAINT heartbeats_referee_fkey REFERENCES sealed.referees,
  workers         integer NOT NULL CONSTRAINT heartbeats_workers_check CHECK (workers BETWEEN 1 AND 64),
  answer_seconds  double precision NOT NULL
                  CONSTRAINT heartbeats_answer_check CHECK (answer_seconds BETWEEN 0 AND 2592000),
  beat_at         timestamptz NOT NULL,
  until           timestamptz NOT NULL,
  CONSTRAINT heartbeats_until_check CHECK (until >= beat_at AND until <= beat_at + interval '1 hour')
) WITH (fillfactor = 50);
GRANT SELECT ON work.heartbeats TO easeml_worker, easeml_referee;
GRANT INSERT, UPDATE (beat_at, until) ON work.heartbeats TO easeml_referee;

-- Counts of requests without a published answer, whatever has been decided: no row for an answered request.
CREATE FUNCTION work.queue_place(of_request bigint, most integer)
RETURNS TABLE (is_long boolean, short_ahead integer, long_ahead integer)
LANGUAGE sql STABLE AS $$
  WITH waiting AS MATERIALIZED (
    SELECT r.id, r.kind IN ('gate', 'meter') AS is_long,
      row_number() OVER (PARTITION BY s.tenant_id, r.kind IN ('gate', 'meter') ORDER BY r.id) AS turn
    FROM (SELECT q.id, q.kind, q.study_id FROM work.requests q ORDER BY q.id DESC LIMIT most) r
    JOIN work.studies s ON s.id = r.study_id
    WHERE NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = r.id))
  SELECT m.is_long, count(o.id) FILTER (WHERE NOT o.is_long)::integer, count(o.id) FILTER (WHERE o.is_long)::integer
  FROM waiting m LEFT JOIN waiting o ON (o.is_long, o.turn, o.id) < (m.is_long, m.turn, m.id)
  WHERE m.id = of_request GROUP BY m.id, m.is_long
$$;

REVOKE ALL ON FUNCTION work.queue_place(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work.queue_place(bigint, integer) TO easeml_worker, easeml_referee;
"""


def upgrade() -> None:
    op.execute(QUEUE)
