"""What a night has to hand in: each study's best model, unless it stands already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.entities import StudyState
from easeml_core.store.tables import models, releases, studies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.store.database import Store


def best_models(store: Store, *, studies_only: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Best model of every active study that has one which is not in production.

    Args:
        store: Any role.
        studies_only: Names of the studies to look at; None for all active ones.

    Returns:
        ``[{"study", "model_id", "quality"}]`` by study name; quality in [0, 1] on the validation part.

    Raises:
        NotFoundError: One of the studies does not exist.
    """
    found = []
    with store.begin() as tx:
        names = None if studies_only is None else {studies.get_study(tx, name).name for name in studies_only}
        for study in studies.list_studies(tx, state=StudyState.ACTIVE):
            best = models.best_model(tx, study.id) if names is None or study.name in names else None
            production = releases.production_model(tx, study.id)
            if best is not None and (production is None or production.identity != best.identity):
                quality = models.observed_quality(tx, best.id)
                found.append({"study": study.name, "model_id": best.id, "quality": quality})
    return found
