"""The labels wanted of a set and the labelers' answers, as arrays over its examples; adjudication by the referee.

A set is locked while an answer of it is changed, so that no verdict reads labels that are being written.

The referee adjudicates examples where labelers differ, and those that no labeler can tell. The latter are never left
out: which examples are hard depends on their inputs, so the rest would be a sample of another distribution than the one
that the verdict is about. The verdict waits until the referee gives the label, or asks again and a labeler can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.entities import SealedSetState
from easeml_core.errors import NotFoundError, StateError
from easeml_core.formats.encoding import typed_record
from easeml_core.services.labeling.requests import find_labelled_set
from easeml_core.settings.config import require
from easeml_core.store.tables import labels as label_rows
from easeml_core.store.tables import studies, test_sets
from easeml_core.store.tables.labels import REFEREE, UNKNOWN, UNSURE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.store.database import Store
    from easeml_core.store.tables.test_sets import SealedSet


SECOND_EVERY = 10
"""One example in this many is shown to a second labeler; the order is random, so the place decides which."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a batch.

    Attributes:
        wanted: Examples of the batch.
        known: Those with a label.
        left: Those that this labeler can be shown.
        mine: Those that they labelled.
        conflicts: Those on which labelers differ.
        unsure: Those without a label that a labeler cannot tell.
    """

    wanted: int
    known: int
    left: int
    mine: int
    conflicts: int
    unsure: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A labeler's word on the example at a place, and whether it has changed anything."""

    place: int
    changed: bool


@dataclass(frozen=True, eq=False)
class Words:
    """The labels wanted of a set and the labelers' answers, each of shape ``(n_examples,)``.

    Attributes:
        batch: What is wanted now; where nothing is, all that ever was.
        asked: What was ever wanted.
        is_open: Whether anything waits.
        said: Each labeler's answers, by name; ``UNSURE`` too.
        mine: This labeler's answers, ``UNSURE`` too.
        known: The known labels.
        used: Examples whose labels a verdict may have used.
    """

    batch: NDArray[np.bool_]
    asked: NDArray[np.bool_]
    is_open: bool
    said: Mapping[str, NDArray[np.int64]]
    mine: NDArray[np.int64]
    known: NDArray[np.int64]
    used: NDArray[np.bool_]

    @cached_property
    def given(self) -> Mapping[str, NDArray[np.int64]]:
        """Labels by labeler."""
        return label_rows.labels_of(self.said)

    @property
    def disputed(self) -> NDArray[np.bool_]:
        """Whether labelers differ and the referee has not decided."""
        return label_rows.disputed(self.given, len(self.known)) & ~self._settled

    @property
    def passed(self) -> NDArray[np.int64]:
        """How many labelers cannot tell, where no label was given."""
        return label_rows.cannot_tell(self.said, len(self.known))

    @property
    def _settled(self) -> NDArray[np.bool_]:
        word = self.given.get(REFEREE)
        return np.zeros(len(self.known), dtype=bool) if word is None else word != UNKNOWN

    def queue(self) -> NDArray[np.intp]:
        """The places to show this labeler, in the set's order; no second opinion where it could not differ any more."""
        if not self.is_open:
            return np.array([], dtype=np.intp)
        others = sum((labels != UNKNOWN for labels in self.given.values()), np.zeros(len(self.known), dtype=np.int64))
        place = np.arange(len(self.known))
        second = (others == 1) & (place % SECOND_EVERY == 0) & ~self._settled & ~self.used
        return np.flatnonzero(self.batch & (self.mine == UNKNOWN) & ((others == 0) | second))

    def agreement(self, labeler: str) -> tuple[int, int]:
        """Return how many examples this labeler and another have both labelled, and on how many they agree."""
        both = same = 0
        for name, labels in self.given.items():
            if name not in (labeler, REFEREE):
                spoken = (labels != UNKNOWN) & (self.mine > UNKNOWN)
                both += int(spoken.sum())
                same += int((spoken & (labels == self.mine)).sum())
        return both, same

    def progress(self) -> Progress:
        """The progress of the batch, for this labeler and for the referee."""
        return Progress(
            wanted=int(self.batch.sum()),
            known=int((self.batch & (self.known != UNKNOWN)).sum()),
            left=len(self.queue()),
            mine=int((self.mine > UNKNOWN).sum()),
            conflicts=int((self.batch & self.disputed).sum()),
            unsure=int((self.batch & (self.passed > 0)).sum()),
        )


