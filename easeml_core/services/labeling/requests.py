"""Labels by files: which examples are wanted, the labels of a labeler's file, and where labelers differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from easeml_core.data.rows.row_files import require_label_columns
from easeml_core.data.rows.row_tables import KEY, class_indices, read_examples, refused
from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import StateError
from easeml_core.files.local import written_whole
from easeml_core.formats.csv_text import GuardedWriter
from easeml_core.formats.encoding import typed_record
from easeml_core.services.test_sets.lifecycle import find_set
from easeml_core.services.test_sets.release import cell, column_names
from easeml_core.settings.config import require
from easeml_core.store.tables import labels as label_rows
from easeml_core.store.tables import releases, sealed, studies, test_sets
from easeml_core.store.tables.labels import REFEREE, UNKNOWN

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.data.rows.row_tables import ExampleFile
    from easeml_core.store.database import Store
    from easeml_core.store.tables.test_sets import SealedSet

MOST_AT_ONCE = 100_000


@typed_record
class WantedExample:
    """One example whose label is wanted; inputs are in the study's encoding, None where missing."""

    example: str
    inputs: tuple[float | None, ...]


@typed_record
class WantedLabels:
    """The examples whose labels are wanted now, in the set's fixed order.

    Attributes:
        test_set_id: The set.
        study: Whose it is.
        wanted: How many there are, beyond the limit too.
        classes: Names of the classes.
        columns: Names of the inputs.
        examples: As many as were asked for.
    """

    test_set_id: int
    study: str
    wanted: int
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    examples: tuple[WantedExample, ...]


@typed_record
class GivenLabels:
    """The result of a file of labels.

    Attributes:
        test_set_id: The set.
        study: Whose it is.
        labeler: Who gave them.
        new: Examples that the labeler had not labelled before.
        replaced: Examples whose label has changed.
        unchanged: Examples whose label is the same.
        conflicts: Of the set, those on which labelers differ and that the referee has not settled.
        wanted: Of the set, those whose labels are wanted still.
    """

    test_set_id: int
    study: str
    labeler: str
    new: int
    replaced: int
    unchanged: int
    conflicts: int
    wanted: int


@typed_record
class Conflict:
    """An example on which labelers differ: labeler to class."""

    example: str
    labels: dict[str, str]


@typed_record
class Conflicts:
    """Examples on which labelers differ and the referee has not decided, in the set's order."""

    test_set_id: int
    study: str
    conflicts: tuple[Conflict, ...]


def wanted_labels(
    store: Store,
    *,
    study: str,
    test_set: str | int | None = None,
    labeler: str | None = None,
    limit: int = 200,
    to: Path | None = None,
) -> WantedLabels:
    """The examples whose labels are wanted now, in the set's fixed order; nothing says which model asks, or why."""
    require(1 <= limit <= MOST_AT_ONCE, "limit", limit, f"from 1 to {MOST_AT_ONCE:,}")
    with store.begin() as tx:
        found = find_labelled_set(tx, study, test_set)
        places = _wanted(tx, found.id, labeler)
        keys, inputs = sealed.sealed_keys(tx, found.id), sealed.sealed_inputs(tx, found.id)
        columns = column_names(studies.feature_names(tx, found.data_version_id), inputs.shape[1])
        classes = studies.class_names(tx, found.data_version_id)
    now = places[:limit]
    if to is not None:
        with written_whole(to) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = GuardedWriter(file)
            writer.row([KEY, *columns])
            for place in now:
                writer.row([keys[place], *map(cell, inputs[place])])
    return WantedLabels(
        test_set_id=found.id,
        study=found.study,
        wanted=len(places),
        classes=tuple(classes),
        columns=tuple(columns),
        examples=tuple(WantedExample(keys[place], _numbers(inputs[place])) for place in now),
    )


def _numbers(inputs: NDArray[np.float32]) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(value) for value in inputs)


def _wanted(tx: Connection, test_set_id: int, labeler: str | None) -> NDArray[np.intp]:
    given, known = label_rows.labels_given(tx, test_set_id), label_rows.known_labels(tx, test_set_id)
    open_ = np.zeros(len(known), dtype=bool)
    for wanted in label_rows.wanted_of(tx, test_set_id):
        if wanted.is_open:
            open_[wanted.positions] = True
    for name, labels in given.items():
        if labeler in (None, name):
            open_ &= labels == UNKNOWN
    if labeler is not None:  # nor what they cannot tell
        open_ &= label_rows.words_of(tx, test_set_id, labeler, len(open_)) == UNKNOWN
        open_ &= (known == UNKNOWN) | ~label_rows.used_examples(tx, test_set_id)  # nor where they could not differ
    return np.flatnonzero(open_)


