"""A study's submissions for developers: one symbol and one signal each, and what is left.

Reads only facts that the role ``easeml_worker`` may read, and so nothing sealed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from easeml_core.entities import SealedSetPurpose, SealedSetState
from easeml_core.meter.sentences import promised_sides
from easeml_core.services.meter.reading import HAS_NO_ANSWER_LEFT
from easeml_core.services.meter.results import shown_reading
from easeml_core.services.models.promotion import before_standing
from easeml_core.services.referee.requests import file_gate_request, file_meter_request
from easeml_core.services.test_sets.answers import SHARED_SET_HAS_ENDED, gate_settings, meter_settings_of
from easeml_core.services.test_sets.lifecycle import HAS_NO_LIVE_SET, steps_by_system
from easeml_core.settings.config import require
from easeml_core.store.queries import submissions
from easeml_core.store.tables import model_life, releases, studies, test_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.store.database import Store
    from easeml_core.store.queries.submissions import Submission, Submittable
    from easeml_core.store.tables.test_sets import SealedSet

MOST = 200
"""Largest number of submissions in a report."""

_MOST_SIGNALS = 64
_MOST_MODELS = 50
_LAST_ANSWERS = 8

_SET_HAD_ENDED = (HAS_NO_LIVE_SET.format(SealedSetPurpose.METER), HAS_NO_ANSWER_LEFT, SHARED_SET_HAS_ENDED)
"""Refusals of the meter because its set had ended; of a refusal only the text is stored."""


@dataclass(frozen=True, slots=True)
class GateState:
    """The gate of a study: the live set, or the last one.

    Attributes:
        condition: What a model must satisfy.
        adaptivity: As of ``config.GateConfig``; likewise ``mode``.
        reliability: Of all verdicts on the set together.
        steps: Verdicts that the set can give; ``steps_used`` were given.
        is_live: Whether it answers.
    """

    condition: str
    adaptivity: str
    mode: str
    reliability: float
    steps: int
    steps_used: int
    is_live: bool

    @property
    def left(self) -> int:
        """Return how many verdicts the set still gives."""
        return self.steps - self.steps_used if self.is_live else 0


@dataclass(frozen=True, slots=True)
class LastReading:
    """The last reading of the meter.

    Attributes:
        signal: In 1..signals; None where the set ended with the model.
        boundaries: Ends of the ranges of the signals.
        tolerance: Of the promise.
        submissions_left: Answers that the set has left; None where there is no last one.
        meaning: The signal's statement about the gap; None without one.
        sentence: The meaning of both signals, where there is a second validation sample.
        reliability: Of all signals together.
        model_id: The model that was read.
        number: Its submission.
    """

    signal: int | None
    signals: int
    boundaries: Sequence[float]
    tolerance: float
    submissions_left: int | None
    meaning: str | None
    sentence: str | None
    reliability: float
    model_id: int
    number: int


@dataclass(frozen=True, slots=True)
class NumberedSignal:
    """An answer of the meter: the submission's number, the answer's place from 1, and the signal."""

    number: int
    place: int
    signal: int | None


@dataclass(frozen=True, slots=True)
class MeterState:
    """The meter of a study: the live set, or the last one.

    Attributes:
        edges: Ends of the ranges of the signals.
        tolerance: Of the promise.
        sides: Ends of a range that the method promises: ``lower``, ``upper``.
        reliability: Of all signals on the set together.
        steps: Answers that the set can give.
        teams: That share it.
        is_live: Whether it answers.
        reading: The last one; None before the first, and where several teams share the set.
        signals: Given on the set, oldest first; none where several teams share it.
    """

    edges: Sequence[float]
    tolerance: float
    sides: Sequence[str]
    reliability: float
    steps: int
    teams: int
    is_live: bool
    reading: LastReading | None
    signals: Sequence[NumberedSignal]

    @property
    def left(self) -> int | None:
        """Return how many submissions the meter still answers; None where there is no last one."""
        if not self.is_live:
            return 0
        return self.steps if self.reading is None else self.reading.submissions_left

    @property
    def is_flattering(self) -> bool:
        """Return whether the last signal promises a gap above 0; with low edges or a wide tolerance it does not."""
        reading = self.reading
        if reading is None or reading.signal is None or reading.signal == 1 or "lower" not in self.sides:
            return False
        return reading.boundaries[reading.signal - 2] >= reading.tolerance


@dataclass(frozen=True, slots=True)
class StandingModel:
    """A model that is or was in production, since then."""

    model_id: int
    called: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Production:
    """The model in production, and the one before it."""

    now: StandingModel | None
    before: StandingModel | None


@dataclass(frozen=True, slots=True)
class DailyAnswers:
    """The hour of the day at which answers leave, and when the next ones can; both in UTC."""

    hour: time
    next: datetime


@dataclass(frozen=True, slots=True)
class SubmissionsReport:
    """A study's submissions with what was released about each, and what its sets have left.

    Attributes:
        total: Submissions that there are.
        submissions: One page of them, newest first; ``meter_too_late`` also where the meter has refused one because
            its set had ended.
        gate: None before the first gate set.
        meter: None before the first meter set.
        production: The models in production now and before.
        models: Models that can be submitted, the best first.
        leaves: None where the answers do not show it.
    """

    total: int
    submissions: Sequence[Submission]
    gate: GateState | None
    meter: MeterState | None
    production: Production
    models: Sequence[Submittable]
    leaves: DailyAnswers | None


def submissions_report(store: Store, *, study: str, limit: int = 20, skip: int = 0) -> SubmissionsReport:
    """Return the study's submissions with the symbols and signals that were released, and what its sets have left."""
    require(1 <= limit <= MOST, "limit", limit, f"from 1 to {MOST}")
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        listed = submissions.list_submissions(tx, found.id, limit=limit, skip=skip)
        sets = test_sets.list_sets(tx, found.id)
        return SubmissionsReport(
            total=listed[0].total if listed else 0,
            submissions=[replace(entry, meter_too_late=_is_too_late(entry)) for entry in listed],
            gate=_gate(newest_set(sets, SealedSetPurpose.GATE)),
            meter=_meter(tx, found.id, newest_set(sets, SealedSetPurpose.METER)),
            production=production_of(tx, found.id),
            models=submissions.submittable_models(tx, found.id, limit=_MOST_MODELS),
            leaves=daily_answers(*submissions.answer_times(tx, found.id, limit=_LAST_ANSWERS)),
        )


