"""The referee's reading on one submission: how far the validation set flatters it, as one signal, or as two.

Where the study has a second hidden sample of the validation distribution (purpose ``direct``), each submission is read
on both sets, and the two signals tell tuning from drift (``meter/two_meters.py``). Neither set pays for the other's
answers. The study's meter set decides: where it gives no answer, the second one is not asked.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from easeml_core.config import require
from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import StateError
from easeml_core.meter.budget import budget_breach
from easeml_core.meter.two_meters import TwoSignals, both_reliability, combine
from easeml_core.services.answers import Answer
from easeml_core.services.joint_sets import meter_settings_of
from easeml_core.services.meter_sets import MeterSet, SetReading, Submission, meter_set, read_on
from easeml_core.store import models, releases, studies

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.config import MeterConfig
    from easeml_core.entities import Study
    from easeml_core.services.evaluation import Preparation
    from easeml_core.store.requests import Request

logger = logging.getLogger(__name__)

_ALIKE = ("ranges", "tolerance", "tolerances", "teams")
"""Settings in which the two meters must agree, so that their signals can be compared."""


def meter(tx: Connection, ready: Preparation, request: Request) -> Answer:
    """Decide a meter request: one signal, or the set's retirement when its guarantee would not hold any more.

    The same artifact is answered from the ledger: it costs nothing and raises no second alert. What is decided is
    published later, by ``services/answers.py``.

    Returns:
        What to answer.

    Raises:
        ConfigError: The set was not planned for the team that the request names.
        StateError: The study has no live meter set, or the team has no answer left on it.
    """
    study = studies.study_by_id(tx, request.study_id)
    releases.hold_study(tx, study.id)  # all its sets at once, in one order: a gate may share one of them
    test_set = releases.live_test_set(tx, study.id, SealedSetPurpose.METER, lock=True)
    if test_set is None:
        message = f"study {study.name!r} has no live meter set; the referee must seal a new one"
        raise StateError(message)
    submission = _submission(tx, study, request, meter_settings_of(test_set))
    total = read_on(tx, ready, meter_set(tx, test_set, submission))
    second = None if total.entry.signal is None else _second_set(tx, study, total)
    direct = None if second is None else read_on(tx, ready, second)
    return _answer(study, total, direct)


def _submission(tx: Connection, study: Study, request: Request, config: MeterConfig) -> Submission:
    team = request.arguments.get("team", 1)
    known = type(team) is int and 1 <= team <= config.teams
    require(known, "team", team, f"a whole number from 1 to {config.teams}, the teams that the set is planned for")
    model = models.get_model(tx, study.id, request.model_id or 0)
    return Submission(request, model, studies.latest_data_version(tx, study.id), team)


def _second_set(tx: Connection, study: Study, total: SetReading) -> MeterSet | None:
    """The second validation sample, where there is a live one that can say something of this submission."""
    test_set = releases.live_test_set(tx, study.id, SealedSetPurpose.DIRECT, lock=True)
    if test_set is None:
        return None
    second = meter_set(tx, test_set, total.on.submission)
    differing = [name for name in _ALIKE if getattr(second.config, name) != getattr(total.on.config, name)]
    if "dithered" in (second.config.method, total.on.config.method) and second.config.method != total.on.config.method:
        differing.append("method")
    if differing:
        logger.warning(
            "study %s: the second validation sample (set %d) is not read, its %s differ from those of meter set %d; "
            "retire it and seal one with the same",
            *(study.name, test_set.id, " and ".join(differing), total.on.row.id),
        )
        return None
    return None if second.has_ended() and second.cached() is None else second


def _answer(study: Study, total: SetReading, direct: SetReading | None) -> Answer:
    """What is published: the signals, what they promise, and what they mean for the sets and the budget."""
    both = _both(total, direct)
    breach = None if total.cached else _breach(total)
    news = direct is not None and not (total.cached and direct.cached)
    facts = {
        "study_id": study.id,
        "test_set_id": total.on.row.id,
        "retired_why": total.retired_why,
        "reading": _reading(total) | _second_reading(direct, both),
        "alert": breach,
        "over_budget": None if breach is None else True,
        "drift_alert": _drift_alert(total, direct, both) if news else None,
        "direct_retired_why": None if direct is None else direct.retired_why,
    }
    return Answer(_message(total, direct, both), facts)


def _both(total: SetReading, direct: SetReading | None) -> TwoSignals | None:
    """What both signals say together, where there are two."""
    said = (total.said(), None if direct is None else direct.said())
    return None if said[0] is None or said[1] is None else combine(said[0], said[1])


def _reading(total: SetReading) -> dict[str, Any]:
    """The columns of ``work.meter_readings`` on the study's meter set."""
    entry, submission = total.entry, total.on.submission
    return {
        "model_id": submission.model.id,
        "test_set_id": total.on.row.id,
        "step": entry.step,
        "signal": entry.signal,
        "signals": len(total.on.config.ranges) + 1,
        "cached": total.cached,
        "team": entry.team,
        "edges": list(entry.edges) or None,
        "tolerance": entry.tolerance,
        "submissions_left": total.on.left(),
        "data_version_id": submission.version.id,
    }


def _second_reading(direct: SetReading | None, both: TwoSignals | None) -> dict[str, Any]:
    """The columns on the second validation sample."""
    if direct is None:
        return {"direct_test_set_id": None, "direct_signal": None, "drift": None}
    drift = None if both is None else both.drift
    return {"direct_test_set_id": direct.on.row.id, "direct_signal": direct.entry.signal, "drift": drift}


def _message(total: SetReading, direct: SetReading | None, both: TwoSignals | None) -> str:
    if total.entry.signal is None:
        return "the sealed set is retired"
    shown = f"signal {total.entry.signal} of {len(total.on.config.ranges) + 1}"
    if direct is None:
        return shown
    if both is None:
        return f"{shown}; the second validation sample is retired"
    return f"{shown}, {both.direct} on the second validation sample; drift: {both.drift}"


def _breach(total: SetReading) -> str | None:
    """The alert's sentence when the team's last answer breaks the overfitting budget."""
    answers = [earlier.signal for earlier in total.on.own()]
    return budget_breach(answers, total.on.config, edges=total.entry.edges, tolerance=total.entry.tolerance)


def _drift_alert(total: SetReading, direct: SetReading | None, both: TwoSignals | None) -> str | None:
    """The alert's sentence when the two signals leave no room for equal distributions."""
    if direct is None or both is None or both.drift != "certain":
        return None
    size = both.drift_low if both.drift_low > 0 else -both.drift_high
    reliability = both_reliability(total.on.config, direct.on.config)
    harder = "harder" if both.drift_low > 0 else "easier"
    return f"{both.sentence} ({harder} by at least {size:g}, with probability {reliability:g})"
