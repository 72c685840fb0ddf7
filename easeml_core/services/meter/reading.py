"""Decide a meter request: how far the validation set overstates a submission, as one signal, or as two.

Where the study has a second hidden sample of the validation distribution (purpose ``direct``), each submission is read
on both sets, and the two signals distinguish tuning from drift (``meter/drift.py``). Neither set pays for the other's
answers. The study's meter set decides: where it gives no answer, the second one is not read.

The set's state is its ledger. A repeated submission is answered from it at no cost; another one uses a step and adds an
entry.
"""

from __future__ import annotations

import hmac
import logging
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.entities import JsonObject, SealedSetPurpose
from easeml_core.errors import StateError
from easeml_core.meter.drift import Said, both_reliability, combine
from easeml_core.meter.meter import COUNTS_REACHABLE, read_submission
from easeml_core.meter.overfitting_budget import budget_breach
from easeml_core.meter.ranges import late_shift
from easeml_core.meter.reading import Reading
from easeml_core.meter.sentences import TwoSignals, drift_alert
from easeml_core.meter.tree_size import team_steps
from easeml_core.metrics.metric import wrong
from easeml_core.services.evaluation.sealed_runs import Run, sealed_predictions, validation_loss
from easeml_core.services.test_sets.answers import (
    Answer,
    Asked,
    is_joint,
    joint_end,
    meter_settings_of,
    require_joint_goes_on,
)
from easeml_core.services.test_sets.lifecycle import no_live_set
from easeml_core.settings.config import require
from easeml_core.store.tables import ledger, models, sealed, studies
from easeml_core.store.tables.ledger import RETIRED, MeterEntry
from easeml_core.store.tables.outbox import MeterFacts
from easeml_core.store.tables.releases import Reading as ReleasedReading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import DataVersion, Model, Study
    from easeml_core.services.evaluation.sealed_runs import Preparation
    from easeml_core.settings.config import MeterConfig
    from easeml_core.store.tables.requests import Request
    from easeml_core.store.tables.test_sets import PlannedSet


logger = logging.getLogger(__name__)

HAS_NO_ANSWER_LEFT = "has no answer left on this meter set"
"""The text of a refusal to a team."""

FAILURE = "failure"
"""Why a set ends on which a model could not be run."""

_DATA = re.compile(r".* data (\d+)", re.DOTALL)
"""A key of a repeated submission on data of another version than 1."""

_USUAL = {"edges": [], "why": "", "team": 1, "promised_tolerance": None, "ends": False}
"""Fields that an entry of the ledger leaves out, since they follow from the plan (``store/tables/ledger.py``)."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A model to read.

    Attributes:
        request: The meter request.
        model: The model.
        version: The data on whose validation part its loss is measured.
        team: Whose submission it is, 1..K.
        hit: What counts as right.
    """

    request: Request
    model: Model
    version: DataVersion
    team: int
    hit: str


@dataclass(frozen=True, slots=True)
class MeterSet:
    """A live set with its plan, its answers, and the submission that is to be read on it.

    Attributes:
        row: Of ``work.test_sets``.
        config: What the meter was planned for on it.
        earlier: All earlier readings on it, oldest first.
        submission: Whose model it is.
    """

    row: PlannedSet
    config: MeterConfig
    earlier: list[MeterEntry]
    submission: Submission

    def own(self) -> list[MeterEntry]:
        """The earlier readings of this team."""
        return [entry for entry in self.earlier if entry.team == self.submission.team]

    def has_ended(self) -> bool:
        """Whether the team gets no new answer on this set."""
        return any(entry.ends for entry in self.own())

    def cached(self) -> MeterEntry | None:
        """Return the answer to the same submission, or None."""
        key = self.cache_key()
        return next((entry for entry in self.earlier if entry.cache_key == key), None)

    def cache_key(self) -> str:
        """Return the key of a repeated submission."""
        return cache_key(self.config, self.submission)

    def left(self) -> int | None:
        """Return the submissions that the team may still make; None where there is no last one."""
        if self.config.open_ended:
            return None
        planned = team_steps(self.config.steps, self.config.teams)[self.submission.team - 1]
        return max(0, planned - len(self.own()))


