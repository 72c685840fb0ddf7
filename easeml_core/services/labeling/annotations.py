"""The labels wanted of a set and the labelers' answers, as arrays over its examples.

Used by ``desk.py`` and ``adjudication.py``. Both lock the set while they change an answer, so that no verdict reads
labels that are being written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.entities import SealedSetState
from easeml_core.errors import NotFoundError, StateError
from easeml_core.store.tables import labels as label_rows
from easeml_core.store.tables import test_sets
from easeml_core.store.tables.labels import REFEREE, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from sqlalchemy import Connection

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
    """Return the study's set that labels are wanted of.

    Raises:
        NotFoundError: No labels are wanted for this study.
    """
    for test_set_id in label_rows.sets_that_asked(tx, study):
        return test_sets.get_set(tx, test_set_id)
    raise NotFoundError(kind="study that wants labels", name=study, remedy="see the list of batches")


def held_set(tx: Connection, study: str, test_set_id: int) -> SealedSet:
    """Return the set of an answer, locked until the transaction ends.

    Raises:
        NotFoundError: No labels are wanted for this study.
        StateError: The set has ended: the answer is not about the next one.
    """
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
    """Put a labeler's word in the place of what they said before.

    Raises:
        StateError: It is too late: a verdict may have used the labeler's earlier label, or the others'.
    """
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
