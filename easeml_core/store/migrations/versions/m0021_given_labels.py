"""An entry of a set's chain states the labels that were given on demand and that a verdict may have used."""

from alembic import op

revision = "0021"
down_revision = "0020"

KIND = """
ALTER TABLE sealed.chain DROP CONSTRAINT chain_kind_check;
ALTER TABLE sealed.chain ADD CONSTRAINT chain_kind_check CHECK (CASE
  WHEN kind IN ('ledger', 'verdict', 'reading', 'audit', 'promotion') THEN subject IS NOT NULL AND content IS NULL
  WHEN kind IN ('genesis', 'key', 'acknowledged', 'labels') THEN subject IS NULL AND content IS NOT NULL
  ELSE false END);
"""


def upgrade() -> None:
    op.execute(KIND)
