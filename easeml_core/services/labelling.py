"""The labelling desk: one wanted example after another, to one labeler; what they say is kept at once.

A labeler sees examples and the classes, never which model asked, what it predicted, or what others said. One wanted
example in ten is shown to a second labeler as well, while its batch waits: so people are measured against each other,
and where they differ the referee decides.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.config import require
from easeml_core.entities import SealedSetState
from easeml_core.errors import InvalidInputError, NotFoundError, StateError
from easeml_core.store import examples, studies, test_sets
from easeml_core.store import labels as label_rows
from easeml_core.store.labels import REFEREE, UNKNOWN, UNSURE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.store.database import Store
    from easeml_core.store.labels import Wanted
    from easeml_core.store.test_sets import SealedSet

SECOND_EVERY = 10
"""One example in so many is shown to a second labeler: the order is random, so its place may choose it."""

MOST_CONFLICTS = 50
"""Conflicts that are told of at once."""

_LABELER = re.compile(r"[a-z0-9][a-z0-9_.@-]{0,62}")


def labeler_name(name: str) -> str:
    """The name under which somebody's labels are kept: theirs, in small letters.

    Raises:
        InvalidInputError: It cannot be one.

    Example:
        >>> labeler_name("Ann@lab")
        'ann@lab'
    """
    kept = name.lower()
    if not _LABELER.fullmatch(kept):
        message = f"a labeler's name is 1 to 63 of a-z, 0-9 and _ . @ -, beginning with a letter or digit; got {name!r}"
        raise InvalidInputError(message)
    return kept


@dataclass(frozen=True, slots=True, eq=False)
class _Words:
    """What was asked of a set and what was said, each of shape ``(n_examples,)``.

    Attributes:
        batch: What is wanted now; where nothing is, all that ever was.
        asked: What was ever wanted.
        is_open: Whether anything waits.
        given: Labels by labeler.
        mine: What this labeler said, ``UNSURE`` too.
        known: What is known of every label.
    """

    batch: NDArray[np.bool_]
    asked: NDArray[np.bool_]
    is_open: bool
    given: Mapping[str, NDArray[np.int64]]
    mine: NDArray[np.int64]
    known: NDArray[np.int64]

    @property
    def disputed(self) -> NDArray[np.bool_]:
        """Where labelers differ and the referee has not decided."""
        word = self.given.get(REFEREE)
        unsettled = True if word is None else word == UNKNOWN
        return label_rows.disputed(self.given, len(self.known)) & unsettled

    def queue(self) -> NDArray[np.intp]:
        """The places to show this labeler, in the set's order."""
        if not self.is_open:
            return np.array([], dtype=np.intp)
        others = sum((labels != UNKNOWN for labels in self.given.values()), np.zeros(len(self.known), dtype=np.int64))
        place = np.arange(len(self.known))
        word = self.given.get(REFEREE)
        settled = np.zeros(len(place), dtype=bool) if word is None else word != UNKNOWN
        second = (others == 1) & (place % SECOND_EVERY == 0) & ~settled
        return np.flatnonzero(self.batch & (self.mine == UNKNOWN) & ((others == 0) | second))

    def agreement(self, labeler: str) -> tuple[int, int]:
        """How many examples this labeler and another have both labelled, and on how many they say the same."""
        both = same = 0
        for name, labels in self.given.items():
            if name not in (labeler, REFEREE):
                spoken = (labels != UNKNOWN) & (self.mine > UNKNOWN)
                both += int(spoken.sum())
                same += int((spoken & (labels == self.mine)).sum())
        return both, same


def batches(store: Store, *, labeler: str, limit: int = label_rows.MOST_BATCHES) -> list[dict[str, Any]]:
    """The live sets that labels were ever wanted of, those with something left for this labeler first.

    Args:
        store: Role ``easeml_referee``.
        labeler: Who asks, as of ``labeler_name``.
        limit: How many at most, by name of their study.

    Returns:
        ``{"study", "test_set_id", "test_set", "kind", "wanted", "known", "left", "mine", "conflicts"}`` each: ``kind``
        is ``row``, ``image`` or ``series``, ``wanted`` and ``known`` count the batch, ``left`` what this labeler can be
        shown, ``mine`` what they labelled, ``conflicts`` where the referee must decide.
    """
    with store.begin() as tx:
        found = [_told(tx, test_set, labeler) for test_set in label_rows.sets_that_asked(tx, limit=limit)]
    return sorted(found, key=lambda batch: (batch["left"] == 0, batch["study"]))


