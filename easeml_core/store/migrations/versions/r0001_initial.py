"""The schema as it was first released: statements by subject in ``migrations/initial``, executed in this order."""

from pathlib import Path

from alembic import op

from easeml_core.store.tables.chain import open_missing

revision = "r0001"
down_revision = None

STATEMENTS = Path(__file__).parents[1] / "initial"
SUBJECTS = (
    *("callers", "studies", "trials", "selection", "models", "sealed_sets", "requests", "ledger", "limits"),
    *("evidence", "operations", "changes", "rights"),
)


def upgrade() -> None:
    for subject in SUBJECTS:
        op.execute((STATEMENTS / f"{subject}.sql").read_text(encoding="utf-8"))
    open_missing(op.get_bind())
