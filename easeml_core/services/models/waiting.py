"""What was handed in and waits for the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.store.tables import studies, waiting

if TYPE_CHECKING:
    from easeml_core.store.database import Store


def waiting_submissions(store: Store, *, study: str | None = None) -> list[dict[str, Any]]:
    """Submissions that no gate was asked about since they came, the oldest first.

    Args:
        store: Any role.
        study: The study, or None for all.

    Returns:
        ``{"submission_id", "study", "model_id"}`` each; at most 1000.

    Raises:
        NotFoundError: There is no such study.
    """
    with store.begin() as tx:
        return waiting.waiting_submissions(tx, None if study is None else studies.get_study(tx, study).id)
