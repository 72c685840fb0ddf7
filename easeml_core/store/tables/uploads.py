"""Studies whose data somebody has uploaded, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from easeml_core.entities import StudyState
from easeml_core.store.rows import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


class UploadUse(NamedTuple):
    """A study's source that names an upload, and how far the study is."""

    tenant: str
    source: str
    state: StudyState


def uses_of_uploads(tx: Connection, days: Sequence[str]) -> list[UploadUse]:
    """Who uses uploads of these days (``YYYY-MM-DD``); a source with such a name may still be malformed."""
    found = rows(
        tx,
        "SELECT DISTINCT t.name AS tenant, d.source, s.state FROM work.studies s "
        "JOIN work.data_sets d ON d.id = s.data_set_id JOIN work.tenants t ON t.id = s.tenant_id "
        "WHERE substring(d.source FROM '^[a-z]+:upload:(.{10})/') = ANY (:days)",
        days=list(days),
    )
    return [UploadUse(r.tenant, r.source, StudyState(r.state)) for r in found]
