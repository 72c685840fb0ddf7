"""The referee's reading on one submission: how far the validation set flatters it, as one signal, or as two.

Where the study has a second hidden sample of the validation distribution (purpose ``direct``), each submission is read
on both sets, and the two signals tell tuning from drift (``meter/drift.py``). Neither set pays for the other's
answers. The study's meter set decides: where it gives no answer, the second one is not asked.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from easeml_core.config import require
from easeml_core.entities import SealedSetPurpose
from easeml_core.meter.budget import budget_breach
from easeml_core.meter.drift import TwoSignals, both_reliability, combine, drift_alert
from easeml_core.services.meter.meter_sets import MeterSet, SetReading, Submission, meter_set, read_on, require_runs
from easeml_core.services.meter.results import data_version_of
from easeml_core.services.test_sets.answer import Answer
from easeml_core.services.test_sets.set_queue import no_live_set
from easeml_core.services.test_sets.shared_set import meter_settings_of
from easeml_core.store.tables import models, releases, studies

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.config import MeterConfig
    from easeml_core.entities import Study
    from easeml_core.services.evaluation.sealed_runs import Preparation
    from easeml_core.store.tables.requests import Request

logger = logging.getLogger(__name__)

_ALIKE = ("ranges", "tolerance", "tolerances", "teams")
"""Settings in which the two meters must agree, so that their signals can be compared."""


def meter(tx: Connection, ready: Preparation, request: Request) -> Answer:
    """Decide a meter request: one signal, or the set's retirement when its guarantee would not hold any more.

    The same artifact is answered from the ledger: it costs nothing and raises no second alert. What is decided is
    published later, by ``services/referee/publishing.py``.

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
        raise no_live_set(tx, study, SealedSetPurpose.METER)
    submission = _submission(tx, study, request, meter_settings_of(test_set))
    second = releases.live_test_set(tx, study.id, SealedSetPurpose.DIRECT, lock=True)
    comparable = second is not None and not _differences(test_set, second)
    require_runs(tx, ready, submission, [test_set, second] if comparable else [test_set])
    total = read_on(tx, ready, meter_set(tx, test_set, submission))
    if second is None or total.entry.signal is None:
        return _answer(tx, study, total, None)
    if not comparable:
        _warn(study, test_set, second)
        return _answer(tx, study, total, None)
    return _answer(tx, study, total, _direct(tx, ready, meter_set(tx, second, submission)))


def _submission(tx: Connection, study: Study, request: Request, config: MeterConfig) -> Submission:
    team = request.arguments.get("team", 1)
    known = type(team) is int and 1 <= team <= config.teams
    require(known, "team", team, f"a whole number from 1 to {config.teams}, the teams that the set is planned for")
    model = models.get_model(tx, study.id, request.model_id or 0)
    return Submission(request, model, studies.latest_data_version(tx, study.id), team, study.hit)


def _direct(tx: Connection, ready: Preparation, second: MeterSet) -> SetReading | None:
    """The reading on the second validation sample, unless that can say nothing of this submission any more."""
    return None if second.has_ended() and second.cached() is None else read_on(tx, ready, second)


def _differences(test_set: Any, second: Any) -> list[str]:
    """Settings in which the second validation sample must agree with the meter set, and does not."""
    ours, other = meter_settings_of(test_set), meter_settings_of(second)
    differing = [name for name in _ALIKE if getattr(other, name) != getattr(ours, name)]
    if "dithered" in (other.method, ours.method) and other.method != ours.method:
        differing.append("method")
    return differing


def _warn(study: Study, test_set: Any, second: Any) -> None:
    logger.warning(
        "study %s: the second validation sample (set %d) is not read, its %s differ from those of meter set %d; "
        "retire it and seal one with the same",
        *(study.name, second.id, " and ".join(_differences(test_set, second)), test_set.id),
    )


def _answer(tx: Connection, study: Study, total: SetReading, direct: SetReading | None) -> Answer:
    """What is published: the signals, what they promise, and what they mean for the sets and the budget."""
    both = _both(total, direct)
    breach = None if total.cached else _breach(tx, study.id, total, both)
    news = direct is not None and not (total.cached and direct.cached)
    facts = {
        "study_id": study.id,
        "test_set_id": total.on.row.id,
        "retired_why": total.retired_why,
        "reading": _first_reading(total) | _second_reading(direct, both),
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


def _first_reading(total: SetReading) -> dict[str, Any]:
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


def _breach(tx: Connection, study_id: int, total: SetReading, both: TwoSignals | None) -> str | None:
    """The alert's sentence when the team's last answer breaks the overfitting budget.

    Answers in a row are those about one validation set, whose rows most versions of the data may share.
    """
    own, entry = total.on.own(), total.entry
    versions = [data_version_of(earlier) for earlier in own]
    first = studies.validation_sets(tx, study_id) if len(set(versions)) > 1 else {}
    return budget_breach(
        [earlier.signal for earlier in own],
        total.on.config,
        edges=entry.edges,
        tolerance=entry.tolerance,
        versions=[first.get(version, version) for version in versions],
        both=both,
    )


def _drift_alert(total: SetReading, direct: SetReading | None, both: TwoSignals | None) -> str | None:
    """The alert's sentence when the two signals leave no room for equal distributions."""
    if direct is None or both is None:
        return None
    return drift_alert(both, both_reliability(total.on.config, direct.on.config))
