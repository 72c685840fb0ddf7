"""Which earlier validation part a version of the data goes on with, so that SQL can tell a few new rows from a new set.

Whether most rows were there before shows only in the open parts, which are files. An alert about a validation set is
served once the study has moved on from it (``store.alert_state``), and is looked up far too often to read them.
"""

from alembic import op

revision = "0011"
down_revision = "0010"

# Versions that were made before this was kept count as new sets, as they did then.
GOES_ON = """
-- NULL where most validation rows are new, and where the training part is: then the validation part is that of the
-- version before.
ALTER TABLE work.data_versions
  ADD COLUMN goes_on_with bigint,
  ADD CONSTRAINT data_versions_goes_on_fkey FOREIGN KEY (goes_on_with, study_id)
    REFERENCES work.data_versions (id, study_id),
  ADD CONSTRAINT data_versions_goes_on_check CHECK (goes_on_with < id);
"""


def upgrade() -> None:
    op.execute(GOES_ON)
