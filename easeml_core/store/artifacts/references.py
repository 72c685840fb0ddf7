"""Which files of the artifact store rows name: one list for moving files, and for finding those that no row names."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.store.rows import rows

if TYPE_CHECKING:
    from sqlalchemy import Connection

_OF_STUDY = """
SELECT study_id, artifact, 'data version ' || id AS named_by, false AS is_claimed FROM work.data_versions
UNION ALL SELECT study_id, artifact, 'model ' || id, submitted FROM work.models WHERE removed_at IS NULL
UNION ALL SELECT study_id, artifact, 'feed ' || id, true FROM work.feeds
UNION ALL SELECT study_id, artifact, 'set ' || id, false FROM work.test_sets WHERE artifact IS NOT NULL
UNION ALL SELECT study_id, off, 'refresh ' || request_id, false FROM work.refreshes WHERE off IS NOT NULL
UNION ALL SELECT c.study_id, p.value, 'candidate ' || c.id, true
  FROM work.candidates c, jsonb_each_text(c.parameters) p WHERE p.value ~ '^sha256:[0-9a-f]{64}$'
"""

NAMED_FILES = f"""
SELECT t.name AS tenant, n.artifact, n.named_by, n.is_claimed FROM ({_OF_STUDY}) n
JOIN work.studies s ON s.id = n.study_id JOIN work.tenants t ON t.id = s.tenant_id ORDER BY 1, 2, 3
"""
"""SQL: tenant, reference, and the row that names it, for every file that some row needs. Checkpoints are apart."""


class NamedFile(NamedTuple):
    """A file of the artifact store that a row names.

    Attributes:
        tenant: Whose study the row belongs to: in whose folder the file lies.
        reference: ``sha256:<hex>``.
    """

    tenant: str
    reference: str


def named_files(tx: Connection) -> set[NamedFile]:
    """Return all files that rows name. Role ``easeml_owner`` or ``easeml_referee``: a tenant's login sees its own."""
    return {NamedFile(row.tenant, row.artifact) for row in rows(tx, NAMED_FILES)}


def claimed_files(tx: Connection) -> set[NamedFile]:
    """Return the files that only such rows of a tenant name as it writes itself, while another tenant names them too.

    A tenant can write any hash into a candidate, a feed or a submission: that does not make the file its own.
    """
    found = rows(tx, NAMED_FILES)
    tenants_of = defaultdict(set)
    for row in found:
        tenants_of[row.artifact].add(row.tenant)
    made = {NamedFile(row.tenant, row.artifact) for row in found if not row.is_claimed}
    shared = {NamedFile(row.tenant, row.artifact) for row in found if len(tenants_of[row.artifact]) > 1}
    return shared - made