def read_words(tx: Connection, found: SealedSet, labeler: str) -> Words:
    """Return the labels wanted of a set and the answers, for this labeler."""
    asked, batch = (np.zeros(found.rows, dtype=bool) for _ in range(2))
    for one in label_rows.wanted_of(tx, found.id):
        asked |= one.asked
        if one.is_open:
            batch[one.positions] = True
    is_open = bool(batch.any())
    said = label_rows.words_given(tx, found.id)
    return Words(
        batch=batch if is_open else asked,
        asked=asked,
        is_open=is_open,
        said=said,
        mine=said.get(labeler, np.full(found.rows, UNKNOWN, dtype=np.int64)),
        known=label_rows.known_labels(tx, found.id),
        used=label_rows.used_examples(tx, found.id),
    )


def labelled_set(tx: Connection, study: str) -> SealedSet:
    """Return the study's set that labels are wanted of."""
    for test_set_id in label_rows.sets_that_asked(tx, study):
        return test_sets.get_set(tx, test_set_id)
    raise NotFoundError(kind="study that wants labels", name=study, remedy="see the list of batches")


def held_set(tx: Connection, study: str, test_set_id: int) -> SealedSet:
    """Return the set of an answer, locked until the transaction ends."""
    found = labelled_set(tx, study)
    label_rows.hold_set(tx, found.id)
    found = test_sets.get_set(tx, found.id)
    if found.id != test_set_id or found.state != SealedSetState.LIVE:
        message = f"test set {test_set_id} of study {study!r} has ended; what is wanted now is on the desk"
        raise StateError(message)
    return found


def require_asked(words: Words, place: int) -> None:
    """Raise StateError where the label of the example at this place is not wanted."""
    if not 0 <= place < len(words.asked) or not words.asked[place]:
        message = f"the label of the example at place {place} is not wanted; take the one on the desk"
        raise StateError(message)


def keep_word(tx: Connection, found: SealedSet, words: Words, labeler: str, place: int, word: int) -> Kept:
    """Put a labeler's word in the place of what they said before."""
    before = int(words.mine[place])
    if before == word:
        return Kept(place, changed=False)
    after = words.mine.copy()
    after[place] = word
    if label_rows.too_late(words.used, words.known, words.mine, after)[place]:
        message = (
            f"a verdict may have used the label of the example at place {place} already, so it stays; where it is "
            "wrong, tell the referee, who can retire this set and seal a new one"
        )
        raise StateError(message)
    label_rows.keep_labels(tx, found.id, labeler, after)
    return Kept(place, changed=True)


MOST_TO_SETTLE = 50
"""Largest number of listed examples, the first of the set's order."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An example on which labelers differ: its place, its name, and the classes that were given."""

    place: int
    example: str
    labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class Passed:
    """An example without a label that a labeler cannot tell.

    Attributes:
        place: In the set's order.
        example: Its name.
        passed: How many labelers cannot tell.
        mine: Whether this labeler is among them.
    """

    place: int
    example: str
    passed: int
    mine: bool


@dataclass(frozen=True, slots=True)
class AskedAgain:
    """How many labelers are asked again about the example at a place."""

    place: int
    asked: int


@typed_record
class UnsureExample:
    """An example without a label, and how many labelers cannot tell."""

    example: str
    passed: int


@typed_record
class UnsureExamples:
    """Examples of a set that labelers passed on, in its order.

    Attributes:
        test_set_id: The set.
        study: Whose it is.
        unsure: The examples.
        asked: How many labelers are asked again.
    """

    test_set_id: int
    study: str
    unsure: tuple[UnsureExample, ...]
    asked: int


