"""The overview: every study with its quality, trials, verdict and signal; and the public details of one study."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from easeml_core.encoding import row_of, typed_record
from easeml_core.entities import JsonObject, Task
from easeml_core.services.meter.results import ShownReading, shown_reading
from easeml_core.services.reports.next_steps import steps_of_all
from easeml_core.services.reports.recommendations import Severity, Standing, assess, steps_of
from easeml_core.services.selection.executors import waiting_sentences
from easeml_core.services.test_sets.shared_set import meter_settings_of
from easeml_core.store.queries import overview as summary
from easeml_core.store.queries.overview import StudyFacts
from easeml_core.store.tables import releases, studies, trials
from easeml_core.store.tables.releases import PublicSet
from easeml_core.store.tables.trials import TrialEntry

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from easeml_core.entities import Candidate
    from easeml_core.services.reports.next_steps import NextStep
    from easeml_core.services.reports.recommendations import Assessment
    from easeml_core.store.database import Store
    from easeml_core.store.queries.overview import InstallationTotals, StudySummary, WeekCounts
    from easeml_core.store.tables.releases import ReadingRow

MOST_SHOWN = 20_000
"""Largest number of studies on an overview: further ones by tenant and name are left out."""

MOST_DRAWN = 200
"""Largest number of studies with small charts."""


@typed_record
class StudyEntry(StudyFacts):
    """A study in the overview; ``next`` is one sentence on what to do."""

    next: str


@typed_record
class Overview:
    """All studies, by tenant and name; ``policy`` is None before the first suggestion."""

    policy: str | None
    tenants: list[StudyEntry]


@dataclass(frozen=True, slots=True)
class Board:
    """The contents of the overview page.

    Attributes:
        tenants: The studies.
        steps: Steps that need a user, worst first.
        totals: Of the whole installation, for every viewer.
        week: Verdicts and promotions of the last seven days.
        busy: Devices that trained in each of the last 24 hours; empty for more than ``MOST_DRAWN`` studies.
        improvements: By study the times and the values at which its best quality rose; empty likewise.
    """

    tenants: list[Assessment]
    steps: list[NextStep]
    totals: InstallationTotals
    week: WeekCounts
    busy: list[float]
    improvements: dict[str, list[tuple[datetime, float]]]


def overview(store: Store, *, limit: int = 1000) -> Overview:
    """Return all studies with released facts only."""
    with store.begin() as tx:
        entries = summary.study_summaries(tx, limit=limit)
        policies = summary.policies_used(tx)
    return Overview(policies[0] if policies else None, [_entry(e) for e in entries])


def _entry(facts: StudySummary) -> StudyEntry:
    """Return the public facts, with the next step."""
    public = {field.name: getattr(facts, field.name) for field in fields(StudyFacts)}
    return StudyEntry(**public, next=steps_of(facts)[0].act)


def board(store: Store, *, names: Collection[str] | None = None) -> Board:
    """Return the contents of the overview page, in one transaction of a few queries.

    Args:
        store: Any role.
        names: The studies that may be shown; None for all.
    """
    with store.begin() as tx:
        entries = [assess(facts) for facts in summary.study_summaries(tx, limit=MOST_SHOWN, names=names)]
        drawn = len(entries) <= MOST_DRAWN
        needing = [entry.facts for entry in entries if entry.standing is Standing.NEEDS]
        return Board(
            tenants=entries,
            steps=[s for s in steps_of_all(tx, needing) if s.severity != Severity.INFO],
            totals=summary.totals(tx),
            week=summary.week(tx, names),
            busy=summary.busy_devices(tx, names) if drawn else [],
            improvements=summary.improvements(tx, [e.facts.study for e in entries]) if drawn else {},
        )


@typed_record
class Goal:
    """The target and the metric; ``hit`` is the rule of gate and meter for a right answer."""

    task: Task
    metric: str
    hit: str
    program: str | None


@typed_record
class CandidateEntry:
    """A candidate; ``devices`` are the kinds that it may run on, left out where it runs on any."""

    name: str
    kind: str
    devices: list[str] | UnsetType = UNSET


@typed_record
class DeveloperReading(ShownReading):
    """The last reading for the developer: of which model, for which team, by which method."""

    model_id: int
    team: int
    method: str


@typed_record
class StudyDetails:
    """The public facts of one study.

    Attributes:
        study: Its name.
        goal: The target and the metric.
        settings: Those of the registration.
        summary: The study at a glance.
        candidates: In the order in which they were added.
        trials: All of them.
        sealed_sets: Public side of its test sets.
        meter: Last reading; None before the first.
        alerts: Messages of the open alerts.
        waiting: Candidates' waits for an implementation or for a repair of their task.
    """

    study: str
    goal: Goal
    settings: JsonObject
    summary: StudyEntry
    candidates: list[CandidateEntry]
    trials: list[TrialEntry]
    sealed_sets: list[PublicSet]
    meter: DeveloperReading | None
    alerts: list[str]
    waiting: list[str]


@typed_record
class ShownStudy(StudyDetails):
    """The public facts of one study, and what a model of it is given (``studies.columns.StudyColumns``)."""

    features: int | None
    columns: list[str] | None
    classes: list[str] | None


def study_details(store: Store, *, study: str, team: int | None = None) -> StudyDetails:
    """Return one study with its candidates, trials, test sets (public side), last meter reading and open alerts.

    Where several teams share a meter set, the readings and alerts of ``team`` count, and without it none.

    Raises:
        NotFoundError: There is no such study.
    """
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        (facts,) = summary.study_summaries(tx, names=[study])
        return StudyDetails(
            study=study,
            goal=Goal(found.task, found.metric, found.hit, found.program),
            settings=dict(found.config),
            summary=_entry(facts),
            candidates=[_candidate(c) for c in studies.list_candidates(tx, found.id)],
            trials=trials.list_trials(tx, found.id),
            sealed_sets=releases.public_test_sets(tx, found.id),
            meter=_meter(releases.newest_reading(tx, found.id, team=team)),
            alerts=[a.message for a in releases.list_alerts(tx, found.id, open_only=True, team=team)],
            waiting=waiting_sentences(tx, [study]).get(study, []),
        )


def _meter(reading: ReadingRow | None) -> DeveloperReading | None:
    """Return the last reading for the developer."""
    if reading is None:
        return None
    return DeveloperReading(
        **row_of(shown_reading(reading)),
        model_id=reading.model_id,
        team=reading.team,
        method=meter_settings_of(reading).method,
    )


def _candidate(candidate: Candidate) -> CandidateEntry:
    return CandidateEntry(
        candidate.name, candidate.kind, UNSET if candidate.devices is None else list(candidate.devices)
    )


def study_state(store: Store, *, study: str) -> str:
    """Return the study's state now, for a sensor."""
    with store.begin() as tx:
        return str(studies.get_study(tx, study).state)


def live_sets(store: Store, *, study: str) -> list[str]:
    """Return the purposes with a live sealed set; a ``joint`` one counts for ``gate`` and ``meter`` too."""
    with store.begin() as tx:
        found = releases.public_test_sets(tx, studies.get_study(tx, study).id)
    live = {str(s.purpose) for s in found if s.state == "live"}
    return sorted(live | ({"gate", "meter"} if "joint" in live else set()))
