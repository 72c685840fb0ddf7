"""Rows that developers can see, or could: training and validation parts of all versions of a study's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.store import studies, validation
from easeml_core.store.example_hashes import example_hashes
from easeml_core.training.parts import load_open_parts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.validation import ValidationPart


def part_hashes(tx: Connection, artifacts: ArtifactStore, parts: Iterable[ValidationPart]) -> list[set[bytes]]:
    """Hashes of the rows of each of these validation parts.

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
    """Hashes of all rows that are or were in a validation part of the study, replaced ones too.

    Raises:
        ArtifactError: The file of a data version is missing or was changed.
    """
    return set[bytes]().union(*part_hashes(tx, artifacts, validation.validation_parts(tx, study_id)))
