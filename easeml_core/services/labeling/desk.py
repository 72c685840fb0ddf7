"""The labeling desk: shows a labeler one wanted example after another and stores each answer at once.

A labeler sees examples and classes, never which model a label is for, its prediction, or others' answers. One wanted
example in ten is shown to a second labeler as well, while its batch waits, to measure agreement. The referee decides
where labelers differ or cannot tell (``adjudication.py``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import row_of
from easeml_core.services.labeling.adjudication import (
    Progress,
    held_set,
    keep_word,
    labelled_set,
    read_words,
    require_asked,
    unsure_examples,
    where_labelers_differ,
)
from easeml_core.settings.config import require
from easeml_core.settings.limits import LABELER
from easeml_core.store.tables import labels as label_rows
from easeml_core.store.tables import studies, test_sets
from easeml_core.store.tables.labels import UNKNOWN, UNSURE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.services.labeling.adjudication import Difference, Kept, Passed, Words
    from easeml_core.store.database import Store
    from easeml_core.store.tables.labels import ExampleLayout
    from easeml_core.store.tables.test_sets import SealedSet


def labeler_name(name: str) -> str:
    """Return the name under which a user's labels are stored: theirs, in small letters.

    Example:
        >>> labeler_name("Ann@lab")
        'ann@lab'
    """
    kept = name.lower()
    if not LABELER.holds(kept):
        message = f"a labeler's name must be {LABELER.rule}, got {name!r}"
        raise InvalidInputError(message)
    return kept


@dataclass(frozen=True, slots=True)
class Batch(Progress):
    """The labels wanted of a live set, and their progress.

    Attributes:
        study: Whose set it is.
        test_set_id: The set.
        test_set: What people call it.
        kind: ``row``, ``image`` or ``series``.
    """

    study: str
    test_set_id: int
    test_set: str
    kind: str


@dataclass(frozen=True, slots=True)
class Labeler:
    """A labeler with the number of labels given, and of examples that they cannot tell."""

    labeler: str
    labels: int
    passed: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many examples this labeler and another have both labelled, and on how many they agree."""

    both: int
    same: int


@dataclass(frozen=True, slots=True)
class DeskExample:
    """The example on the desk.

    Attributes:
        place: In the set's order.
        example: Its name.
        cells: Names and texts as they were brought; None where the numbers tell as much.
        columns: Names of the inputs; None where they were not kept.
        inputs: In the study's encoding, None where missing.
        settles: ``conflict`` or ``unsure`` for the referee's word, else empty.
    """

    place: int
    example: str
    cells: Sequence[tuple[str, str]] | None
    columns: Sequence[str] | None
    inputs: Sequence[float | None]
    settles: str


@dataclass(frozen=True, slots=True)
class LastWord:
    """The stored answer to the example that a labeler labelled last.

    Attributes:
        place: In the set's order.
        example: Its name.
        label: The class; None where they cannot tell.
        may_undo: Whether no verdict may have used it.
    """

    place: int
    example: str
    label: str | None
    may_undo: bool


@dataclass(frozen=True, slots=True)
class Desk(Batch):
    """The contents of the desk for a labeler.

    Attributes:
        classes: Names of the classes.
        layout: What an example stands for before it was flattened; None where it was not kept.
        agreement: With other labelers.
        disputes: For the referee: where labelers differ.
        passed: Unsure examples.
        example: The example to label; None where nothing is left.
        last: The stored answer to the one before; None without one.
    """

    classes: Sequence[str]
    layout: ExampleLayout | None
    agreement: Agreement
    disputes: Sequence[Difference]
    passed: Sequence[Passed]
    example: DeskExample | None
    last: LastWord | None


def batches(store: Store, *, labeler: str, limit: int = label_rows.MOST_BATCHES) -> list[Batch]:
    """The live sets that labels were ever wanted of, those with something left for this labeler first."""
    with store.begin() as tx:
        found = [_batch(tx, test_set, labeler) for test_set in label_rows.sets_that_asked(tx, limit=limit)]
    return sorted(found, key=lambda batch: (batch.left == 0, batch.study))


def labelers(store: Store) -> list[Labeler]:
    """Return the labelers of the sets of ``batches``, for the referee, most labels first."""
    labels, passed = Counter[str](), Counter[str]()
    with store.begin() as tx:
        for test_set_id in label_rows.sets_that_asked(tx):
            for name, said in label_rows.words_given(tx, test_set_id).items():
                labels[name] += int((said > UNKNOWN).sum())
                passed[name] += int((said == UNSURE).sum())
    return [Labeler(name, count, passed[name]) for name, count in labels.most_common()]


