"""The referee's report on a study's gate: its sealed sets, their ledger, one verdict in full, and waiting requests.

Needs the role ``easeml_referee``; the facts for developers are in ``services/reports/submissions.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.entities import RequestKind, SealedSetPurpose, SealedSetState, Symbol
from easeml_core.errors import NotFoundError
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.gate.report import VerdictReport
from easeml_core.meter.shared_ledger import joint_plan, planned_gate_log_weight
from easeml_core.services.reports.submissions import newest_set, production_of
from easeml_core.services.test_sets.answers import ShownEntry, gate_settings, joint_config, shown_entry
from easeml_core.services.test_sets.lifecycle import ShownSet, SystemSteps, shown
from easeml_core.services.test_sets.planning import examples_for_gate, examples_for_joint_gate
from easeml_core.settings.config import GateConfig, JointConfig, require
from easeml_core.store.queries import submissions
from easeml_core.store.tables import labels, ledger, requests, sealed, studies, test_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.services.reports.submissions import Production
    from easeml_core.store.database import Store
    from easeml_core.store.tables.ledger import LedgerEntry
    from easeml_core.store.tables.test_sets import SealedSet

MOST = 500
"""Largest number of ledger entries in a report."""

_MOST_SYMBOLS = 40
_FEW_STEPS = 0.1
"""Share of the steps left at which the next set should be prepared."""


@typed_record
class GateSet(ShownSet):
    """A sealed set that serves the gate.

    Attributes:
        passes: Answers that were changes.
        needed: Examples for the next verdict on the set's own condition; None where the set is not live.
    """

    passes: int
    needed: int | None

    @property
    def gate(self) -> SystemSteps:
        """The gate's steps on it."""
        return self.systems["gate"]

    @property
    def is_too_small(self) -> bool:
        """Whether the next verdict needs more examples than the set has."""
        return self.needed is not None and self.needed > self.rows

    @property
    def has_few_steps(self) -> bool:
        """Whether few of the gate's steps are left."""
        return self.gate.steps - self.gate.steps_used <= max(1, _FEW_STEPS * self.gate.steps)


@typed_record
class NamedEntry(ShownEntry):
    """An entry of the ledger with the numbers and names of its models.

    Attributes:
        number: Of the submission, or None.
        called: The model.
        against: The model that it was compared with.
        judgement: The report of a verdict.
    """

    number: int | None
    called: str
    against: str
    judgement: VerdictReport


@typed_record
class WaitingRequest:
    """A gate request without an answer.

    Attributes:
        request_id: The request.
        model_id: The model.
        number: Of the submission, or None.
        called: The model.
        requested_at: When it was filed.
        decided: Whether its answer only waits for its time.
        labels: How many labels it waits for.
    """

    request_id: int
    model_id: int
    number: int | None
    called: str
    requested_at: datetime
    decided: bool
    labels: int


@typed_record
class LabelWork:
    """The labelers' work on the live set.

    Attributes:
        labels: Examples without a label that a request waits for.
        conflicts: Examples on which labelers differ, without the referee's label.
        settled: Likewise with it.
        unsure: Examples without a label that a labeler has seen and cannot tell.
    """

    labels: int = 0
    conflicts: int = 0
    settled: int = 0
    unsure: int = 0


class GateNeed(StrEnum):
    """Why a gate needs a user, worst first."""

    NO_LIVE_SET = "no live set"
    LABELS = "labels"
    CONFLICTS = "conflicts"
    UNSURE = "unsure"
    TOO_SMALL = "too small"
    FEW_STEPS = "few steps"


