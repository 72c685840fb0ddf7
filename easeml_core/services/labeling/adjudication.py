"""Adjudication by the referee: examples where labelers differ, and examples that no labeler can tell.

An example that no labeler can tell is never left out: which examples are hard depends on their inputs, so the rest
would be a sample of another distribution than the one that the verdict is about. The verdict waits until the referee
gives the label, or asks again and a labeler can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.config import require
from easeml_core.encoding import typed_record
from easeml_core.errors import StateError
from easeml_core.services.labeling.annotations import held_set, keep_word, read_words, require_asked
from easeml_core.services.labeling.requests import find_labelled_set
from easeml_core.store.tables import labels as examples
from easeml_core.store.tables import studies
from easeml_core.store.tables.labels import REFEREE, UNKNOWN, UNSURE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.services.labeling.annotations import Kept, Words
    from easeml_core.store.database import Store
    from easeml_core.store.tables.test_sets import SealedSet

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
        key = examples.example_key(tx, found.id, int(place))
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
            example=examples.example_key(tx, found.id, int(place)),
            passed=int(words.passed[place]) if decides else 1,
            mine=bool(words.mine[place] == UNSURE),
        )
        for place in np.flatnonzero(words.batch & (words.passed > 0) & theirs)[:MOST_TO_SETTLE]
    ]


def settle(store: Store, *, study: str, test_set_id: int, place: int, label: int) -> Kept:
    """Store the referee's label of an example where labelers differ, or that none can tell.

    It is stored under the labeler ``referee``. Repeatable; a second label replaces the first until it is used.

    Args:
        store: Role ``easeml_referee``.
        study: The study.
        test_set_id: The set that the example was shown of.
        place: Of the example, in the set's order.
        label: Number of the class.

    Raises:
        NotFoundError: No labels are wanted for this study.
        StateError: The set has ended, the example's label is not wanted, there is nothing to resolve, or a verdict may
            have used the referee's first label, or the label that this one would change.
        ConfigError: There is no such class.
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

    Args:
        store: Role ``easeml_referee``.
        study: The study.
        test_set_id: The set that the example is of.
        place: Of the example, in the set's order.

    Returns:
        How many labelers are asked once more; 0 where it has a label by now.

    Raises:
        NotFoundError: No labels are wanted for this study.
        StateError: The set has ended, or the example's label is not wanted.
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
            examples.keep_labels(tx, found.id, labeler, np.where(passed, UNKNOWN, said))
    return taken


def list_unsure(store: Store, *, study: str, test_set: str | int | None = None, again: bool = False) -> UnsureExamples:
    """Examples that labelers pass of a set, in its order; for the command line.

    Args:
        store: Role ``easeml_referee``.
        study: The study.
        test_set: Name or number of the set; None for the study's live gate set.
        again: Ask once more about all of them.

    Raises:
        StateError: The study has no such set, or ``again`` is asked of one that has ended.
    """
    with store.begin() as tx:
        found = find_labelled_set(tx, study, test_set)
        if again:
            found = held_set(tx, study, found.id)
        words = read_words(tx, found, REFEREE)
        places = [int(place) for place in np.flatnonzero(words.passed)]
        unsure = [UnsureExample(examples.example_key(tx, found.id, p), int(words.passed[p])) for p in places]
        asked = _ask_again(tx, found, words, places) if again else 0
        return UnsureExamples(found.id, found.study, tuple(unsure), asked)
