"""What a model of a study is given, and what it answers with: input columns in their order, classes by number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.errors import NotFoundError
from easeml_core.store import studies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.store.database import Store


def study_columns(store: Store, study: str) -> dict[str, Any]:
    """Input columns and classes of a study's newest data.

    Args:
        store: Any role.
        study: The study.

    Returns:
        ``{"features", "columns", "classes"}``: how many input columns there are, their names in the order in which a
        model gets them (None where they were not kept), and the names of the classes by number. All None while the
        study has no data.

    Raises:
        NotFoundError: There is no such study.
    """
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        try:
            version = studies.latest_data_version(tx, found.id)
        except NotFoundError:  # not split yet, or refused
            return {"features": None, "columns": None, "classes": None}
        return {
            "features": version.features,
            "columns": studies.feature_names(tx, version.id),
            "classes": studies.class_names(tx, version.id),
        }


def class_numbers(class_names: Sequence[str], *, most: int | None = None) -> str:
    """The classes with their numbers, at most so many of them.

    Example:
        >>> class_numbers(["no", "yes"])
        '0 = no, 1 = yes'
        >>> class_numbers(["a", "b", "c"], most=2)
        '0 = a, 1 = b and 1 more'
    """
    listed = [f"{number} = {name}" for number, name in enumerate(class_names)]
    shown = listed[:most]
    return ", ".join(shown) + (f" and {len(listed) - len(shown)} more" if len(listed) > len(shown) else "")
