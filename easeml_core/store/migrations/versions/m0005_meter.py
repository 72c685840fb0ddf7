"""The meter's whole life: every method, several teams on a set, budgets in words, alerts whose numbers are in order."""

from alembic import op

revision = "0005"
down_revision = "0004"

READINGS = """
-- edges: the boundaries that were really used, where they were shifted after the submission. tolerance: what was
-- promised with this signal; it follows from the plan and the earlier signals. NULL: as the plan says.
-- submissions_left: of the team; NULL where the set has no last one.
ALTER TABLE work.meter_readings
  ADD COLUMN team integer NOT NULL DEFAULT 1,
  ADD COLUMN edges double precision[],
  ADD COLUMN tolerance double precision,
  ADD COLUMN submissions_left integer,
  ADD CONSTRAINT meter_readings_team_check CHECK (team >= 1),
  ADD CONSTRAINT meter_readings_edges_check
    CHECK (cardinality(edges) = signals - 1 AND array_position(edges, NULL) IS NULL),
  ADD CONSTRAINT meter_readings_tolerance_check CHECK (tolerance > 0 AND tolerance < 1),
  ADD CONSTRAINT meter_readings_left_check CHECK (submissions_left >= 0);
UPDATE work.meter_readings r SET submissions_left = t.steps - r.step FROM work.test_sets t WHERE t.id = r.test_set_id;

ALTER TABLE work.test_sets
  DROP CONSTRAINT test_sets_why_check,
  ADD CONSTRAINT test_sets_why_check
    CHECK (retired_why IN ('steps', 'changes', 'tolerance', 'by hand', 'signals', 'regulation'));

-- A set with an open end serves more answers than it was planned for, as long as it can.
ALTER TABLE sealed.ledger
  ADD COLUMN open_ended boolean NOT NULL DEFAULT false,
  -- Makes all usual entries equally long: how many pages the table has must not tell of the digits in a report.
  ADD COLUMN filler bytea NOT NULL DEFAULT '',
  ALTER COLUMN filler SET STORAGE EXTERNAL,
  DROP CONSTRAINT ledger_step_check,
  ADD CONSTRAINT ledger_step_check CHECK (step >= 1 AND (step <= steps OR open_ended));
"""

ALERTS = """
-- Whether the overfitting budget is broken (what a search is paused for), or a set is retired within it. NULL: not
-- known, of before; or about something else.
ALTER TABLE work.alerts
  ADD COLUMN over_budget boolean,
  ADD CONSTRAINT alerts_budget_check CHECK (over_budget IS NULL OR kind = 'overfitting');

-- Whoever writes an alert holds this row until the end of the transaction: so numbers become visible in their order,
-- and who remembers the last one that was seen misses none. A row can only be locked by who may update a column of it.
GRANT UPDATE (singleton) ON sealed.installation TO easeml_referee;
"""


def upgrade() -> None:
    for block in (READINGS, ALERTS):
        op.execute(block)
