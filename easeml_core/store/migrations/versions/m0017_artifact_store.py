"""The artifact store of the installation: one row, added by the first that uses one, changed by the owner alone."""

from alembic import op

revision = "0017"
down_revision = "0016"

PLACE = """
CREATE TABLE work.artifact_store (
  singleton  boolean NOT NULL DEFAULT true CONSTRAINT artifact_store_pkey PRIMARY KEY,
  store_id   text NOT NULL,
  place      text NOT NULL,
  set_at     timestamptz NOT NULL DEFAULT now(),
  set_by     text NOT NULL DEFAULT session_user,
  CONSTRAINT artifact_store_singleton_check CHECK (singleton),
  CONSTRAINT artifact_store_id_check CHECK (store_id ~ '^[0-9a-f]{32}$'),
  CONSTRAINT artifact_store_place_check CHECK (place ~ '[^[:space:]]' AND length(place) <= 4000)
);
-- A worker may add the row where there is none, and never change it: whoever could would send the models of all others
-- to a folder of its own.
GRANT SELECT, INSERT (store_id, place) ON work.artifact_store TO easeml_worker, easeml_referee;
"""


def upgrade() -> None:
    op.execute(PLACE)
