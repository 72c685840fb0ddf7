"""What a labeler reads: the cells of examples whose labels are asked for, as they were brought.

A text becomes numbers when a set is sealed, and nobody can label those.
"""

from alembic import op

revision = "0009"
down_revision = "0008"

CELLS = """
-- Names of the columns as they were brought, where the cells are kept: of sets that ask for labels and have words.
ALTER TABLE sealed.test_sets ADD COLUMN cell_names jsonb;

-- One row an example, all written when the set is sealed: how many there are tells nothing of labels.
CREATE TABLE sealed.cells (
  test_set_id  bigint NOT NULL CONSTRAINT cells_test_set_fkey REFERENCES sealed.test_sets,
  place        integer NOT NULL,
  cells        jsonb NOT NULL,
  CONSTRAINT cells_pkey PRIMARY KEY (test_set_id, place),
  CONSTRAINT cells_place_check CHECK (place >= 0),
  CONSTRAINT cells_cells_check CHECK (jsonb_typeof(cells) = 'array')
);
GRANT SELECT, INSERT ON sealed.cells TO easeml_referee;
GRANT UPDATE (cell_names) ON sealed.test_sets TO easeml_referee;
"""


def upgrade() -> None:
    op.execute(CELLS)