def where_labelers_differ(tx: Connection, found: SealedSet, words: Words, classes: Sequence[str]) -> list[Difference]:
    """Return open differences, without the labelers' names."""
    listed = []
    for place in np.flatnonzero(words.batch & words.disputed)[:MOST_TO_SETTLE]:
        said = sorted({int(labels[place]) for labels in words.given.values() if labels[place] != UNKNOWN})
        key = label_rows.example_key(tx, found.id, int(place))
        listed.append(Difference(int(place), key, [classes[label] for label in said]))
    return listed


def unsure_examples(tx: Connection, found: SealedSet, words: Words, *, decides: bool) -> list[Passed]:
    """Return examples that labelers passed on and none has labelled.

    A labeler who does not decide sees only those that they passed on themselves: others' answers must not influence a
    label that is not given yet.
    """
    theirs = True if decides else words.mine == UNSURE
    return [
        Passed(
            place=int(place),
            example=label_rows.example_key(tx, found.id, int(place)),
            passed=int(words.passed[place]) if decides else 1,
            mine=bool(words.mine[place] == UNSURE),
        )
        for place in np.flatnonzero(words.batch & (words.passed > 0) & theirs)[:MOST_TO_SETTLE]
    ]


def settle(store: Store, *, study: str, test_set_id: int, place: int, label: int) -> Kept:
    """Store the referee's label of an example where labelers differ, or that none can tell.

    It is stored under the labeler ``referee``. Repeatable; a second label replaces the first until it is used.
    """
    with store.begin() as tx:
        found = held_set(tx, study, test_set_id)
        classes = studies.class_names(tx, found.data_version_id)
        require(0 <= label < len(classes), "label", label, f"a whole number from 0 to {len(classes) - 1}")
        words = read_words(tx, found, REFEREE)
        require_asked(words, place)
        if not (words.disputed[place] or words.passed[place] or words.mine[place] > UNKNOWN):
            message = (
                f"labelers agree on the example at place {place} and none has passed on it, so there is nothing to "
                "settle; label it instead"
            )
            raise StateError(message)
        return keep_word(tx, found, words, REFEREE, place, label)


def ask_again(store: Store, *, study: str, test_set_id: int, place: int) -> AskedAgain:
    """Show an unsure example again to the labelers who passed on it. Repeatable.

    Nothing is lost: ``UNSURE`` was never used.
    """
    with store.begin() as tx:
        found = held_set(tx, study, test_set_id)
        words = read_words(tx, found, REFEREE)
        require_asked(words, place)
        return AskedAgain(place, _ask_again(tx, found, words, [place]))


def _ask_again(tx: Connection, found: SealedSet, words: Words, places: Sequence[int]) -> int:
    """Remove ``UNSURE`` answers of examples that no labeler can tell; return how many."""
    again = np.zeros(found.rows, dtype=bool)
    again[places] = words.passed[places] > 0
    taken = 0
    for labeler, said in words.said.items():
        passed = again & (said == UNSURE)
        if passed.any():
            taken += int(passed.sum())
            label_rows.keep_labels(tx, found.id, labeler, np.where(passed, UNKNOWN, said))
    return taken


def list_unsure(store: Store, *, study: str, test_set: str | int | None = None, again: bool = False) -> UnsureExamples:
    """Examples that labelers pass of a set, in its order; for the command line."""
    with store.begin() as tx:
        found = find_labelled_set(tx, study, test_set)
        if again:
            found = held_set(tx, study, found.id)
        words = read_words(tx, found, REFEREE)
        places = [int(place) for place in np.flatnonzero(words.passed)]
        unsure = [UnsureExample(label_rows.example_key(tx, found.id, p), int(words.passed[p])) for p in places]
        asked = _ask_again(tx, found, words, places) if again else 0
        return UnsureExamples(found.id, found.study, tuple(unsure), asked)
