"""The names of the studies, to choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import StudyState
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from easeml_core.store.database import Store


def study_names(store: Store, *, limit: int = 1000) -> list[str]:
    """Names of the studies that were not refused, in alphabetical order, so many at most."""
    with store.begin() as tx:
        found = studies.list_studies(tx)
    return sorted({study.name for study in found if study.state != StudyState.REFUSED})[:limit]
