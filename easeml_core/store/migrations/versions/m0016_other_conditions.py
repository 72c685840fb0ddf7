"""Answers about other conditions than the one sealed with a set use none of its steps and are never a change."""

from alembic import op

revision = "0016"
down_revision = "0015"

# Their place in the ledger is beyond the set's own steps; ``system_steps`` is how many of them the plan has.
LEDGER = """
ALTER TABLE sealed.ledger
  DROP CONSTRAINT ledger_system_check,
  ADD CONSTRAINT ledger_system_check CHECK (system IN ('gate', 'meter', 'other')),
  DROP CONSTRAINT ledger_step_check,
  ADD CONSTRAINT ledger_step_check CHECK (step >= 1 AND (step <= steps OR open_ended OR system = 'other')),
  ADD CONSTRAINT ledger_other_check CHECK (system <> 'other' OR (step = steps + system_step AND NOT is_change));
"""


def upgrade() -> None:
    op.execute(LEDGER)