@dataclass(frozen=True, slots=True)
class GateReport:
    """A study's gate as the referee sees it.

    Attributes:
        sets: Those that serve the gate, newest first.
        chosen: The one that is shown, or None.
        symbols: The newest entries of the gate on it, oldest first.
        verdict: The entry that is shown, or None.
        ledger: The newest entries of the set, newest first.
        ledger_total: How many there are.
        waiting: Requests without an answer, oldest first.
        wanted: The labelers' work on the live set.
        production: The model in production, and the one before.
    """

    sets: Sequence[GateSet]
    chosen: GateSet | None
    symbols: Sequence[NamedEntry]
    verdict: NamedEntry | None
    ledger: Sequence[NamedEntry]
    ledger_total: int
    waiting: Sequence[WaitingRequest]
    wanted: LabelWork
    production: Production

    @property
    def live(self) -> GateSet | None:
        """The live set, or None."""
        return next((found for found in self.sets if found.state is SealedSetState.LIVE), None)

    @property
    def planned(self) -> GateSet | None:
        """The newest set that is planned and wants its examples, or None."""
        return next((found for found in self.sets if found.state is SealedSetState.PLANNED), None)

    @property
    def promotable(self) -> NamedEntry | None:
        """The shown verdict, where its model may be promoted; the rule is ``models/promotion.py``'s."""
        entry = self.verdict
        if entry is None or self.chosen is None or entry.answered_at is None or entry.released == Symbol.FAIL:
            return None
        stands = self.production.now
        is_there = stands is not None and stands.model_id == entry.model_id
        return None if is_there or entry.condition != gate_settings(self.chosen).condition else entry

    def needs(self) -> list[GateNeed]:
        """Why the gate needs a user, worst first.

        A nearly used-up live set counts only where no other set waits to take its place.
        """
        live, follows = self.live, any(found.state is SealedSetState.SEALED for found in self.sets)
        wears = live is not None and not follows
        needed = {
            GateNeed.NO_LIVE_SET: live is None,
            GateNeed.LABELS: self.wanted.labels > 0,
            GateNeed.CONFLICTS: self.wanted.conflicts > 0,
            GateNeed.UNSURE: self.wanted.unsure > 0,
            GateNeed.TOO_SMALL: wears and live is not None and live.is_too_small,
            GateNeed.FEW_STEPS: wears and live is not None and live.has_few_steps and not live.is_too_small,
        }
        return [need for need, is_needed in needed.items() if is_needed]


def gate_report(
    store: Store,
    *,
    study: str,
    test_set: int | None = None,
    submission: int | None = None,
    model_id: int | None = None,
    limit: int = 10,
) -> GateReport:
    """Return a study's gate as the referee sees it."""
    require(1 <= limit <= MOST, "limit", limit, f"from 1 to {MOST}")
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        all_sets = test_sets.list_sets(tx, found.id)
        sets = [s for s in all_sets if SealedSetPurpose.GATE in test_sets.serves(s.purpose)]
        chosen, verdict = _chosen(sets, test_set, study), None
        if submission is not None or model_id is not None:
            looked_at = [s for s in (sets if test_set is None else [chosen]) if s is not None]
            chosen, verdict = _verdict(tx, found.id, looked_at, submission, model_id)
        entries = ledger.set_ledger(tx, chosen.id, limit=limit) if chosen else []
        symbols = ledger.set_ledger(tx, chosen.id, limit=_MOST_SYMBOLS, system=ledger.GATE) if chosen else []
        verdict = verdict or (symbols[0] if symbols else None)
        named = _Named(tx, found.id, [*entries, *symbols, *([verdict] if verdict else [])])
        live = next((s for s in sets if s.state == SealedSetState.LIVE), None)
        shown_sets = [_gate_set(tx, s) for s in sets]
        return GateReport(
            sets=shown_sets,
            chosen=next((s for s in shown_sets if chosen is not None and s.test_set_id == chosen.id), None),
            symbols=[named.entry(e) for e in reversed(symbols)],
            verdict=None if verdict is None else named.entry(verdict),
            ledger=[named.entry(e) for e in entries],
            ledger_total=0 if chosen is None else sealed.spent(tx, chosen.id)[0],
            waiting=_waiting(tx, found.id),
            wanted=_wanted(tx, live),
            production=production_of(tx, found.id),
        )


def gate_ledger(store: Store, *, study: str, test_set: int, limit: int = MOST, skip: int = 0) -> list[NamedEntry]:
    """Return a page of a set's ledger, newest first; entries as of ``gate_report``."""
    require(1 <= limit <= MOST, "limit", limit, f"from 1 to {MOST}")
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        sets = [s for s in test_sets.list_sets(tx, found.id) if SealedSetPurpose.GATE in test_sets.serves(s.purpose)]
        chosen = _chosen(sets, test_set, study)
        assert chosen is not None  # a number was given
        entries = ledger.set_ledger(tx, chosen.id, limit=limit, skip=skip)
        named = _Named(tx, found.id, entries)
        return [named.entry(entry) for entry in entries]


def _chosen(sets: list[SealedSet], test_set: int | None, study: str) -> SealedSet | None:
    if test_set is None:
        return newest_set(sets, SealedSetPurpose.GATE)
    for found in sets:
        if found.id == test_set:
            return found
    raise NotFoundError(kind="gate set", name=test_set, owner=f"study {study!r}", remedy="see `easeml test-set list`")


