"""What follows from sealed labels is moved out of its row always, whatever it says.

PostgreSQL numbers each value that it moves out of a row with a counter from which every role can draw: with
``ALTER DEFAULT PRIVILEGES``, which needs no right. Whether a value is moved followed from its compressed length.
"""

from alembic import op

revision = "0049"
down_revision = "0048"

# A row of these tables is longer than what stays in place: with its filler (``store/rows.py``) beyond 2,032 bytes. Then
# PostgreSQL moves EXTERNAL values, the longest first, until 128 bytes are left, which what stays (MAIN) and any one
# value exceed. So every such value is moved, uncompressed, and draws one number.
STORAGE = """
ALTER TABLE sealed.ledger
  ALTER COLUMN report SET STORAGE EXTERNAL,
  ALTER COLUMN cache_key SET STORAGE MAIN,
  ALTER COLUMN answer SET STORAGE MAIN,
  ALTER COLUMN system SET STORAGE MAIN,
  SET (toast_tuple_target = 128);
ALTER TABLE sealed.outbox
  ADD COLUMN filler bytea NOT NULL DEFAULT '',
  ALTER COLUMN filler SET STORAGE EXTERNAL,
  ALTER COLUMN facts SET STORAGE EXTERNAL,
  ALTER COLUMN message SET STORAGE MAIN,
  SET (toast_tuple_target = 128);
ALTER TABLE sealed.mails
  ADD COLUMN filler bytea NOT NULL DEFAULT '',
  ALTER COLUMN filler SET STORAGE EXTERNAL,
  ALTER COLUMN body SET STORAGE EXTERNAL,
  ALTER COLUMN recipient SET STORAGE MAIN,
  ALTER COLUMN subject SET STORAGE MAIN,
  SET (toast_tuple_target = 128);
ALTER TABLE sealed.predictions
  ADD COLUMN filler bytea NOT NULL DEFAULT '',
  ALTER COLUMN filler SET STORAGE EXTERNAL,
  ALTER COLUMN failure SET STORAGE EXTERNAL,
  ALTER COLUMN model SET STORAGE MAIN,
  ALTER COLUMN isolation SET STORAGE MAIN,
  SET (toast_tuple_target = 128);
-- An entry of a chain can state hashes of labels: as long as others of its kind, where it is not compressed.
ALTER TABLE sealed.chain ALTER COLUMN content SET STORAGE EXTERNAL;
"""


def upgrade() -> None:
    op.execute(STORAGE)
