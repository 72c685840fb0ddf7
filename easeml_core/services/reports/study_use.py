"""What a tenant may do with a study by hand: which models answer, what a row looks like, what was fed and refreshed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.data.layout import Layout
from easeml_core.data.split_spec import check_split
from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.services.datasets.refresh import MOST_FEEDS
from easeml_core.services.studies.columns import require_one_answer
from easeml_core.store.tables import data_history, datasets, models, releases, studies

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.entities import DataVersion, Model, Study
    from easeml_core.store.database import Store

MOST_SHOWN = 20


def use_of_study(store: Store, study: str) -> dict[str, Any]:
    """All that the page shows of one study, from one moment.

    Args:
        store: Role ``easeml_worker``.
        study: The study.

    Returns:
        ``{"data", "production", "best", "feeds", "refreshes", "waiting_feeds", "waiting_switches"}``. ``data`` is None
        before the data are sealed, else ``{"version", "kind", "shape", "features", "columns", "classes", "train_rows",
        "no_pairs"}``, the last being why it takes no pairs, or empty; ``production`` and ``best`` are ``{"model_id",
        "candidate"}`` or None; feeds and refreshes are the newest ``MOST_SHOWN``.

    Raises:
        NotFoundError: There is no such study.
    """
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        try:
            data = _data_in_use(tx, found, studies.latest_data_version(tx, found.id))
        except NotFoundError:
            data = None
        return {
            "data": data,
            "production": _model(tx, releases.production_model(tx, found.id)),
            "best": _model(tx, models.best_model_so_far(tx, found.id)),
            "feeds": datasets.list_feeds(tx, found.id, limit=MOST_SHOWN),
            "refreshes": data_history.refresh_history(tx, found.id, limit=MOST_SHOWN),
            "waiting_feeds": len(datasets.waiting_feeds(tx, found.id, limit=MOST_FEEDS)),
            "waiting_switches": len(datasets.waiting_switches(tx, found.id)),
        }


def _data_in_use(tx: Connection, study: Study, version: DataVersion) -> dict[str, Any]:
    layout = None if version.layout is None else Layout.from_json(version.layout)
    return {
        "version": version.version,
        "kind": "table" if layout is None else layout.kind,
        "shape": () if layout is None else layout.shape,
        "features": version.features,
        "columns": studies.feature_names(tx, version.id),
        "classes": studies.class_names(tx, version.id),
        "train_rows": version.train_rows,
        "no_pairs": _no_pairs(study, version),
    }


def _no_pairs(study: Study, version: DataVersion) -> str:
    try:
        require_one_answer(version, "pairs that are fed")
        check_split(study.config.get("split")).require_feedable()
    except InvalidInputError as error:
        return str(error)
    return ""


def _model(tx: Connection, model: Model | None) -> dict[str, Any] | None:
    if model is None:
        return None
    return {"model_id": model.id, "candidate": models.origin(tx, model.id)["candidate"]}
