"""What a developer may know of a study's submissions: one symbol and one signal each, and what is left.

Every fact here is one that the role ``easeml_worker`` may read, and so nothing of what the sealed sets hold.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from easeml_core.config import require
from easeml_core.entities import SealedSetPurpose, SealedSetState
from easeml_core.meter.promises import promised_sides
from easeml_core.services.meter.reading import HAS_NO_ANSWER_LEFT
from easeml_core.services.meter.results import shown_reading
from easeml_core.services.models.promotion import before_standing
from easeml_core.services.referee.requests import file_gate_request, file_meter_request
from easeml_core.services.test_sets.lifecycle import HAS_NO_LIVE_SET, steps_by_system
from easeml_core.services.test_sets.shared_set import SHARED_SET_HAS_ENDED, gate_settings, meter_settings_of
from easeml_core.store.queries import submissions
from easeml_core.store.tables import promotions, releases, studies, test_sets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from easeml_core.store.database import Store
    from easeml_core.store.tables.test_sets import SealedSet

MOST = 200
"""Submissions that one look gives at most."""

_MOST_SIGNALS = 64
_MOST_MODELS = 50
_LAST_ANSWERS = 8

_SET_HAD_ENDED = (HAS_NO_LIVE_SET.format(SealedSetPurpose.METER), HAS_NO_ANSWER_LEFT, SHARED_SET_HAS_ENDED)
"""What refusals of the meter say whose reason is that its set had ended; of a refusal the text is all that is kept."""


def handed_in_report(store: Store, *, study: str, limit: int = 20, skip: int = 0) -> dict[str, Any]:
    """The study's submissions with the symbols and signals that were released, and what its sets have left.

    Args:
        store: Any role.
        study: The study.
        limit: Submissions at most, 1 to 200, the newest first.
        skip: How many of the newest to leave out.

    Returns:
        ``{"total", "submissions", "gate", "meter", "production", "models", "leaves"}``.

        ``submissions``: as of ``store.handed_in.list_handed_in``; ``meter_too_late`` also where the meter has refused
        since its set had ended. ``leaves``: as of ``daily_answers``. ``gate``: None before the first gate set, else
        ``{"condition", "adaptivity", "mode", "reliability", "steps", "steps_used", "is_live"}`` of the live set, or of
        the last one. ``meter``: likewise ``{"edges", "tolerance", "sides", "reliability", "steps", "teams",
        "is_live", "reading", "signals"}``, ``sides`` the promised ends of a range; the
        reading is as of ``readings.shown_reading``, with its ``model_id`` and ``number``, None before the first and
        where several teams share the set. ``production``: ``{"now", "before"}``, each None or ``{"model_id", "called",
        "since"}``. ``models``: what can be handed in, the best first.

    Raises:
        ConfigError: The limit is out of range.
        NotFoundError: There is no such study.
    """
    require(1 <= limit <= MOST, "limit", limit, f"from 1 to {MOST}")
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        listed = submissions.list_handed_in(tx, found.id, limit=limit, skip=skip)
        sets = test_sets.list_sets(tx, found.id)
        return {
            "total": listed[0]["total"] if listed else 0,
            "submissions": [entry | {"meter_too_late": _is_too_late(entry)} for entry in listed],
            "gate": _gate(newest_set(sets, SealedSetPurpose.GATE)),
            "meter": _meter(tx, found.id, newest_set(sets, SealedSetPurpose.METER)),
            "production": production_of(tx, found.id),
            "models": submissions.models_to_hand_in(tx, found.id, limit=_MOST_MODELS),
            "leaves": daily_answers(*submissions.answer_times(tx, found.id, limit=_LAST_ANSWERS)),
        }


def _is_too_late(entry: Mapping[str, Any]) -> bool:
    """Whether the set of the meter had ended before this model could be read on it."""
    if entry["meter_waits"]:
        return bool(entry["meter_too_late"])
    return any(reason in (entry["meter_refusal"] or "") for reason in _SET_HAD_ENDED)


def daily_answers(left: Sequence[datetime], now: datetime) -> dict[str, Any] | None:
    """The hour of the day at which answers leave, as the last ones tell, and when the next ones can.

    Whoever starts the referee sets the hour, and nothing but the answers shows it. It follows from times that are
    public, whatever the sealed sets hold; whether a certain submission is answered then, it does not say.

    Args:
        left: When the last answers left.
        now: The present; all of them aware.

    Returns:
        ``{"hour", "next"}``, both in UTC; None unless the answers left on two days at least, all within a minute or two
        after the same time.

    Example:
        >>> days = [datetime(2026, 1, day, 6, 0, 3, tzinfo=UTC) for day in (5, 3, 3)]
        >>> daily_answers(days, datetime(2026, 1, 5, 12, tzinfo=UTC))["next"].isoformat()
        '2026-01-06T06:00:00+00:00'
    """
    times = [moment.astimezone(UTC) for moment in left]
    minutes = {60 * moment.hour + moment.minute for moment in times}
    if len({moment.date() for moment in times}) < 2 or max(minutes) - min(minutes) > 1:
        return None
    hour = time(*divmod(min(minutes), 60))
    today = datetime.combine(now.astimezone(UTC).date(), hour, tzinfo=UTC)
    return {"hour": hour, "next": today if today > now else today + timedelta(days=1)}


def newest_set(sets: list[SealedSet], purpose: SealedSetPurpose) -> SealedSet | None:
    """The live set that serves this purpose, else the last one that has; None before the first.

    Args:
        sets: All of the study, newest first.
        purpose: ``gate`` or ``meter``.
    """
    known = (SealedSetState.LIVE, SealedSetState.RETIRED, SealedSetState.RELEASED)
    serving = [s for s in sets if purpose in test_sets.serves(s.purpose) and s.state in known]
    return min(serving, key=lambda s: (s.state != SealedSetState.LIVE, -s.id), default=None)


def production_of(tx: Connection, study_id: int) -> dict[str, Any]:
    """What stands in production, and what stood before it."""
    moves = promotions.history(tx, study_id)
    pair = {"now": moves[-1] if moves else None, "before": before_standing(moves)}
    called = submissions.names_of(tx, [move.model_id for move in pair.values() if move is not None])
    return {
        when: move and {"model_id": move.model_id, "called": called[move.model_id], "since": move.promoted_at}
        for when, move in pair.items()
    }


def _gate(found: SealedSet | None) -> dict[str, Any] | None:
    if found is None:
        return None
    plan, steps = gate_settings(found), steps_by_system(found)["gate"]
    shown = {name: getattr(plan, name) for name in ("condition", "adaptivity", "mode", "reliability")}
    return shown | steps | {"is_live": found.state == SealedSetState.LIVE}


def _meter(tx: Connection, study_id: int, found: SealedSet | None) -> dict[str, Any] | None:
    if found is None:
        return None
    plan = meter_settings_of(found)
    signals = submissions.list_signals(tx, study_id, found.id, limit=_MOST_SIGNALS) if plan.teams == 1 else []
    numbers = submissions.numbers_of(tx, study_id, [entry["model_id"] for entry in signals])
    return {
        "edges": list(plan.ranges),
        "tolerance": plan.tolerance,
        "sides": sorted(promised_sides(plan)),
        "reliability": plan.reliability,
        "steps": plan.steps,
        "teams": plan.teams,
        "is_live": found.state == SealedSetState.LIVE,
        "reading": _reading(tx, study_id) if signals else None,
        "signals": [entry | {"number": numbers[entry["model_id"]]} for entry in signals],
    }


def _reading(tx: Connection, study_id: int) -> dict[str, Any] | None:
    found = releases.newest_reading(tx, study_id)
    if found is None:
        return None
    number = submissions.numbers_of(tx, study_id, [found.model_id])[found.model_id]
    return shown_reading(found) | {"model_id": found.model_id, "number": number}


def hand_in(store: Store, *, study: str, model_id: int, gate: bool, meter: bool, request_key: str) -> dict[str, int]:
    """Ask gate and meter, or one of them, about a model that the study has.

    Args:
        store: Role ``easeml_worker``.
        study: The study.
        model_id: The model.
        gate: Whether to ask for a verdict.
        meter: Whether to ask for a signal.
        request_key: The same key asks nothing twice.

    Returns:
        The id of the request of each that was asked: ``gate``, ``meter``.

    Raises:
        ConfigError: Neither is asked.
        NotFoundError: There is no such study or model.
        InvalidInputError: The key has asked for something else.
    """
    require(gate or meter, "gate", gate, "true, or meter true: somebody must be asked")
    filed = {}
    if gate:
        asked = file_gate_request(store, study=study, model_id=model_id, request_key=f"{request_key}/gate")
        filed["gate"] = int(asked["request_id"])
    if meter:
        asked = file_meter_request(store, study=study, model_id=model_id, request_key=f"{request_key}/meter")
        filed["meter"] = int(asked["request_id"])
    return filed