@dataclass(frozen=True, slots=True)
class SetReading:
    """One set's answer to the submission.

    Attributes:
        on: The set, this reading included.
        entry: The answer.
        cached: Whether it was given before.
        retired_why: Why the set ends with it, or None.
    """

    on: MeterSet
    entry: MeterEntry
    cached: bool
    retired_why: str | None

    def said(self) -> Said | None:
        """Return the signal with what it promises; None when there is none."""
        entry = self.entry
        return None if entry.signal is None else Said(entry.signal, self.on.config, entry.edges, entry.tolerance)


def cache_key(config: MeterConfig, submission: Submission) -> str:
    """Return the key of a repeated submission to a set with this plan.

    It names the team, since teams share nothing, and the validation set, on which the same artifact has another gap.
    """
    team = "" if config.teams == 1 else f" team {submission.team}"
    data = "" if submission.version.version == 1 else f" data {submission.version.version}"
    return submission.model.identity + team + data


def data_version_of(entry: MeterEntry) -> int:
    """Return the number of the data version on whose validation part the loss of an entry was measured."""
    found = _DATA.fullmatch(entry.cache_key)
    return 1 if found is None else int(found[1])


def require_runs(tx: Connection, ready: Preparation, submission: Submission, sets: Sequence[PlannedSet]) -> None:
    """Stop a new reading before its validation loss is measured, and name all runs that it will need, at once.

    Nothing else is decided here: the submission is then read, answered from the ledger or refused (``read_on``), so
    nothing is run for a submission that would not be read.
    """
    model, version = submission.model, submission.version
    if ready.loss(model, version.artifact) is not None or not _answers_anew(tx, submission, sets[0]):
        return
    needed = [sets[0].id] + [row.id for row in sets[1:] if _answers_anew(tx, submission, row)]
    unknown = [set_id for set_id in needed if not sealed.known_predictions(tx, set_id, model.identity)]
    raise ready.missing(Run(model, None), *(Run(model, set_id) for set_id in unknown))


def _answers_anew(tx: Connection, submission: Submission, row: PlannedSet) -> bool:
    key = cache_key(meter_settings_of(row), submission)
    anew = ledger.meter_answers_anew(tx, row.id, cache_key=key, team=submission.team)
    return anew and joint_end(tx, row) is None


def meter_set(tx: Connection, row: PlannedSet, submission: Submission) -> MeterSet:
    """Return the present state of a set; ``row`` is that of a live set, which the transaction holds."""
    return MeterSet(row, meter_settings_of(row), ledger.meter_entries(tx, row.id), submission)


def read_on(tx: Connection, ready: Preparation, on: MeterSet) -> SetReading:
    """Read the submission on the set: from its ledger, or by using one step of it."""
    known = on.cached()
    if known is not None:
        return SetReading(on, known, cached=True, retired_why=None)
    if on.has_ended():
        message = f"team {on.submission.team} {HAS_NO_ANSWER_LEFT}; wait for the next one"
        raise StateError(message)
    require_joint_goes_on(tx, on.row)
    entry, why = _read(tx, ready, on)
    on.earlier.append(entry)
    return SetReading(on, entry, cached=False, retired_why=_retires(tx, on, entry, why))


def _retires(tx: Connection, on: MeterSet, entry: MeterEntry, why: str) -> str | None:
    """Return why the set ends with this answer, or None: it lives as long as one of its teams can be answered.

    A team must not learn that another one has used up its part.
    """
    ended = {earlier.team for earlier in on.earlier if earlier.ends}
    if len(ended) < on.config.teams:
        return joint_end(tx, on.row)
    if entry.signal is None:
        return FAILURE if why == FAILURE else "signals"
    return "steps" if on.left() == 0 else "regulation"


