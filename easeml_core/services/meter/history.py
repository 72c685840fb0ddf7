"""What a meter set has answered, measured and paid: the referee's view of overfitting. Not for developers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from easeml_core.entities import SealedSetPurpose, SealedSetState
from easeml_core.meter.budget import parse_budget
from easeml_core.meter.promises import promised_sides
from easeml_core.services.meter.results import shown_reading
from easeml_core.services.test_sets.lifecycle import shown
from easeml_core.services.test_sets.shared_set import meter_settings_of
from easeml_core.store.tables import ledger, releases, studies, test_sets
from easeml_core.store.tables.ledger import METER, RETIRED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from easeml_core.store.database import Store
    from easeml_core.store.tables.test_sets import SealedSet

MOST_ANSWERS = 1000
"""Answers that a picture is made of: the newest."""

MOST_SETS = 20
"""Sets to choose from: the newest."""

METERED = (SealedSetPurpose.METER, SealedSetPurpose.JOINT)


def meter_history(
    store: Store, *, study: str, test_set_id: int | None = None, page: int = 1, size: int = 20
) -> dict[str, Any]:
    """The meter of a study, as plain JSON but for times.

    Args:
        store: Role ``easeml_referee``.
        study: The study.
        test_set_id: One of its meter sets, or None for the live one, else the newest. An unknown one counts as None.
        page: Of the ledger, from 1; newest entries first.
        size: Entries a page.

    Returns:
        ``{"sets", "set", "settings", "sides", "budget", "answers", "second", "reading", "entries", "entry_count",
        "validation_rows"}``. ``sides`` are the ends of a range that are promised. ``set`` is as of
        ``test_sets.shown``, None without one; then the others are empty.
        ``answers`` are the meter's, oldest first, ``{"step", "system", "signal", "is_retired", "gap", "tolerance",
        "reachable", "cost", "level", "log_level", "team", "edges", "promised", "why", "model_id", "decided_at",
        "answered_at"}``; ``second`` is the last one of the second validation sample with its set, or None; ``reading``
        as of ``readings.shown_reading``; ``entries`` are those of gate and meter, like ``answers``, newest first.

    Raises:
        NotFoundError: There is no such study.
    """
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        every = test_sets.list_sets(tx, found.id)
        sets = [s for s in every if s.purpose in METERED and s.state != SealedSetState.PLANNED][:MOST_SETS]
        chosen = _chosen(sets, test_set_id)
        if chosen is None:
            return {"sets": [], "set": None, "answers": [], "entries": [], "entry_count": 0}
        settings = meter_settings_of(chosen)
        entries = ledger.set_ledger(tx, chosen.id, limit=size, skip=(max(page, 1) - 1) * size)
        reading = releases.newest_reading(tx, found.id, team=1)
        version = studies.latest_data_version(tx, found.id)
        return {
            "sets": [shown(one) for one in sets],
            "set": shown(chosen),
            "settings": settings.to_json(),
            "sides": sorted(promised_sides(settings)),
            "budget": [rule.text for rule in parse_budget(settings)],
            "answers": _answers(tx, chosen),
            "second": _second(tx, every),
            "reading": None if reading is None else shown_reading(reading),
            "entries": [_told(entry) for entry in entries],
            "entry_count": ledger.next_step(tx, chosen.id) - 1,
            "validation_rows": version.validation_rows,
        }


def _chosen(sets: Sequence[SealedSet], test_set_id: int | None) -> SealedSet | None:
    """The set of this number, else the live one, else the newest."""
    named = [found for found in sets if found.id == test_set_id]
    live = [found for found in sets if found.state == SealedSetState.LIVE]
    return next(iter([*named, *live, *sets]), None)


def _answers(tx: Connection, chosen: SealedSet) -> list[dict[str, Any]]:
    entries = ledger.set_ledger(tx, chosen.id, system=METER, limit=MOST_ANSWERS)
    return [_told(entry) for entry in reversed(entries)]


def _second(tx: Connection, sets: Sequence[SealedSet]) -> dict[str, Any] | None:
    """The last answer of the second validation sample, with its set; None without one."""
    for found in sets:
        if found.purpose == SealedSetPurpose.DIRECT and found.state == SealedSetState.LIVE:
            entries = ledger.set_ledger(tx, found.id, system=METER, limit=1)
            return {"set": shown(found), "answer": _told(entries[0]) if entries else None}
    return None


def _told(entry: Mapping[str, Any]) -> dict[str, Any]:
    """One entry, a verdict's without what is the gate's own."""
    report, is_meter = entry["report"], entry["system"] == METER
    return {
        "step": entry["system_step"],
        "system": entry["system"],
        "signal": int(entry["answer"]) if is_meter and entry["answer"] != RETIRED else None,
        "is_retired": is_meter and entry["answer"] == RETIRED,
        "gap": report.get("gap") if is_meter else None,
        "tolerance": entry["tolerance"] if is_meter else None,
        "reachable": report.get("reachable") if is_meter else None,
        "cost": entry["log_cost"],
        "level": math.exp(entry["log_level"]),
        "log_level": entry["log_level"],
        "team": report.get("team", 1),
        "edges": report.get("edges", []),
        "promised": report.get("promised_tolerance"),
        "why": report.get("why", ""),
        "model_id": report.get("model_id"),
        "decided_at": entry["decided_at"],
        "answered_at": entry["answered_at"],
    }