def give_labels(
    store: Store, *, study: str, labeler: str, labels: Path, test_set: str | int | None = None
) -> GivenLabels:
    """Take what a labeler says of examples that were asked for; all of the file or nothing. May be repeated.

    A second answer of the same labeler replaces the first, until a verdict may have used it. From then on the label
    stays, and no other labeler may differ from it, nor the referee.
    """
    with store.begin() as tx:
        found = find_labelled_set(tx, study, test_set)
        if not found.labels_on_demand:
            message = f"test set {found.called!r} was sealed with its labels; none are wanted"
            raise StateError(message)
        file = read_examples(labels)
        require_label_columns(file)
        given = class_indices(file, "label", studies.class_names(tx, found.data_version_id))
        label_rows.hold_set(tx, found.id)
        places = _places(tx, found, file)
        mine = label_rows.words_of(tx, found.id, labeler, found.rows)
        before = np.maximum(mine[places], UNKNOWN)
        after = mine.copy()
        after[places] = given
        _require_in_time(tx, found, file, places, said=(mine, after))
        if labeler not in label_rows.labels_given(tx, found.id) or not np.array_equal(after, mine):
            label_rows.keep_labels(tx, found.id, labeler, after)
        is_new, is_same = before == UNKNOWN, before == given
        return GivenLabels(
            test_set_id=found.id,
            study=found.study,
            labeler=labeler,
            new=int(is_new.sum()),
            replaced=int((~(is_new | is_same)).sum()),
            unchanged=int(is_same.sum()),
            conflicts=int(_unsettled(tx, found).sum()),
            wanted=len(_wanted(tx, found.id, None)),
        )


def _places(tx: Connection, found: SealedSet, file: ExampleFile) -> NDArray[np.int64]:
    """Return the position of every row's example in the set; all of them must have been wanted."""
    position = {key: place for place, key in enumerate(sealed.sealed_keys(tx, found.id))}
    asked = np.zeros(found.rows, dtype=bool)
    for wanted in label_rows.wanted_of(tx, found.id):
        asked |= wanted.asked
    for row, key in enumerate(file.keys):
        if key not in position:
            raise refused(file, f"test set {found.called!r} has no such example", row)
        if not asked[position[key]]:
            raise refused(file, "the label of this example is not wanted; see `easeml labels wanted`", row)
    return np.array([position[key] for key in file.keys], dtype=np.int64)


def _require_in_time(
    tx: Connection,
    found: SealedSet,
    file: ExampleFile,
    places: NDArray[np.int64],
    *,
    said: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    """Raise InvalidInputError where the labeler's new label, the second of ``said``, is too late."""
    (before, after), known = said, label_rows.known_labels(tx, found.id)
    late = label_rows.too_late(label_rows.used_examples(tx, found.id), known, before, after)[places]
    if late.any():
        row = int(np.argmax(late))
        used = next(int(word[places[row]]) for word in (known, before) if word[places[row]] != UNKNOWN)
        message = (
            f"a verdict may have used label {studies.class_names(tx, found.data_version_id)[used]!r} of this example "
            f"already ({int(late.sum())} such rows), so it stays; leave the row out; where the "
            "label is wrong, retire this set and seal a new one"
        )
        raise refused(file, message, row)


def label_conflicts(store: Store, *, study: str, test_set: str | int | None = None) -> Conflicts:
    """Return where two labelers differ and the referee has not decided, in the set's order."""
    with store.begin() as tx:
        found = find_labelled_set(tx, study, test_set)
        given = label_rows.labels_given(tx, found.id)
        classes = studies.class_names(tx, found.data_version_id)
        keys = sealed.sealed_keys(tx, found.id)
        conflicts = [
            Conflict(keys[p], {n: classes[v[p]] for n, v in given.items() if v[p] != UNKNOWN})
            for p in np.flatnonzero(_unsettled(tx, found))
        ]
        return Conflicts(found.id, found.study, tuple(conflicts))


def _unsettled(tx: Connection, found: SealedSet) -> NDArray[np.bool_]:
    given = label_rows.labels_given(tx, found.id)
    word = given.get(REFEREE, np.full(found.rows, UNKNOWN, dtype=np.int64))
    return np.asarray(label_rows.disputed(given, found.rows) & (word == UNKNOWN))


def find_labelled_set(tx: Connection, study: str, test_set: str | int | None) -> SealedSet:
    """Return the set of this name or number, or the study's live gate set; it holds examples."""
    study_id = studies.get_study(tx, study).id
    if test_set is None:
        live = releases.live_test_set(tx, study_id, SealedSetPurpose.GATE)
        if live is None:
            message = f"study {study!r} has no live gate set; seal one with `easeml test-set seal --study {study}`"
            raise StateError(message)
        return test_sets.get_set(tx, live.id)
    found = find_set(tx, test_set, study)
    if not sealed.is_sealed(tx, found.id):
        message = f"test set {found.called!r} is only planned and holds no examples"
        raise StateError(message)
    return found
