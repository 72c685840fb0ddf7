"""The overview: every study with its quality, trials, verdict and signal; and the public details of one study."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from easeml_core.entities import JsonObject, Task
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.services.meter.results import ShownReading, shown_reading
from easeml_core.services.reports.assessments import assess_changes, totals_of_all
from easeml_core.services.reports.next_steps import (
    count_of,
    kinds_of_needs,
    names_in_full,
    of_all,
    steps_of_all,
    waits_of,
)
from easeml_core.services.reports.recommendations import Severity, Standing, StepKind, assess, steps_of
from easeml_core.services.test_sets.answers import meter_settings_of
from easeml_core.store.logins import is_tenant
from easeml_core.store.queries import assessments
from easeml_core.store.queries import overview as summary
from easeml_core.store.queries.assessments import Choice
from easeml_core.store.queries.overview import StudyFacts
from easeml_core.store.tables import releases, studies, trials
from easeml_core.store.tables.releases import PublicSet
from easeml_core.store.tables.trials import TrialEntry

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection

    from easeml_core.entities import Candidate
    from easeml_core.services.reports.next_steps import NextStep
    from easeml_core.services.reports.recommendations import Assessment
    from easeml_core.store.database import Store
    from easeml_core.store.queries.assessments import Crowd, KindOfNeed
    from easeml_core.store.queries.overview import InstallationTotals, StudySummary, WeekCounts
    from easeml_core.store.tables.releases import ReadingRow

MOST_DRAWN = 200
"""Largest number of studies with small charts."""

MOST_LINES = 6
"""So many steps are listed one by one."""

MOST_LISTED = 500
"""So many steps are listed one by one at most, when all are asked for."""

FEW = 2
"""So many of a kind are listed one by one among very many others."""

MOST_COMPARED = 500
"""So many names are compared with what was searched for: each pair takes up to a millisecond."""


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
class Asked:
    """The part of the overview that is looked at.

    Attributes:
        standing: Only studies with this standing; empty for all, None for what needs a person among very many studies.
        kind: Only studies that need a person for this; empty for all.
        text: Part of the name of the study or the tenant.
        order: As of ``store.queries.assessments.ORDERS``.
        first: Studies before the page; ``size`` are on it.
        marked: A study whose page is wanted in place of ``first``; empty for none.
        is_whole: Whether all steps that need a person are listed.
    """

    standing: str | None
    kind: str = ""
    text: str = ""
    order: str = "needs"
    first: int = 0
    size: int = 50
    marked: str = ""
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """The contents of the overview page.

    Attributes:
        crowd: Numbers of all studies that may be shown.
        needs: What they need a person for, worst first; ``needs_total`` is the number of all steps.
        steps: Steps that need a person in full, worst first: all of few, the first ``MOST_LISTED`` where all were asked
            for, else those of kinds with at most ``FEW`` studies.
        standing: The standing of the studies on the page; empty for all.
        entries: The studies on the page, in their order.
        found: How many studies the page is taken from; ``first`` of them are before it.
        elsewhere: Where there are none, how many there are with any standing.
        likely: Where there are none, names that may have been meant.
        totals: Of the whole installation, for every viewer.
        week: Verdicts and promotions of the last seven days.
        busy: Devices that trained in each of the last 24 hours; empty for more than ``MOST_DRAWN`` studies.
        improvements: By study the times and the values at which its best quality rose; empty likewise.
        on_map: Names of all studies in the order of the map; empty for at most ``MOST_DRAWN``.
        read_at: By the database's clock.
    """

    crowd: Crowd
    needs: list[KindOfNeed]
    needs_total: int
    steps: list[NextStep]
    standing: str
    entries: list[Assessment]
    found: int
    first: int
    elsewhere: int
    likely: list[str]
    totals: InstallationTotals
    week: WeekCounts
    busy: list[float]
    improvements: dict[str, list[tuple[datetime, float]]]
    on_map: list[str]
    read_at: datetime


def overview(store: Store, *, limit: int = 1000) -> Overview:
    """Return the first studies by tenant and name, with released facts only.

    A tenant's login writes no assessment, so the few studies that it sees are counted now.
    """
    assess_changes(store)
    with store.begin(writes=False) as tx:
        counts = is_tenant(tx)
        entries = summary.study_summaries(tx, limit=limit) if counts else assessments.kept_summaries(tx, limit=limit)
        policies = summary.policies_used(tx)
    return Overview(policies[0] if policies else None, [_entry(e) for e in entries])


def _entry(facts: StudySummary) -> StudyEntry:
    """Return the public facts, with the next step."""
    public = {field.name: getattr(facts, field.name) for field in fields(StudyFacts)}
    return StudyEntry(**public, next=steps_of(facts)[0].act)


def board(store: Store, asked: Asked, *, names: Collection[str] | None = None) -> Board:
    """Return the contents of the overview page; only the studies on the page are read in full."""
    assess_changes(store)
    with store.begin(writes=False) as tx:
        crowd, totals = assessments.crowd(tx, names), totals_of_all(store, tx)
        is_large = crowd.studies > MOST_DRAWN
        standing = (Standing.NEEDS if is_large else "") if asked.standing is None else asked.standing
        only = None if names is None else list(names)
        choice = Choice(standing=str(standing), kind=asked.kind, text=asked.text, order=asked.order, names=only)
        page = assessments.chosen_page(tx, choice, totals, first=asked.first, size=asked.size, marked=asked.marked)
        kinds = kinds_of_needs(tx, only)
        wanted = names_in_full(tx, kinds, only, few=FEW, limit=MOST_LISTED if asked.is_whole else MOST_LINES)
        read = {facts.study: facts for facts in assessments.kept_summaries(tx, [*page.names, *wanted])}
        is_lost = bool(asked.text) and not page.found
        drawn = [] if is_large else assessments.names_on_map(tx, only)
        return Board(
            crowd=crowd,
            needs=kinds,
            needs_total=count_of(kinds),
            steps=_in_full(tx, [read[name] for name in wanted], kinds),
            standing=choice.standing,
            entries=[assess(read[name]) for name in page.names],
            found=page.found,
            first=page.first,
            elsewhere=assessments.count_chosen(tx, replace(choice, standing="")) if is_lost else 0,
            likely=assessments.names_like(tx, asked.text, only, limit=MOST_COMPARED) if is_lost else [],
            totals=totals,
            week=summary.week(tx, only),
            busy=[] if is_large else summary.busy_devices(tx, only),
            improvements=summary.improvements(tx, drawn) if drawn else {},
            on_map=assessments.names_on_map(tx, only) if is_large else [],
            read_at=crowd.read_at,
        )


def _in_full(tx: Connection, entries: list[StudySummary], kinds: list[KindOfNeed]) -> list[NextStep]:
    """Return the steps of these studies that need a person; of the silent referee once."""
    silent = {kind.oldest: kind.studies for kind in kinds if kind.kind == StepKind.REFEREE and kind.studies > 1}
    found = []
    for step in steps_of_all(tx, entries):
        is_shared = step.kind is StepKind.REFEREE and bool(silent)
        if step.severity is Severity.INFO or (is_shared and step.study not in silent):
            continue
        found.append(of_all(step, silent[step.study or ""]) if is_shared else step)
    return found


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
    """
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        (facts,) = summary.study_summaries(tx, ids=[found.id])
        return StudyDetails(
            study=found.name,
            goal=Goal(found.task, found.metric, found.hit, found.program),
            settings=dict(found.config),
            summary=_entry(facts),
            candidates=[_candidate(c) for c in studies.list_candidates(tx, found.id)],
            trials=trials.list_trials(tx, found.id),
            sealed_sets=releases.public_test_sets(tx, found.id),
            meter=_meter(releases.newest_reading(tx, found.id, team=team)),
            alerts=[a.message for a in releases.list_alerts(tx, found.id, open_only=True, team=team)],
            waiting=waits_of(tx, study),
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