def labelers(store: Store) -> list[dict[str, Any]]:
    """Who has labelled examples of the sets of ``batches``, for the referee: ``{"labeler", "labels"}``, most first.

    Args:
        store: Role ``easeml_referee``.
    """
    counted: Counter[str] = Counter()
    with store.begin() as tx:
        for test_set_id in label_rows.sets_that_asked(tx):
            for name, labels in label_rows.labels_given(tx, test_set_id).items():
                counted[name] += int((labels != UNKNOWN).sum())
    return [{"labeler": name, "labels": count} for name, count in counted.most_common()]


def _told(tx: Connection, test_set_id: int, labeler: str) -> dict[str, Any]:
    found = test_sets.get_set(tx, test_set_id)
    words = _words(tx, found, labeler)
    return {
        "study": found.study,
        "test_set_id": found.id,
        "test_set": found.called,
        "kind": _kind(examples.example_layout(tx, found.data_version_id)),
    } | _counts(words)


def _kind(layout: Mapping[str, Any] | None) -> str:
    kind = (layout or {}).get("kind", "table")
    return kind if kind in ("image", "series") else "row"


def _counts(words: _Words) -> dict[str, int]:
    return {
        "wanted": int(words.batch.sum()),
        "known": int((words.batch & (words.known != UNKNOWN)).sum()),
        "left": len(words.queue()),
        "mine": int((words.mine > UNKNOWN).sum()),
        "conflicts": int((words.batch & words.disputed).sum()),
    }


def _words(tx: Connection, found: SealedSet, labeler: str) -> _Words:
    asked, batch = (np.zeros(found.rows, dtype=bool) for _ in range(2))
    wanted: Sequence[Wanted] = label_rows.wanted_of(tx, found.id)
    for one in wanted:
        asked |= one.asked
        if one.is_open:
            batch[one.positions] = True
    is_open = bool(batch.any())
    return _Words(
        batch=batch if is_open else asked,
        asked=asked,
        is_open=is_open,
        given=label_rows.labels_given(tx, found.id),
        mine=label_rows.words_of(tx, found.id, labeler, found.rows),
        known=label_rows.known_labels(tx, found.id),
    )


def desk(
    store: Store, *, study: str, labeler: str, at: int | None = None, last: int | None = None, decides: bool = False
) -> dict[str, Any]:
    """What the desk shows this labeler now.

    Args:
        store: Role ``easeml_referee``.
        study: The study; its live set is labelled.
        labeler: Who labels, as of ``labeler_name``.
        at: Place of the example to show, if it may be shown to them; None for the next one.
        last: Place of the example that they labelled last, to tell what was kept of it.
        decides: Whether they are the referee: then they are told where others differ, and ``at`` may be such a place.

    Returns:
        As an entry of ``batches``, and ``{"classes", "layout", "agreement", "disputes", "example", "last"}``:
        ``agreement`` is ``{"both", "same"}``, ``disputes`` are ``{"place", "example", "labels"}``, ``example`` is
        ``{"place", "example", "cells", "columns", "inputs", "is_dispute"}`` or None (``cells`` are names and texts as
        they were brought, None where the numbers tell as much), ``last`` is ``{"place", "example",
        "label", "may_undo"}`` or None (``label`` None: cannot tell).

    Raises:
        NotFoundError: Nobody has asked for labels of this study.
    """
    with store.begin() as tx:
        found = _labelled_set(tx, study)
        words = _words(tx, found, labeler)
        classes = studies.class_names(tx, found.data_version_id)
        layout = examples.example_layout(tx, found.data_version_id)
        both, same = words.agreement(labeler)
        return {
            "study": found.study,
            "test_set_id": found.id,
            "test_set": found.called,
            "kind": _kind(layout),
            **_counts(words),
            "classes": classes,
            "layout": layout,
            "agreement": {"both": both, "same": same},
            "disputes": _disputes(tx, found, words, classes) if decides else [],
            "example": _example(tx, found, words, at, decides=decides),
            "last": None if last is None else _last(tx, found, words, last, classes),
        }


def set_to_label(store: Store, *, study: str) -> int:
    """Number of the study's set that labels are asked of.

    Args:
        store: Role ``easeml_referee``.
        study: The study.

    Raises:
        NotFoundError: Nobody has asked for labels of this study.
    """
    with store.begin() as tx:
        return _labelled_set(tx, study).id


def _labelled_set(tx: Connection, study: str) -> SealedSet:
    """The study's set that labels are asked of."""
    for test_set_id in label_rows.sets_that_asked(tx, study):
        return test_sets.get_set(tx, test_set_id)
    raise NotFoundError(kind="study that wants labels", name=study, remedy="see the list of batches")


