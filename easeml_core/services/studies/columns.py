"""Inputs and outputs of a study's models: input columns in their order, classes by number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.data.layout import Layout, stored_target
from easeml_core.data.parts import load_open_parts
from easeml_core.data.rows.row_format import RowForm
from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.formats.encoding import typed_record
from easeml_core.models.answers import wanted_of
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import DataVersion
    from easeml_core.models.answers import WantedAnswers
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store


@typed_record
class StudyColumns:
    """What a model of a study is given; all None while the study has no data.

    Attributes:
        features: How many input columns there are.
        columns: Their names in the order in which a model gets them; None where they were not kept.
        classes: Names of the classes by number.
    """

    features: int | None
    columns: list[str] | None
    classes: list[str] | None


def study_columns(store: Store, study: str) -> StudyColumns:
    """Return the input columns and classes of a study's newest data."""
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        try:
            version = studies.latest_data_version(tx, found.id)
        except NotFoundError:  # not split yet, or refused
            return StudyColumns(None, None, None)
        columns, classes = studies.feature_names(tx, version.id), studies.class_names(tx, version.id)
        return StudyColumns(version.features, columns, classes)


def answers_of_study(tx: Connection, study_id: int) -> WantedAnswers:
    """Return the form of the models' answers: a class, a number, or several, as in the newest data."""
    found = studies.required_answers(tx, study_id)
    return wanted_of(found.task, stored_target(found.layout))


def require_one_answer(version: DataVersion, what: str) -> None:
    """Require one class or number for each labelled row."""
    target = stored_target(version.layout)
    if target is not None:
        message = (
            f"{what} have one class or number for each row, and the targets of this study are {target.features:,} "
            f"numbers a row ({target.kind}); register another study with the new data"
        )
        raise InvalidInputError(message)


def row_form(tx: Connection, artifacts: ArtifactStore, version: DataVersion) -> RowForm:
    """Return the encoding of rows for the models of a data version."""
    names, classes = studies.feature_names(tx, version.id), studies.class_names(tx, version.id)
    if version.layout is not None:
        layout = Layout.from_json(version.layout)
    else:
        with artifacts.copy(version.artifact) as path:
            layout = load_open_parts(path).layout
    return RowForm(version.features, names, classes, layout, stored_target(version.layout))


def class_numbers(class_names: Sequence[str], *, most: int | None = None) -> str:
    """List the classes with their numbers, at most so many of them.

    Example:
        >>> class_numbers(["no", "yes"])
        '0 = no, 1 = yes'
        >>> class_numbers(["a", "b", "c"], most=2)
        '0 = a, 1 = b and 1 more'
    """
    listed = [f"{number} = {name}" for number, name in enumerate(class_names)]
    shown = listed[:most]
    return ", ".join(shown) + (f" and {len(listed) - len(shown)} more" if len(listed) > len(shown) else "")