def _read(tx: Connection, ready: Preparation, on: MeterSet) -> tuple[MeterEntry, str]:
    """Use one step of the set: its entry in the ledger, without a signal when the set is retired instead; and why."""
    model, set_id = on.submission.model, on.row.id
    loss = validation_loss(ready, model, on.submission.version)  # first: it is open data, nothing is spent if it fails
    (said,) = sealed_predictions(tx, ready, set_id, model)
    labels = sealed.sealed_labels(tx, set_id)
    errors = len(labels) if said.labels is None else int(np.sum(wrong(on.submission.hit, labels, said.labels)))
    shift = _shift(tx, on) if on.config.method == "dithered" else None
    log_weight = ledger.joint_log_weight(tx, set_id) if is_joint(on.row) else None
    if said.failure is not None and on.config.method in COUNTS_REACHABLE:
        reading = _no_answer(on, FAILURE)
    else:
        follows_from = (on.submission.request.id, set_id, on.cache_key(), len(on.earlier), errors, loss, log_weight)

        def compute() -> Reading:
            numbers = {"errors": errors, "examples": len(labels)}
            return _reading(ready, on, **numbers, loss=loss, shift=shift, log_weight=log_weight)

        reading = ready.judged(follows_from, compute)
    entry = MeterEntry(
        step=len(on.earlier) + 1,
        cache_key=on.cache_key(),
        signal=reading.signal,
        log_cost=reading.log_cost,
        team=on.submission.team,
        edges=reading.edges,
        tolerance=_promised(on),
        ends=reading.ends or reading.retired,
    )
    report = {**reading.to_json(), "errors": errors, "validation_loss": loss, "failure": said.failure}
    report |= {"model_id": model.id, "model": model.identity}
    report |= {"team": entry.team, "promised_tolerance": entry.tolerance, "ends": entry.ends}
    for name, usual in _USUAL.items():  # left out: the shorter the entries, the less their size on disk varies
        if report[name] == usual:
            del report[name]
    _keep(tx, on, entry, reading, report)
    return entry, reading.why


def _reading(
    ready: Preparation,
    on: MeterSet,
    *,
    errors: int,
    examples: int,
    loss: float,
    shift: float | None,
    log_weight: float | None,
) -> Reading:
    """Return the meter's reading; after a failure the set gives none any more.

    The computation depends on sealed labels, so an error may, too: a free refusal would reveal labels. Retiring the set
    instead costs the promise nothing. A lack of memory postpones the request as a model's would.
    """
    try:
        return read_submission(
            errors=errors,
            examples=examples,
            validation_loss=loss,
            config=on.config,
            earlier=on.earlier,
            team=on.submission.team,
            shift=shift,
            log_weight=log_weight,
        )
    except Exception as error:
        if ready.patience.allows(error):
            raise
        logger.exception("request %d: reading has failed, the set is retired", on.submission.request.id)
        return _no_answer(on, f"{type(error).__name__}: {error}")


def _no_answer(on: MeterSet, why: str) -> Reading:
    """End the set for the team: one more leaf of the tree, at which nothing is claimed."""
    log_level = math.log1p(-on.config.reliability)
    return Reading(None, 0.0, 1.0, 0.0, 1.0, reachable=1, log_cost=0.0, log_level=log_level, ends=True, why=why)


def _keep(tx: Connection, on: MeterSet, entry: MeterEntry, reading: Reading, report: JsonObject) -> None:
    sealed.add_entry(
        tx,
        test_set_id=on.row.id,
        step=ledger.next_step(tx, on.row.id) if is_joint(on.row) else entry.step,
        steps=on.row.steps,
        request_id=on.submission.request.id,
        cache_key=entry.cache_key,
        answer=RETIRED if entry.signal is None else str(entry.signal),
        log_level=reading.log_level,
        log_cost=entry.log_cost,
        tolerance=reading.tolerance_now,
        report=report,
        open_ended=on.config.open_ended,
        system=ledger.METER,
        system_step=entry.step,
        system_steps=on.config.steps,
    )


def _shift(tx: Connection, on: MeterSet) -> float:
    """Return how far the boundaries are shifted for this submission, on each set that it is read on.

    A keyed hash (HMAC-SHA-256 with the installation's secret) of the request, which exists only once the submission is
    made: no user can know it before, and a repetition after a crash finds the same.
    """
    digest = hmac.digest(sealed.installation_secret(tx), f"dither|{on.submission.request.id}".encode(), "sha256")
    return late_shift(on.config.ranges, np.random.default_rng(int.from_bytes(digest, "big")))


def _promised(on: MeterSet) -> float | None:
    """Return the tolerance promised with the next signal, by the team's signals; None for the one of the plan."""
    if not on.config.tolerances:
        return None
    worst = max((entry.signal for entry in on.own() if entry.signal is not None), default=1)
    return on.config.tolerances[worst - 1]


_ALIKE = ("ranges", "tolerance", "tolerances", "teams")
"""Settings in which the two meters must agree, so that their signals can be compared."""


