"""Rows for a study's next validation set: from files, or from a released test set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.rows.cells import cells_of_inputs
from easeml_core.data.rows.matching import COINCIDENCE
from easeml_core.data.rows.row_files import read_named_rows
from easeml_core.data.rows.row_tables import shown as quoted
from easeml_core.errors import AlreadyExistsError, InvalidInputError, StateError
from easeml_core.services.test_sets.compared_rows import new_rows
from easeml_core.services.test_sets.lifecycle import find_set
from easeml_core.services.test_sets.release import is_known, released_arrays
from easeml_core.services.test_sets.row_registry import look_up, register
from easeml_core.store.tables import studies, test_sets, validation_sets
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.data.parts import OpenParts
    from easeml_core.data.rows.row_format import RowForm
    from easeml_core.entities import DataVersion, Study
    from easeml_core.store.artifacts.local import ArtifactStore

_COINCIDENCE = 1 / 20
"""Largest share of rows in other tenants' sets that counts as coincidence, as at registration."""


@dataclass(frozen=True, slots=True, eq=False)
class Brought:
    """Labelled rows.

    Attributes:
        origin: Where they come from, for messages.
        inputs: float32, shape (rows, features).
        labels: Shape (rows,): int64 classes, or numbers; (rows, numbers) where answers are several.
        hashes: Of each row's inputs.
        columns: Names of the inputs, as they are kept with the study's data; None where they are not.
        names: The name of each row, with its line where there is one.
    """

    origin: str
    inputs: NDArray[np.float32]
    labels: NDArray[Any]
    hashes: Sequence[bytes]
    columns: Sequence[str] | None
    names: Sequence[str]


def brought_files(inputs: Path, labels: Path | None, form: RowForm) -> Brought:
    """Return the labelled rows of files or folders, in the encoding of the study's data."""
    rows = read_named_rows(inputs, labels, form)
    if rows.labels is None:
        message = (
            f"{inputs} has no labels; give them with --labels, or in it: images in a sub-folder for each class, "
            "targets.npy beside inputs.npy"
        )
        raise InvalidInputError(message)
    hashes = example_hashes(rows.inputs, form.feature_names)
    names = [rows.file.place(row) for row in range(len(rows.inputs))]
    return Brought(str(inputs), rows.inputs, rows.labels, hashes, form.feature_names, names)


def rows_of_set(
    tx: Connection, artifacts: ArtifactStore, test_set: str | int, study: str, version: DataVersion
) -> Brought:
    """Return the rows of a released test set of the study.

    A set that was labelled on demand has labels of the examples that verdicts asked for: disagreements, or those looked
    at until one was certain. A loss on them is not that on all, so such a set is taken with all its labels only.
    """
    found = find_set(tx, test_set, study)
    if found.artifact is None:
        message = (
            f"test set {found.called!r} is {found.state}; only a released one can be validated on: "
            f"`easeml test-set release {found.called} --study {study}`, once it is retired"
        )
        raise StateError(message)
    with artifacts.copy(found.artifact) as path:
        arrays = released_arrays(path)
    inputs, known = arrays["inputs"], is_known(arrays["labels"])
    if inputs.shape[1:] != (version.features,):
        message = f"test set {found.called!r} has other columns than the study's data"
        raise InvalidInputError(message)
    if not known.all():
        message = (
            f"test set {found.called!r} has labels of {int(known.sum()):,} of its {len(known):,} examples alone: those "
            "that verdicts asked for, such as disagreements of two models, which are no random sample of it. Label the "
            f"others too (`easeml test-set fetch {found.called} --to FILE.csv` shows which) and bring all of them with "
            "--inputs and --labels, or take a set that was sealed with its labels"
        )
        raise InvalidInputError(message)
    names = [f"example {quoted(str(key))}" for key in arrays["keys"]]
    origin, columns = f"test set {found.called!r}", studies.feature_names(tx, version.id)
    return Brought(origin, inputs, arrays["labels"], example_hashes(inputs, columns), columns, names)


def require_open(tx: Connection, study: Study, brought: Brought, parts: OpenParts) -> None:
    """Refuse rows that models learn from or that are sealed: developers see the validation part."""
    trained = set(example_hashes(parts.train_inputs, brought.columns))
    seen = {h: "in the training part: a model knows their labels" for h in trained.intersection(brought.hashes)}
    if not seen:
        sets = validation_sets.hidden_from(tx, study.id, brought.hashes)
        seen = {h: _sealed_in(tx, set_id) for h, set_id in sets.items()}
    if seen:
        count = sum(h in seen for h in brought.hashes)
        row = next(row for row, h in enumerate(brought.hashes) if h in seen)
        message = (
            f"{brought.origin}: {count:,} of {len(brought.hashes):,} rows cannot be validated on, the first of them "
            f"{brought.names[row]}, is {seen[brought.hashes[row]]}"
        )
        raise InvalidInputError(message)
    if validation_sets.hidden_by_others(tx, study.id, brought.hashes) > _COINCIDENCE * len(brought.hashes):
        raise AlreadyExistsError(
            kind="table", name=brought.origin, remedy="another tenant's study has sealed its examples"
        )


def registered_open(
    tx: Connection, artifacts: ArtifactStore, study: Study, brought: Brought, parts: OpenParts
) -> tuple[Brought, int]:
    """Register the rows that may be opened; they are open from now on."""
    new = new_rows(tx, cells_of_inputs(brought.inputs, brought.columns, parts.layout))
    found = look_up(tx, artifacts, study, new)
    exact = np.flatnonzero(found.is_sealed & found.is_exact)
    known = found.is_sealed & found.is_certain
    if len(exact) or found.is_set_copied or float(np.mean(known)) > COINCIDENCE:
        row = int(exact[0]) if len(exact) else int(np.argmax(found.is_sealed))
        message = (
            f"{brought.origin}: {int(found.is_sealed.sum()):,} of {len(brought.names):,} rows cannot be validated on, "
            f"the first of them {brought.names[row]}, is sealed in a test set that is not released"
        )
        raise InvalidInputError(message)
    left = np.flatnonzero(~found.is_sealed)
    register(tx, study.id, new, {None: left}, found)
    kept = replace(
        brought,
        inputs=brought.inputs[left],
        labels=brought.labels[left],
        hashes=[brought.hashes[row] for row in left.tolist()],
        names=[brought.names[row] for row in left.tolist()],
    )
    return kept, len(brought.names) - len(left)


def _sealed_in(tx: Connection, set_id: int) -> str:
    name = test_sets.get_set(tx, set_id).called
    return f"in test set {name!r}, which is not released; use it with --from-set once it is"
