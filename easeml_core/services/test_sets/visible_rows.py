"""Rows that developers can or could see: those of all versions of a study's data, and fed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.data.parts import load_open_parts
from easeml_core.data.rows.labeled_pairs import pairs_like
from easeml_core.errors import ArtifactError, InvalidInputError
from easeml_core.store.artifacts.remote import is_of_store
from easeml_core.store.tables import datasets, studies, validation_sets
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from easeml_core.data.parts import OpenParts
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.tables.validation_sets import ValidationPart


MOST_WAITING = 10_000
"""Largest number of waiting feeds that are read."""


def part_hashes(tx: Connection, artifacts: ArtifactStore, parts: Iterable[ValidationPart]) -> list[set[bytes]]:
    """Return the hashes of the rows of each of these validation parts.

    Raises:
        ArtifactError: The file of a data version is missing or was changed.
    """
    found = []
    for part in parts:
        with artifacts.copy(part.artifact) as path:
            inputs = load_open_parts(path).validation_inputs
        found.append(set(example_hashes(inputs, studies.feature_names(tx, part.id))))
    return found


def validated_hashes(tx: Connection, artifacts: ArtifactStore, study_id: int) -> set[bytes]:
    """Return the hashes of all rows that are or were in a validation part of the study.

    Raises:
        ArtifactError: The file of a data version is missing or was changed.
    """
    return set[bytes]().union(*part_hashes(tx, artifacts, validation_sets.validation_parts(tx, study_id)))


def fed_hashes(tx: Connection, artifacts: ArtifactStore, study_id: int, parts: OpenParts) -> set[bytes]:
    """Return the hashes of the rows of waiting feeds, and of those that the training part leaves out.

    An invalid file is skipped: its own refresh will refuse it. One that cannot be read now is not.

    Args:
        tx: A transaction of any role.
        artifacts: Holds them.
        study_id: The study.
        parts: Its newest open parts, whose form they have.
    """
    columns = studies.feature_names(tx, studies.latest_data_version(tx, study_id).id)
    waiting = [feed.artifact for feed in datasets.waiting_feeds(tx, study_id, limit=MOST_WAITING)]
    found = set[bytes]()
    for reference in filter(None, [datasets.switched_off(tx, study_id), *waiting]):
        try:
            with artifacts.copy(reference) as path:
                pairs = pairs_like(path, parts)
        except (ArtifactError, InvalidInputError) as error:
            if is_of_store(error):
                raise
            continue
        found.update(example_hashes(pairs.inputs, columns))
    return found
