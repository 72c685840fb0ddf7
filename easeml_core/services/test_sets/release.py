"""Release a retired test set, whose examples become public data; delete one that never served (ADR 0035).

Of a deleted set rows, labels and predictions go, and its chain states that. The registry of rows keeps them as sealed:
deleting a set opens none of them, and no set takes them again, so a deletion tells nothing and gives no answer back.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.rows.row_tables import KEY
from easeml_core.entities import SealedSetState
from easeml_core.errors import ArtifactError, InvalidInputError, StateError
from easeml_core.files.local import ARCHIVE_FAULTS, scratch_folder, written_whole
from easeml_core.formats.csv_text import GuardedWriter
from easeml_core.formats.encoding import typed_record
from easeml_core.services.studies.limits import MOST_REASON
from easeml_core.services.test_sets.lifecycle import ShownSet, find_set, shown
from easeml_core.settings.config import require
from easeml_core.store.database import notify
from easeml_core.store.tables import labels, releases, row_registry, sealed, studies, test_sets
from easeml_core.store.tables.chained_rows import of_set

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.services.evidence.notary import Notary
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.test_sets import SealedSet


@typed_record
class FetchedSet:
    """A released set that was written into a file.

    Attributes:
        test_set_id: Its number.
        rows: Examples.
        labelled: How many of them have a label.
        file: The file.
    """

    test_set_id: int
    rows: int
    labelled: int
    file: str


def release_test_set(
    store: Store, artifacts: ArtifactStore, *, test_set: str | int, study: str | None = None
) -> ShownSet:
    """Publish the examples of a retired set, as data to validate on. Repeatable."""
    with store.begin() as tx:
        found = find_set(tx, test_set, study)
        labels.hold_set(tx, found.id)
        found = test_sets.get_set(tx, found.id)
        if found.state != SealedSetState.RELEASED:
            if found.state != SealedSetState.RETIRED:
                raise StateError(_not_retired(found))
            _require_in_use_nowhere(tx, found)
            test_sets.release(tx, found.id, _put(tx, artifacts, found))
            row_registry.open_released(tx, found.id)
            notify(tx, f"study:{found.study}")
        return shown(test_sets.get_set(tx, found.id))


def _not_retired(found: SealedSet) -> str:
    return (
        f"test set {found.called!r} is {found.state}; only a retired one can be released, since a user who has its "
        f"examples can pass any gate on it; retire it first with `easeml test-set retire {found.called}`"
    )


def _require_in_use_nowhere(tx: Connection, found: SealedSet) -> None:
    """Refuse to release a set with an example in another one that is live or waits: its label would be public."""
    shared = sealed.in_use_elsewhere(tx, found.id) or row_registry.unreleased_holder(tx, found.id)
    if shared is None:
        return
    other, examples = test_sets.get_set(tx, shared[0]), shared[1]
    if studies.study_by_id(tx, other.study_id).tenant != studies.study_by_id(tx, found.study_id).tenant:
        message = (
            f"examples of test set {found.called!r} lie in a test set of another tenant that is in use; release this "
            "one once that one is retired"
        )
        raise StateError(message)
    message = (
        f"{examples:,} of the {found.rows:,} examples of test set {found.called!r} lie in test set "
        f"{other.called!r} of study {other.study!r} too, which is {other.state}; release this one once that one is "
        f"retired (`easeml test-set retire {other.called} --study {other.study}`)"
    )
    raise StateError(message)


def _put(tx: Connection, artifacts: ArtifactStore, found: SealedSet) -> str:
    """Write the examples of a set into the artifact store; return the reference."""
    if not sealed.is_sealed(tx, found.id):
        message = f"test set {found.called!r} was only planned and holds no examples; there is nothing to release"
        raise StateError(message)
    names = studies.feature_names(tx, found.data_version_id) or []
    artifacts = artifacts.of_tenant(studies.study_by_id(tx, found.study_id).tenant)
    with scratch_folder("release") as folder:
        path = Path(folder) / "test_set.npz"
        with path.open("wb") as file:
            np.savez(
                file,
                inputs=sealed.sealed_inputs(tx, found.id),
                labels=labels.known_labels(tx, found.id),
                keys=np.array(sealed.sealed_keys(tx, found.id)),
                class_names=np.array(studies.class_names(tx, found.data_version_id)),
                feature_names=np.array(names, dtype=np.str_),
            )
        return artifacts.put(path)


def fetch_test_set(
    store: Store, artifacts: ArtifactStore, *, test_set: str | int, to: Path, study: str | None = None
) -> FetchedSet:
    """Write a released set into a file: ``.npz`` with arrays, or ``.csv`` with keys, inputs and class names."""
    if to.suffix not in (".npz", ".csv"):
        message = f"{to} must end in .npz or .csv"
        raise InvalidInputError(message)
    with store.begin() as tx:
        found = find_set(tx, test_set, study)
        artifacts = artifacts.of_tenant(studies.study_by_id(tx, found.study_id).tenant)
    if found.artifact is None:
        message = f"test set {found.called!r} is {found.state}; only a released one can be fetched"
        raise StateError(message)
    with artifacts.copy(found.artifact) as path:
        arrays = released_arrays(path)
        if to.suffix == ".csv" and arrays["labels"].ndim > 1:
            message = f"{to}: a CSV file has one class or number for each row, and the labels of this set are "
            message += f"{arrays['labels'].shape[1]:,} numbers a row; choose a name that ends in .npz"
            raise InvalidInputError(message)
        with written_whole(to) as temporary:
            if to.suffix == ".npz":
                temporary.write_bytes(path.read_bytes())
            else:
                _write_csv(temporary, arrays)
    known = int(is_known(arrays["labels"]).sum())
    return FetchedSet(found.id, rows=len(arrays["labels"]), labelled=known, file=str(to))


def released_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a released file: ``inputs``, ``labels`` (-1: unknown), ``keys`` and names."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("inputs", "labels", "keys", "class_names", "feature_names")}
    except ARCHIVE_FAULTS as error:
        message = f"the released file cannot be read: {error}; ask the referee to release the set again"
        raise ArtifactError(message) from error


def is_known(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whether the label of each example is known, shape ``(examples,)``; target numbers always are."""
    return np.asarray(labels >= 0) if labels.dtype.kind == "i" else np.ones(len(labels), dtype=bool)


