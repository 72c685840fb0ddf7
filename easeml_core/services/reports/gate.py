"""The referee's page of facts on a study's gate: its sealed sets, their ledger, one verdict in full, who waits.

Everything here needs the role ``easeml_referee``; what a developer may know is in ``services/reports/submissions.py``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.config import GateConfig, JointConfig, require
from easeml_core.entities import RequestKind, SealedSetPurpose, SealedSetState
from easeml_core.errors import NotFoundError
from easeml_core.meter.shared_ledger import joint_plan, planned_gate_log_weight
from easeml_core.services.reports.submissions import newest_set, production_of
from easeml_core.services.test_sets.ledger import shown_entry
from easeml_core.services.test_sets.lifecycle import shown
from easeml_core.services.test_sets.planning import examples_for_gate, examples_for_joint_gate
from easeml_core.services.test_sets.shared_set import gate_settings, joint_config
from easeml_core.store.queries import submissions
from easeml_core.store.tables import labels, ledger, requests, sealed, studies, test_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.store.database import Store
    from easeml_core.store.tables.test_sets import SealedSet

MOST = 500
"""Entries of a ledger that one look gives at most."""

_MOST_SYMBOLS = 40


def gate_report(
    store: Store,
    *,
    study: str,
    test_set: int | None = None,
    submission: int | None = None,
    model_id: int | None = None,
    limit: int = 10,
) -> dict[str, Any]:
    """All that the referee needs to see of a study's gate at once.

    Args:
        store: Role ``easeml_referee``.
        study: The study.
        test_set: Number of the set that is looked at; None for that of the submission, else the live or the last one.
        submission: Number of the submission whose verdict is looked at; None for the newest that has one.
        model_id: The model in its place, where no submission is named.
        limit: Entries of the ledger, 1 to 500.

    Returns:
        ``{"sets", "set", "symbols", "verdict", "ledger", "ledger_total", "waiting", "wanted", "production"}``.

        ``sets``: as of ``test_sets.shown``, newest first, those that serve the gate, each with ``passes`` (answers that
        were changes) and, of a live one, ``needed`` (examples for the next verdict). ``set``: the number looked at, or
        None. ``symbols``: the newest entries of the gate on it, oldest first. ``verdict``: one entry in full, or None.
        Entries are as of ``ledger.study_ledger`` with ``number`` and ``called`` of the submission, and ``against``.
        ``waiting``: requests without an answer, oldest first. ``wanted``: what the labelers have to do on the set that
        is live, ``{"labels", "conflicts", "settled", "unsure"}``. ``production``: of ``production_of``.

    Raises:
        ConfigError: The limit is out of range.
        NotFoundError: There is no such study, set or submission.
    """
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
        return {
            "sets": [shown(s) | _life(tx, s) for s in sets],
            "set": None if chosen is None else chosen.id,
            "symbols": [named.entry(e) for e in reversed(symbols)],
            "verdict": None if verdict is None else named.entry(verdict),
            "ledger": [named.entry(e) for e in entries],
            "ledger_total": 0 if chosen is None else sealed.spent(tx, chosen.id)[0],
            "waiting": _waiting(tx, found.id),
            "wanted": _wanted(tx, live),
            "production": production_of(tx, found.id),
        }


def gate_ledger(store: Store, *, study: str, test_set: int, limit: int = MOST, skip: int = 0) -> list[dict[str, Any]]:
    """A page of a set's ledger, newest first; entries as of ``gate_report``.

    Raises:
        ConfigError: The limit is out of range.
        NotFoundError: The study has no such gate set.
    """
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
) -> tuple[SealedSet, dict[str, Any]]:
    """The set that judged a submission last, else a model, and its entry."""
    if submission is not None:
        model_id = submissions.model_of_number(tx, study_id, submission)
    for found in sets:
        entry = None if model_id is None else ledger.newest_of_model(tx, found.id, model_id)
        if entry is not None:
            return found, entry
    asked = ("model", model_id) if submission is None else ("submission", submission)
    raise NotFoundError(kind=f"verdict on {asked[0]}", name=asked[1], remedy="it was not judged on such a set")


class _Named:
    """Entries of the ledger with the numbers and names by which people know the models in them."""

    def __init__(self, tx: Connection, study_id: int, entries: Sequence[dict[str, Any]]) -> None:
        told = [e["report"].get(key) for e in entries for key in ("model_id", "incumbent_id")]
        ids = [int(model_id) for model_id in told if model_id is not None]
        self.numbers, self.names = submissions.numbers_of(tx, study_id, ids), submissions.names_of(tx, ids)

    def entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        told = shown_entry(entry)
        model_id, against = told["model_id"], told["incumbent_id"]
        return told | {
            "number": self.numbers.get(model_id),
            "called": self.names.get(model_id, ""),
            "against": self.names.get(against, ""),
            "decided_at": entry["decided_at"],
            "answered_at": entry["answered_at"],
        }


def _life(tx: Connection, found: SealedSet) -> dict[str, Any]:
    """How far a set is used up, beyond what everybody may know."""
    passes = ledger.used(tx, found.id)[1]
    return {"passes": passes, "needed": _needed(found, passes) if found.state == SealedSetState.LIVE else None}


def _needed(found: SealedSet, passes: int) -> int:
    """Examples that the next verdict on the set's own condition needs."""
    joint = joint_config(found)
    return _needed_by_joint(joint) if joint is not None else _needed_by_gate(gate_settings(found), passes)


@lru_cache(maxsize=1024)
def _needed_by_gate(plan: GateConfig, passes: int) -> int:
    return examples_for_gate(plan, changes=passes)


@lru_cache(maxsize=1024)
def _needed_by_joint(plan: JointConfig) -> int:
    """At the log weight that was planned for the last verdict, as the judge asks (``services/gate/judge.py``)."""
    return examples_for_joint_gate(plan.gate, planned_gate_log_weight(joint_plan(plan), plan.meter.ambiguous))


def _waiting(tx: Connection, study_id: int) -> list[dict[str, Any]]:
    """Gate requests without an answer, oldest first.

    Returns:
        ``{"request_id", "model_id", "number", "called", "requested_at", "decided", "labels"}`` each; ``decided`` where
        the answer only waits for its time, ``labels`` how many it waits for.
    """
    open_ = requests.unanswered(tx, study_id, RequestKind.GATE)
    ids = [int(entry["model_id"]) for entry in open_]
    numbers, names = submissions.numbers_of(tx, study_id, ids), submissions.names_of(tx, ids)
    wanted = {w.request_id: len(w.positions) for w in labels.open_wanted(tx)} if open_ else {}
    undecided = requests.undecided(tx, [entry["request_id"] for entry in open_])
    return [
        entry
        | {"number": numbers[entry["model_id"]], "called": names[entry["model_id"]]}
        | {"decided": entry["request_id"] not in undecided, "labels": wanted.get(entry["request_id"], 0)}
        for entry in open_
    ]


def _wanted(tx: Connection, live: SealedSet | None) -> dict[str, int]:
    """What labelers have to do: examples without a label that somebody waits for, conflicts, and conflicts settled.

    ``unsure`` counts those without a label that somebody has seen and cannot tell.
    """
    if live is None or not live.labels_on_demand:
        return {"labels": 0, "conflicts": 0, "settled": 0, "unsure": 0}
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
    return {
        "labels": int((asked & unsaid).sum()),
        "conflicts": int((disputed & ~word).sum()),
        "settled": int((disputed & word).sum()),
        "unsure": int((asked & (labels.cannot_tell(words, live.rows) > 0)).sum()),
    }
