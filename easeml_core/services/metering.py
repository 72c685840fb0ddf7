"""The referee's reading on one submission: how far the validation set flatters it, as one signal."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.config import MeterConfig, require
from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import StateError
from easeml_core.meter.budget import budget_breach
from easeml_core.meter.dither import late_shift
from easeml_core.meter.meter import Answered, read_submission
from easeml_core.meter.node_counts import team_steps
from easeml_core.services.answers import Answer
from easeml_core.services.evaluation import sealed_predictions, validation_loss
from easeml_core.store import ledger, models, releases, sealed, studies
from easeml_core.store.ledger import RETIRED, MeterEntry

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.entities import Model
    from easeml_core.services.evaluation import Preparation
    from easeml_core.store.requests import Request

_USUAL = {"edges": [], "why": "", "team": 1, "promised_tolerance": None, "ends": False}
"""What an entry of the ledger does not say, since it follows from the plan (``store/ledger.py`` reads it so)."""

_RETIRED_ALERT = "the sealed meter set is retired, it can give no further answer; the referee must seal a new one"


@dataclass(frozen=True, slots=True)
class _MeterSet:
    """A live set, what it was planned for, what it has answered, and whose submission is to be read.

    Attributes:
        row: Of ``work.test_sets``.
        config: Its plan.
        earlier: All earlier submissions, oldest first.
        team: 1..K.
    """

    row: Any
    config: MeterConfig
    earlier: list[MeterEntry]
    team: int

    def own(self) -> list[MeterEntry]:
        """The earlier submissions of this team."""
        return [entry for entry in self.earlier if entry.team == self.team]

    def cache_key(self, model: Model) -> str:
        """What a repeated submission has in common with the first: teams share nothing, not even that."""
        return model.identity if self.config.teams == 1 else f"{model.identity} team {self.team}"


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
    test_set = releases.live_test_set(tx, study.id, SealedSetPurpose.METER, lock=True)
    if test_set is None:
        message = f"study {study.name!r} has no live meter set; the referee must seal a new one"
        raise StateError(message)
    config = MeterConfig.from_json(test_set.plan)
    team = request.arguments.get("team", 1)
    known = type(team) is int and 1 <= team <= config.teams
    require(known, "team", team, f"a whole number from 1 to {config.teams}, the teams that the set is planned for")
    meter_set = _MeterSet(test_set, config, ledger.meter_entries(tx, test_set.id), team)
    model = models.get_model(tx, study.id, request.model_id or 0)
    cache_key = meter_set.cache_key(model)
    entry = next((e for e in meter_set.earlier if e.cache_key == cache_key), None)
    cached = entry is not None
    if entry is None:
        entry = _read(tx, ready, request, meter_set, model)
        meter_set.earlier.append(entry)
    return _answer(study.id, model, meter_set, entry, cached=cached)


def _answer(study_id: int, model: Model, meter_set: _MeterSet, entry: MeterEntry, *, cached: bool) -> Answer:
    """What is published: the signal, what it promises, and what it means for the set and the budget."""
    signals, signal = len(meter_set.config.ranges) + 1, entry.signal
    breach = None if cached else _breach(meter_set, entry)
    retired = signal is None and not cached
    facts = {
        "study_id": study_id,
        "test_set_id": meter_set.row.id,
        "retired_why": None if cached else _retires(meter_set, entry),
        "reading": {
            "model_id": model.id,
            "test_set_id": meter_set.row.id,
            "step": entry.step,
            "signal": signal,
            "signals": signals,
            "cached": cached,
            "team": entry.team,
            "edges": list(entry.edges) or None,
            "tolerance": entry.tolerance,
            "submissions_left": _left(meter_set),
        },
        "alert": breach or (_RETIRED_ALERT if retired else None),
        "over_budget": breach is not None,
    }
    return Answer("the sealed set is retired" if signal is None else f"signal {signal} of {signals}", facts)


def _breach(meter_set: _MeterSet, entry: MeterEntry) -> str | None:
    """The alert's sentence when the team's last answer breaks the overfitting budget."""
    answers = [earlier.signal for earlier in meter_set.own()]
    return budget_breach(answers, meter_set.config, edges=entry.edges, tolerance=entry.tolerance)


def _retires(meter_set: _MeterSet, entry: MeterEntry) -> str | None:
    """Why the set ends with this answer, or None: it lives as long as one of its teams can be answered.

    A team must not learn that another one has used up its part.
    """
    ended = {earlier.team for earlier in meter_set.earlier if earlier.ends}
    if len(ended) < meter_set.config.teams:
        return None
    if entry.signal is None:
        return "signals"
    return "steps" if _left(meter_set) == 0 else "regulation"


def _left(meter_set: _MeterSet) -> int | None:
    """Submissions that the team may still make; None where there is no last one. Its own answers alone count."""
    config = meter_set.config
    if config.open_ended:
        return None
    return max(0, team_steps(config.steps, config.teams)[meter_set.team - 1] - len(meter_set.own()))


def _read(tx: Connection, ready: Preparation, request: Request, meter_set: _MeterSet, model: Model) -> MeterEntry:
    """Use one step of the set: its entry in the ledger, without a signal when the set is retired instead."""
    config, set_id = meter_set.config, meter_set.row.id
    if any(entry.ends for entry in meter_set.own()):
        message = f"team {meter_set.team} has no answer left on this meter set; wait for the next one"
        raise StateError(message)
    loss = validation_loss(tx, ready, model)  # first: it is about open data, and nothing is spent if it fails
    predictions, failure = sealed_predictions(tx, ready, model, set_id)
    labels = sealed.sealed_labels(tx, set_id)
    errors = len(labels) if predictions is None else int(np.sum(predictions != labels))
    reading = read_submission(
        errors=errors,
        examples=len(labels),
        validation_loss=loss,
        config=config,
        earlier=[Answered(entry.signal, entry.log_cost, entry.team) for entry in meter_set.earlier],
        team=meter_set.team,
        shift=_shift(tx, request, config) if config.method == "dithered" else None,
    )
    entry = MeterEntry(
        step=len(meter_set.earlier) + 1,
        cache_key=meter_set.cache_key(model),
        signal=reading.signal,
        log_cost=reading.log_cost,
        team=meter_set.team,
        edges=reading.edges,
        tolerance=_promised(meter_set),
        ends=reading.ends or reading.retired,
    )
    report = reading.to_json() | {"errors": errors, "validation_loss": loss, "failure": failure}
    report |= {"model_id": model.id, "model": model.identity}
    report |= {"team": entry.team, "promised_tolerance": entry.tolerance, "ends": entry.ends}
    for name, usual in _USUAL.items():  # left out: the shorter the entries, the less their size on disk varies
        if report[name] == usual:
            del report[name]
    _keep(tx, request, meter_set, entry, log_level=reading.log_level, tolerance=reading.tolerance_now, report=report)
    return entry


def _keep(
    tx: Connection,
    request: Request,
    meter_set: _MeterSet,
    entry: MeterEntry,
    *,
    log_level: float,
    tolerance: float,
    report: dict[str, Any],
) -> None:
    sealed.add_entry(
        tx,
        test_set_id=meter_set.row.id,
        step=entry.step,
        steps=meter_set.row.steps,
        request_id=request.id,
        cache_key=entry.cache_key,
        answer=RETIRED if entry.signal is None else str(entry.signal),
        log_level=log_level,
        log_cost=entry.log_cost,
        tolerance=tolerance,
        report=report,
        open_ended=meter_set.config.open_ended,
    )


def _shift(tx: Connection, request: Request, config: MeterConfig) -> float:
    """How far the boundaries are shifted for this submission.

    A keyed hash (HMAC-SHA-256 with the installation's secret) of the request, which exists only once the submission is
    made: nobody but the referee can know it before, and a repetition after a crash finds the same.
    """
    digest = hmac.digest(sealed.installation_secret(tx), f"dither|{request.id}".encode(), "sha256")
    return late_shift(config.ranges, np.random.default_rng(int.from_bytes(digest, "big")))


def _promised(meter_set: _MeterSet) -> float | None:
    """The tolerance that is promised with the next signal, by the team's signals; None for the one of the plan."""
    config = meter_set.config
    if not config.tolerances:
        return None
    worst = max((entry.signal for entry in meter_set.own() if entry.signal is not None), default=1)
    return config.tolerances[worst - 1]