def _batch(tx: Connection, test_set_id: int, labeler: str) -> Batch:
    found = test_sets.get_set(tx, test_set_id)
    words = read_words(tx, found, labeler)
    return Batch(
        **row_of(words.progress()),
        study=found.study,
        test_set_id=found.id,
        test_set=found.called,
        kind=_kind(label_rows.example_layout(tx, found.data_version_id)),
    )


def _kind(layout: ExampleLayout | None) -> str:
    return layout.kind if layout is not None and layout.kind in ("image", "series") else "row"


def desk(
    store: Store,
    *,
    study: str,
    labeler: str,
    at: int | None = None,
    last: int | None = None,
    decides: bool = False,
    settles: int | None = None,
) -> Desk:
    """Return what the desk shows this labeler now."""
    with store.begin() as tx:
        found = labelled_set(tx, study)
        words = read_words(tx, found, labeler)
        classes = studies.class_names(tx, found.data_version_id)
        layout = label_rows.example_layout(tx, found.data_version_id)
        both, same = words.agreement(labeler)
        return Desk(
            **row_of(words.progress()),
            study=found.study,
            test_set_id=found.id,
            test_set=found.called,
            kind=_kind(layout),
            classes=classes,
            layout=layout,
            agreement=Agreement(both, same),
            disputes=where_labelers_differ(tx, found, words, classes) if decides else [],
            passed=unsure_examples(tx, found, words, decides=decides),
            example=_example(tx, found, words, at, settles if decides else None),
            last=None if last is None else _last(tx, found, words, last, classes),
        )


def set_to_label(store: Store, *, study: str) -> int:
    """Return the number of the study's set that labels are wanted of."""
    with store.begin() as tx:
        return labelled_set(tx, study).id


def _example(tx: Connection, found: SealedSet, words: Words, at: int | None, settles: int | None) -> DeskExample | None:
    why = "" if settles is None else _to_settle(words, settles)
    place = settles if why else _next_place(words, at)
    if place is None:
        return None
    inputs = label_rows.example_inputs(tx, found.id, place)
    return DeskExample(
        place=place,
        example=label_rows.example_key(tx, found.id, place),
        cells=label_rows.example_cells(tx, found.id, place),
        columns=studies.feature_names(tx, found.data_version_id),
        inputs=[None if np.isnan(value) else float(value) for value in inputs.reshape(-1)],
        settles=why,
    )


def _to_settle(words: Words, place: int) -> str:
    """Return why the referee has to decide the example at this place; empty where that is not wanted."""
    if not 0 <= place < len(words.batch) or not words.batch[place]:
        return ""
    return "conflict" if words.disputed[place] else "unsure" if words.passed[place] else ""


def _next_place(words: Words, at: int | None) -> int | None:
    """Return the requested place, where this labeler may be shown it, else the next one of their queue."""
    queue = words.queue()
    again = np.flatnonzero(words.batch & (words.mine == UNSURE) & (words.passed > 0))
    if at is not None and (at in queue or at in again):
        return at
    return int(queue[0]) if len(queue) else None


def _last(tx: Connection, found: SealedSet, words: Words, place: int, classes: Sequence[str]) -> LastWord | None:
    if not 0 <= place < found.rows or words.mine[place] == UNKNOWN:
        return None
    said = int(words.mine[place])
    return LastWord(
        place=place,
        example=label_rows.example_key(tx, found.id, place),
        label=None if said == UNSURE else classes[said],
        may_undo=said == UNSURE or not bool(words.used[place]),
    )


def say(store: Store, *, study: str, test_set_id: int, labeler: str, place: int, label: int | None) -> Kept:
    """Store a labeler's answer to one example. Repeatable; a second answer replaces the first until it is used."""
    with store.begin() as tx:
        found = held_set(tx, study, test_set_id)
        classes = studies.class_names(tx, found.data_version_id)
        allowed = f"a whole number from 0 to {len(classes) - 1}"
        require(label is None or 0 <= label < len(classes), "label", label, allowed)
        words = read_words(tx, found, labeler)
        require_asked(words, place)
        return keep_word(tx, found, words, labeler, place, UNSURE if label is None else label)


def take_back(store: Store, *, study: str, test_set_id: int, labeler: str, place: int) -> Kept:
    """Undo a labeler's answer to one example, until a verdict may have used it. Repeatable.

    Arguments, returns and errors as of ``say``.
    """
    with store.begin() as tx:
        found = held_set(tx, study, test_set_id)
        words = read_words(tx, found, labeler)
        require_asked(words, place)
        return keep_word(tx, found, words, labeler, place, UNKNOWN)
