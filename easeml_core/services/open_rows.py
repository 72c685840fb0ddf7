"""Rows that developers can see, or could: training and validation parts of all versions of a study's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.store import sealed, validation
from easeml_core.training.parts import load_open_parts

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.store.artifacts import ArtifactStore


def validated_hashes(tx: Connection, artifacts: ArtifactStore, study_id: int) -> set[bytes]:
    """Hashes of all rows that are or were in a validation part of the study, replaced ones too.

    Raises:
        ArtifactError: The file of a data version is missing or was changed.
    """
    found: set[bytes] = set()
    for part in validation.validation_parts(tx, study_id):
        with artifacts.copy(part.artifact) as path:
            found.update(sealed.example_hashes(load_open_parts(path).validation_inputs))
    return found