def _is_too_late(entry: Submission) -> bool:
    """Return whether the meter's set had ended before this model could be read on it."""
    if entry.meter_waits:
        return entry.meter_too_late
    return any(reason in (entry.meter_refusal or "") for reason in _SET_HAD_ENDED)


def daily_answers(left: Sequence[datetime], now: datetime) -> DailyAnswers | None:
    """Return the hour of the day at which answers leave, as the last ones show, and when the next ones can.

    The hour is a setting of the referee's process and shows in the answers alone. It follows from public times; it does
    not say whether a certain submission is answered then.

    Example:
        >>> days = [datetime(2026, 1, day, 6, 0, 3, tzinfo=UTC) for day in (5, 3, 3)]
        >>> daily_answers(days, datetime(2026, 1, 5, 12, tzinfo=UTC)).next.isoformat()
        '2026-01-06T06:00:00+00:00'
    """
    times = [moment.astimezone(UTC) for moment in left]
    minutes = {60 * moment.hour + moment.minute for moment in times}
    if len({moment.date() for moment in times}) < 2 or max(minutes) - min(minutes) > 1:
        return None
    hour = time(*divmod(min(minutes), 60))
    today = datetime.combine(now.astimezone(UTC).date(), hour, tzinfo=UTC)
    return DailyAnswers(hour, today if today > now else today + timedelta(days=1))


def newest_set(sets: list[SealedSet], purpose: SealedSetPurpose) -> SealedSet | None:
    """Return the live set that serves this purpose, else the last one that has; None before the first."""
    known = (SealedSetState.LIVE, SealedSetState.RETIRED, SealedSetState.RELEASED)
    serving = [s for s in sets if purpose in test_sets.serves(s.purpose) and s.state in known]
    return min(serving, key=lambda s: (s.state != SealedSetState.LIVE, -s.id), default=None)


def production_of(tx: Connection, study_id: int) -> Production:
    """Return the model in production, and the one before it."""
    moves = model_life.history(tx, study_id)
    pair = (moves[-1] if moves else None, before_standing(moves))
    called = submissions.names_of(tx, [move.model_id for move in pair if move is not None])
    now, before = (
        None if move is None else StandingModel(move.model_id, called[move.model_id], move.promoted_at) for move in pair
    )
    return Production(now, before)


def _gate(found: SealedSet | None) -> GateState | None:
    if found is None:
        return None
    plan, steps = gate_settings(found), steps_by_system(found)["gate"]
    return GateState(
        condition=plan.condition,
        adaptivity=plan.adaptivity,
        mode=plan.mode,
        reliability=plan.reliability,
        steps=steps.steps,
        steps_used=steps.steps_used,
        is_live=found.state == SealedSetState.LIVE,
    )


def _meter(tx: Connection, study_id: int, found: SealedSet | None) -> MeterState | None:
    if found is None:
        return None
    plan = meter_settings_of(found)
    given = submissions.list_signals(tx, study_id, found.id, limit=_MOST_SIGNALS) if plan.teams == 1 else []
    numbers = submissions.numbers_of(tx, study_id, [entry.model_id for entry in given])
    return MeterState(
        edges=plan.ranges,
        tolerance=plan.tolerance,
        sides=sorted(promised_sides(plan)),
        reliability=plan.reliability,
        steps=plan.steps,
        teams=plan.teams,
        is_live=found.state == SealedSetState.LIVE,
        reading=_reading(tx, study_id) if given else None,
        signals=[NumberedSignal(numbers[entry.model_id], entry.place, entry.signal) for entry in given],
    )


def _reading(tx: Connection, study_id: int) -> LastReading | None:
    found = releases.newest_reading(tx, study_id)
    if found is None:
        return None
    shown, number = shown_reading(found), submissions.numbers_of(tx, study_id, [found.model_id])[found.model_id]
    return LastReading(
        signal=shown.signal,
        signals=shown.signals,
        boundaries=shown.boundaries,
        tolerance=shown.tolerance,
        submissions_left=shown.submissions_left,
        meaning=shown.meaning,
        sentence=shown.sentence,
        reliability=shown.reliability,
        model_id=found.model_id,
        number=number,
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """Ids of the requests that a submission filed; None for those not filed."""

    gate: int | None
    meter: int | None


def submit(store: Store, *, study: str, model_id: int, gate: bool, meter: bool, request_key: str) -> Asked:
    """File a gate request, a meter request, or both, for a model of the study."""
    require(gate or meter, "gate", gate, "true, or meter true: one of them must be asked")
    asked = Asked(None, None)
    if gate:
        filed = file_gate_request(store, study=study, model_id=model_id, request_key=f"{request_key}/gate")
        asked = replace(asked, gate=filed)
    if meter:
        filed = file_meter_request(store, study=study, model_id=model_id, request_key=f"{request_key}/meter")
        asked = replace(asked, meter=filed)
    return asked