def meter(tx: Connection, ready: Preparation, asked: Asked) -> Answer:
    """Decide a meter request: one signal, or the set's retirement when its guarantee would not hold any more.

    The same artifact is answered from the ledger: it costs nothing and raises no second alert.
    ``services/referee/publishing.py`` publishes the answer later.
    """
    study, test_set = asked.study, asked.set_for(SealedSetPurpose.METER)
    if test_set is None:
        raise no_live_set(tx, study, SealedSetPurpose.METER)
    submission = _submission(tx, study, asked.request, meter_settings_of(test_set))
    second = asked.set_for(SealedSetPurpose.DIRECT)
    comparable = None if second is None or _differences(test_set, second) else second
    require_runs(tx, ready, submission, [test_set] if comparable is None else [test_set, comparable])
    total = read_on(tx, ready, meter_set(tx, test_set, submission))
    if second is None or total.entry.signal is None:
        return _answer(tx, study, total, None)
    if comparable is None:
        _warn(study, test_set, second)
        return _answer(tx, study, total, None)
    return _answer(tx, study, total, _direct(tx, ready, meter_set(tx, comparable, submission)))


def _submission(tx: Connection, study: Study, request: Request, config: MeterConfig) -> Submission:
    team = request.arguments.get("team", 1)
    known = type(team) is int and 1 <= team <= config.teams
    require(known, "team", team, f"a whole number from 1 to {config.teams}, the teams that the set is planned for")
    model, version = models.model_and_newest_data(tx, study.id, request.of_model)
    return Submission(request, model, version, team, study.hit)


def _direct(tx: Connection, ready: Preparation, second: MeterSet) -> SetReading | None:
    """Return the reading on the second validation sample, unless that has no answer to this submission any more."""
    return None if second.has_ended() and second.cached() is None else read_on(tx, ready, second)


def _differences(test_set: PlannedSet, second: PlannedSet) -> list[str]:
    """Return the settings in which the second validation sample must agree with the meter set, and does not."""
    ours, other = meter_settings_of(test_set), meter_settings_of(second)
    differing = [name for name in _ALIKE if getattr(other, name) != getattr(ours, name)]
    if "dithered" in (other.method, ours.method) and other.method != ours.method:
        differing.append("method")
    return differing


def _warn(study: Study, test_set: PlannedSet, second: PlannedSet) -> None:
    logger.warning(
        "study %s: the second validation sample (set %d) is not read, its %s differ from those of meter set %d; "
        "retire it and seal one with the same",
        *(study.name, second.id, " and ".join(_differences(test_set, second)), test_set.id),
    )


def _answer(tx: Connection, study: Study, total: SetReading, direct: SetReading | None) -> Answer:
    """Return what is published: the signals, their promises, and their consequences for the sets and the budget."""
    both = _both(total, direct)
    breach = None if total.cached else _breach(tx, study.id, total, both)
    news = direct is not None and not (total.cached and direct.cached)
    facts = MeterFacts(
        study_id=study.id,
        test_set_id=total.on.row.id,
        retired_why=total.retired_why,
        reading=_released(total, direct, both),
        alert=breach,
        over_budget=None if breach is None else True,
        drift_alert=_drift_alert(total, direct, both) if news else None,
        direct_retired_why=None if direct is None else direct.retired_why,
    )
    return Answer(_message(total, direct, both), facts)


def _both(total: SetReading, direct: SetReading | None) -> TwoSignals | None:
    """Return the meaning of both signals together, where there are two."""
    said = (total.said(), None if direct is None else direct.said())
    return None if said[0] is None or said[1] is None else combine(said[0], said[1])


def _released(total: SetReading, direct: SetReading | None, both: TwoSignals | None) -> ReleasedReading:
    """Return the public facts: of the study's meter set, and of the second validation sample."""
    entry, submission = total.entry, total.on.submission
    return ReleasedReading(
        model_id=submission.model.id,
        test_set_id=total.on.row.id,
        step=entry.step,
        signal=entry.signal,
        signals=len(total.on.config.ranges) + 1,
        cached=total.cached,
        team=entry.team,
        edges=entry.edges or None,
        tolerance=entry.tolerance,
        submissions_left=total.on.left(),
        data_version_id=submission.version.id,
        direct_test_set_id=None if direct is None else direct.on.row.id,
        direct_signal=None if direct is None else direct.entry.signal,
        drift=None if direct is None or both is None else both.drift,
    )


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
    """Return the alert's sentence when the team's last answer breaks the overfitting budget.

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
    """Return the alert's sentence when the two signals leave no room for equal distributions."""
    if direct is None or both is None:
        return None
    return drift_alert(both, both_reliability(total.on.config, direct.on.config))
