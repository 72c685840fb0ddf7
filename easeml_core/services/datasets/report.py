"""The data of a study: its versions, its validation set, its sealed sets, and what was fed.

``study_data`` reads public facts only; ``sealed_sets`` adds the answers and costs of the sealed sets and needs the
referee's role.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import SealedSetState
from easeml_core.errors import ArtifactError
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.services.datasets.feed import FeedEntry, listed
from easeml_core.services.datasets.validation_sets import ValidationSetReport, validation_report
from easeml_core.services.test_sets.lifecycle import ShownSet, list_test_sets, shown
from easeml_core.store.tables import datasets, ledger, sealed, studies, test_sets
from easeml_core.store.tables import labels as label_rows
from easeml_core.store.tables.datasets import RefreshEntry, VersionEntry
from easeml_core.store.tables.labels import UNKNOWN
from easeml_core.store.tables.ledger import METER, RETIRED

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.test_sets import SealedSet

MOST_ENTRIES = 50
"""Largest number of versions, feeds and refreshes in the report, the newest."""

LAST_SIGNALS = 8


@typed_record
class StudyData:
    """What each person who sees the study may know of its data; all lists have the newest first.

    Attributes:
        versions: Of the data.
        validation: None while there is no data, or where ``problem`` says why it cannot be read.
        problem: Empty for none.
        sets: The sealed sets.
        feeds: What was fed.
        refreshes: What was asked for.
    """

    versions: list[VersionEntry]
    validation: ValidationSetReport | None
    problem: str
    sets: list[ShownSet]
    feeds: list[FeedEntry]
    refreshes: list[RefreshEntry]


def study_data(store: Store, artifacts: ArtifactStore, *, study: str) -> StudyData:
    """Return the public facts of a study's data."""
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        versions = datasets.version_history(tx, found.id, limit=MOST_ENTRIES)
        refreshes = datasets.refresh_history(tx, found.id, limit=MOST_ENTRIES)
        fed = datasets.list_feeds(tx, found.id, limit=MOST_ENTRIES)
    validation, problem = None, ""
    if versions:
        try:
            validation = validation_report(store, artifacts, study)
        except ArtifactError as error:
            problem = str(error)
    return StudyData(
        versions=versions,
        validation=validation,
        problem=problem,
        sets=list_test_sets(store, study=study),
        feeds=[listed(one) for one in fed],
        refreshes=refreshes,
    )


@typed_record
class AnsweringSet(ShownSet):
    """A sealed set with its answers and costs. Not for developers.

    Attributes:
        answers: Of gate and meter so far, with those that are not published yet.
        nats: Their cost together.
        labelled: Labels that are known.
        wanted: Labels that are wanted now.
        signals: The last ones of a meter, oldest first.
    """

    answers: int = 0
    nats: float = 0.0
    labelled: int = 0
    wanted: int = 0
    signals: tuple[int, ...] = ()


def sealed_sets(store: Store, *, study: str) -> list[AnsweringSet]:
    """Return the study's sealed sets with their answers and costs, newest first. Not for developers."""
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        return [_answering(tx, one) for one in test_sets.list_sets(tx, found.id)[:MOST_ENTRIES]]


def _answering(tx: Connection, one: SealedSet) -> AnsweringSet:
    public = row_of(shown(one))
    if one.state == SealedSetState.PLANNED or not sealed.is_sealed(tx, one.id):
        return AnsweringSet(**public)
    answers, nats = sealed.spent(tx, one.id)
    last = ledger.set_ledger(tx, one.id, limit=LAST_SIGNALS, system=METER)
    said = tuple(int(entry.answer) for entry in reversed(last) if entry.answer != RETIRED)
    labelled, wanted = _labels(tx, one)
    return AnsweringSet(**public, answers=answers, nats=nats, labelled=labelled, wanted=wanted, signals=said)


def _labels(tx: Connection, one: SealedSet) -> tuple[int, int]:
    """Return how many labels are known, and how many are wanted and unknown."""
    if not one.labels_on_demand:
        return one.rows, 0
    known = label_rows.known_labels(tx, one.id) != UNKNOWN
    waiting: set[int] = set()
    for batch in label_rows.wanted_of(tx, one.id):
        if batch.is_open:
            waiting.update(int(place) for place in batch.positions if not known[place])
    return int(known.sum()), len(waiting)