def _verdict(
    tx: Connection, study_id: int, sets: Sequence[SealedSet], submission: int | None, model_id: int | None
) -> tuple[SealedSet, LedgerEntry]:
    """Return the set that judged a submission last, else a model, and its entry."""
    if submission is not None:
        model_id = submissions.model_of_number(tx, study_id, submission)
    for found in sets:
        entry = None if model_id is None else ledger.newest_of_model(tx, found.id, model_id)
        if entry is not None:
            return found, entry
    asked = ("model", model_id) if submission is None else ("submission", submission)
    raise NotFoundError(kind=f"verdict on {asked[0]}", name=asked[1], remedy="it was not judged on such a set")


class _Named:
    """Entries of the ledger with the numbers and names of their models."""

    def __init__(self, tx: Connection, study_id: int, entries: Sequence[LedgerEntry]) -> None:
        reports = [entry.verdict for entry in entries]
        ids = [found for r in reports for found in (r.model_id, r.incumbent_id) if found is not None]
        self.numbers, self.names = submissions.numbers_of(tx, study_id, ids), submissions.names_of(tx, ids)

    def entry(self, entry: LedgerEntry) -> NamedEntry:
        report = entry.verdict
        model, against = report.model_id, report.incumbent_id
        return NamedEntry(
            **row_of(shown_entry(entry)),
            number=None if model is None else self.numbers.get(model),
            called="" if model is None else self.names.get(model, ""),
            against="" if against is None else self.names.get(against, ""),
            judgement=report,
        )


def _gate_set(tx: Connection, found: SealedSet) -> GateSet:
    """Return a set with its use beyond the public facts."""
    passes = ledger.used(tx, found.id)[1]
    needed = _needed(found, passes) if found.state == SealedSetState.LIVE else None
    return GateSet(**row_of(shown(found)), passes=passes, needed=needed)


def _needed(found: SealedSet, passes: int) -> int:
    """Return how many examples the next verdict on the sealed condition needs."""
    joint = joint_config(found)
    return _needed_by_joint(joint) if joint is not None else _needed_by_gate(gate_settings(found), passes)


@lru_cache(maxsize=1024)
def _needed_by_gate(plan: GateConfig, passes: int) -> int:
    return examples_for_gate(plan, changes=passes)


@lru_cache(maxsize=1024)
def _needed_by_joint(plan: JointConfig) -> int:
    """At the log weight that was planned for the last verdict, as of ``services/gate/judge.py``."""
    return examples_for_joint_gate(plan.gate, planned_gate_log_weight(joint_plan(plan), plan.meter.ambiguous))


def _waiting(tx: Connection, study_id: int) -> list[WaitingRequest]:
    """Return gate requests without an answer, oldest first."""
    open_ = requests.unanswered(tx, study_id, RequestKind.GATE)
    ids = [entry.model_id for entry in open_]
    numbers, names = submissions.numbers_of(tx, study_id, ids), submissions.names_of(tx, ids)
    wanted = {w.request_id: len(w.positions) for w in labels.open_wanted(tx)} if open_ else {}
    undecided = requests.undecided(tx, [entry.request_id for entry in open_])
    return [
        WaitingRequest(
            request_id=entry.request_id,
            model_id=entry.model_id,
            number=numbers[entry.model_id],
            called=names[entry.model_id],
            requested_at=entry.requested_at,
            decided=entry.request_id not in undecided,
            labels=wanted.get(entry.request_id, 0),
        )
        for entry in open_
    ]


def _wanted(tx: Connection, live: SealedSet | None) -> LabelWork:
    if live is None or not live.labels_on_demand:
        return LabelWork()
    words = labels.words_given(tx, live.id)
    given, unsaid = labels.labels_of(words), np.ones(live.rows, dtype=bool)
    for said in given.values():
        unsaid &= said == labels.UNKNOWN
    asked = np.zeros(live.rows, dtype=bool)
    for wanted in labels.wanted_of(tx, live.id):
        if wanted.is_open:
            asked[wanted.positions] = True
    disputed = labels.disputed(given, live.rows)
    word = given.get(labels.REFEREE, np.full(live.rows, labels.UNKNOWN)) != labels.UNKNOWN
    return LabelWork(
        labels=int((asked & unsaid).sum()),
        conflicts=int((disputed & ~word).sum()),
        settled=int((disputed & word).sum()),
        unsure=int((asked & (labels.cannot_tell(words, live.rows) > 0)).sum()),
    )
