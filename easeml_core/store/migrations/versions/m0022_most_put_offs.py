"""A row of a request that was put off says how often it may be: the setting of the referee that put it off."""

from alembic import op

revision = "0022"
down_revision = "0021"

MOST = """
ALTER TABLE sealed.put_offs
  ADD COLUMN most integer,
  ADD CONSTRAINT put_offs_most_check CHECK (most IS NULL OR (bounded AND most >= 1));
"""


def upgrade() -> None:
    op.execute(MOST)