def _write_csv(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    inputs = arrays["inputs"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = GuardedWriter(file)
        writer.row([KEY, *column_names(arrays["feature_names"].tolist(), inputs.shape[1]), "label"])
        for key, example, label in zip(arrays["keys"], inputs, _label_cells(arrays), strict=True):
            writer.row([key, *map(cell, example), label])


def _label_cells(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    names = [str(name) for name in arrays["class_names"]]
    if not names:
        return [cell(number) for number in arrays["labels"]]
    return [names[label] if label >= 0 else "" for label in arrays["labels"]]


def column_names(names: list[str] | None, features: int) -> list[str]:
    """Return the headings of the encoded columns; ``x1`` and so on where their names were not kept."""
    return names or [f"x{place}" for place in range(1, features + 1)]


def cell(value: np.float32) -> str:
    """Return a number for a CSV file: the shortest text that reads back as the same float32; empty if missing."""
    return "" if np.isnan(value) else str(value)


@typed_record
class DeletedSet:
    """A test set that was deleted, or would be.

    Attributes:
        test_set_id: Its number, which stays.
        study: Whose it was.
        name: Its name, which may be used again; None where it had none.
        rows: Examples that go; of a planned set, that it would have needed.
        changed: Whether this call has deleted it; False in a dry run.
        dry_run: Whether nothing was to be changed.
    """

    test_set_id: int
    study: str
    name: str | None
    rows: int
    changed: bool
    dry_run: bool


class _DryRunError(Exception):
    """Takes back what a dry run has tried."""


def delete_test_set(
    notary: Notary, *, test_set: str | int, study: str | None = None, who: str, why: str, dry_run: bool = False
) -> DeletedSet:
    """Delete a planned, waiting or retired set that has answered nothing, in one transaction; its name is free again.

    A set that was deleted is found by its number alone, and stays as it is.
    """
    reason = why.strip()
    require(1 <= len(reason) <= MOST_REASON, "why", reason, f"a reason of 1 to {MOST_REASON} characters")
    found: SealedSet | None = None
    changed = False
    try:
        with notary.begin() as tx:
            gone = test_sets.deleted_set(tx, test_set)
            found = gone or find_set(tx, test_set, study)
            if gone is None:
                releases.hold_study(tx, found.study_id)
                labels.hold_set(tx, found.id)
                is_sealed = sealed.is_sealed(tx, found.id)
                before = notary.unexplained(tx, of_set(found.id)) if is_sealed else []
                changed = test_sets.delete(tx, found.id, reason)
                if is_sealed:
                    notary.explain(tx, of_set(found.id), known=before, who=who, reason=f"the set was deleted: {reason}")
                notify(tx, f"study:{found.study}")
            if dry_run:
                raise _DryRunError
    except _DryRunError:
        changed = False
    assert found is not None  # else find_set has raised
    return DeletedSet(found.id, found.study, found.name, found.rows, changed, dry_run)
