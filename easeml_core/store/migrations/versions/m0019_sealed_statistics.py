"""No vacuum or analyze by itself on any sealed table: the catalogue, which every role may read, then learns no count.

Whoever runs VACUUM or ANALYZE by hand writes the counts there. That nobody but the owner may read them is for a
superuser to arrange (``store/roles.py``, docs/install.md).
"""

from alembic import op

revision = "0019"
down_revision = "0018"

STATISTICS = """
DO $$
DECLARE sealed_table regclass; kept text;
BEGIN
  FOR sealed_table, kept IN
    SELECT oid, CASE WHEN reltoastrelid <> 0 THEN ', toast.autovacuum_enabled = false' ELSE '' END
    FROM pg_catalog.pg_class WHERE relnamespace = 'sealed'::regnamespace AND relkind = 'r'
  LOOP
    EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = false%s)', sealed_table, kept);
  END LOOP;
END $$;
"""


def upgrade() -> None:
    op.execute(STATISTICS)