def _disputes(tx: Connection, found: SealedSet, words: _Words, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Where labelers differ: what was said, without who."""
    told = []
    for place in np.flatnonzero(words.batch & words.disputed)[:MOST_CONFLICTS]:
        said = sorted({int(labels[place]) for labels in words.given.values() if labels[place] != UNKNOWN})
        key = examples.example_key(tx, found.id, int(place))
        told.append({"place": int(place), "example": key, "labels": [classes[label] for label in said]})
    return told


def _example(
    tx: Connection, found: SealedSet, words: _Words, at: int | None, *, decides: bool
) -> dict[str, Any] | None:
    queue = words.queue()
    is_dispute = at is not None and decides and 0 <= at < found.rows and bool(words.disputed[at])
    if at is None or not (is_dispute or at in queue):
        if not len(queue):
            return None
        at, is_dispute = int(queue[0]), False
    inputs = examples.example_inputs(tx, found.id, at)
    return {
        "place": at,
        "example": examples.example_key(tx, found.id, at),
        "cells": examples.example_cells(tx, found.id, at),
        "columns": studies.feature_names(tx, found.data_version_id),
        "inputs": [None if np.isnan(value) else float(value) for value in inputs.reshape(-1)],
        "is_dispute": is_dispute,
    }


def _last(tx: Connection, found: SealedSet, words: _Words, place: int, classes: Sequence[str]) -> dict[str, Any] | None:
    if not 0 <= place < found.rows or words.mine[place] == UNKNOWN:
        return None
    said = int(words.mine[place])
    return {
        "place": place,
        "example": examples.example_key(tx, found.id, place),
        "label": None if said == UNSURE else classes[said],
        "may_undo": said == UNSURE or not bool(label_rows.used_examples(tx, found.id)[place]),
    }


def say(
    store: Store, *, study: str, test_set_id: int, labeler: str, place: int, label: int | None, decides: bool = False
) -> dict[str, Any]:
    """Keep what somebody says of one example. May be repeated; a second word replaces the first, until it is used.

    Args:
        store: Role ``easeml_referee``.
        study: The study.
        test_set_id: The set that the example was shown of: a word about a set that has ended is not one about the next.
        labeler: Who says so, as of ``labeler_name``.
        place: Of the example, in the set's order.
        label: Number of the class; None: they cannot tell.
        decides: The word settles a conflict, and is kept as that of the labeler ``referee``.

    Returns:
        ``{"place", "changed"}``.

    Raises:
        NotFoundError: Nobody has asked for labels of this study.
        StateError: The set has ended, nobody asked for this example, nobody differs on it, or a verdict may have used
            their first word.
        ConfigError: There is no such class.
    """
    who = REFEREE if decides else labeler
    with store.begin() as tx:
        found = _held_set(tx, study, test_set_id)
        classes = studies.class_names(tx, found.data_version_id)
        allowed = f"a whole number from 0 to {len(classes) - 1}"
        known = 0 <= label < len(classes) if label is not None else not decides
        require(known, "label", label, allowed)
        words = _words(tx, found, who)
        _require_asked(words, place)
        if decides and not words.disputed[place] and words.mine[place] != label:
            message = f"nobody differs on the example at place {place}, so there is nothing to decide; label it instead"
            raise StateError(message)
        return _keep(tx, found, words, who, place, UNSURE if label is None else label)


def take_back(store: Store, *, study: str, test_set_id: int, labeler: str, place: int) -> dict[str, Any]:
    """Undo what somebody said of one example, until a verdict may have used it. May be repeated.

    Arguments, returns and errors as of ``say``.
    """
    with store.begin() as tx:
        found = _held_set(tx, study, test_set_id)
        words = _words(tx, found, labeler)
        _require_asked(words, place)
        return _keep(tx, found, words, labeler, place, UNKNOWN)


def _held_set(tx: Connection, study: str, test_set_id: int) -> SealedSet:
    found = _labelled_set(tx, study)
    label_rows.hold_set(tx, found.id)
    found = test_sets.get_set(tx, found.id)
    if found.id != test_set_id or found.state != SealedSetState.LIVE:
        message = f"test set {test_set_id} of study {study!r} has ended; what is wanted now is on the desk"
        raise StateError(message)
    return found


def _require_asked(words: _Words, place: int) -> None:
    if not 0 <= place < len(words.asked) or not words.asked[place]:
        message = f"nobody has asked for the label of the example at place {place}; take the one on the desk"
        raise StateError(message)


def _keep(tx: Connection, found: SealedSet, words: _Words, labeler: str, place: int, word: int) -> dict[str, Any]:
    before = int(words.mine[place])
    if before == word:
        return {"place": place, "changed": False}
    if before > UNKNOWN and label_rows.used_examples(tx, found.id)[place]:
        message = "a verdict may have used the first label of this example already, so it stays; tell the referee"
        raise StateError(message)
    after = words.mine.copy()
    after[place] = word
    label_rows.keep_labels(tx, found.id, labeler, after)
    return {"place": place, "changed": True}
