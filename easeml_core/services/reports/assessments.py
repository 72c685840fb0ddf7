"""Keep the assessment of each study: what has changed since the last look is counted and assessed anew.

The rules of ``recommendations`` are evaluated here, and nowhere in SQL. The rows of ``store/queries/assessments.py``
hold what an overview sorts, filters and sums; every function that reads them calls ``assess_changes`` first.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from easeml_core.entities import StudyState
from easeml_core.formats.encoding import to_json
from easeml_core.services.reports.recommendations import (
    SILENT,
    Severity,
    Standing,
    StepKind,
    has_spent_quota,
    is_full,
    standing,
    steps_of,
)
from easeml_core.store import callers
from easeml_core.store.logins import is_tenant
from easeml_core.store.queries import assessments
from easeml_core.store.queries.assessments import KeptAssessment, KeptNeed
from easeml_core.store.queries.overview import StudySummary, counted_studies

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from easeml_core.services.reports.recommendations import Step
    from easeml_core.store.database import Store
    from easeml_core.store.queries.overview import CountedStudy, InstallationTotals

STUDY_FINISHED, BUDGET_SPENT = "study-finished", "budget-spent"
"""Events that hold as long as a study is as it is."""

AT_ONCE = 500
"""Studies that are counted and written by one statement: as many summaries are in memory at once."""

_URGENCY = {kind: place for place, kind in enumerate(StepKind)}


def assess_changes(store: Store) -> None:
    """Write the rows of the studies that have changed, in one transaction."""
    with callers.reaching(None), store.begin() as tx:
        if is_tenant(tx) or not assessments.has_changed(tx):
            return
        changed = assessments.take_changed(tx)
        _write(tx, changed)
        # The sums of their tenants are known now: whether these hold other studies, too.
        _write(tx, assessments.held_by_tenants(tx, changed))


def shorten_log(store: Store) -> None:
    """As ``assess_changes``, where the log of changed studies is long: no page and no notifier has looked for long."""
    with store.begin() as tx:
        are_many = assessments.are_many(tx)
    if are_many:
        assess_changes(store)


def totals_of_all(store: Store, tx: Connection) -> InstallationTotals:
    """Return the sums of the whole installation, which name no study; also to who looks with a tenant's rights."""
    if not callers.is_viewer(tx):
        return assessments.totals(tx)
    with callers.reaching(None), store.snapshot() as whole:
        return assessments.totals(whole)


def _write(tx: Connection, ids: Sequence[int]) -> None:
    for first in range(0, len(ids), AT_ONCE):
        counted = counted_studies(tx, ids[first : first + AT_ONCE])
        assessments.keep(tx, [kept_of(study) for study in counted])


def kept_of(study: CountedStudy) -> KeptAssessment:
    """Return the row of a study that was just counted."""
    summary = StudySummary(**{f.name: getattr(study, f.name) for f in fields(StudySummary)})
    steps = steps_of(summary)
    needs = [step for step in steps if step.needs_a_person]
    best, before = summary.best_quality, summary.best_quality_day_ago
    is_active = summary.state is StudyState.ACTIVE
    return KeptAssessment(
        study_id=study.study_id,
        tenant_id=study.tenant_id,
        tenant=summary.tenant,
        study=summary.study,
        shown=study.shown,
        until=min(filter(None, (study.until, *_moments(summary))), default=None),
        standing=str(standing(steps)),
        urgency=urgency_of(steps),
        is_bad=steps[0].severity is Severity.BAD,
        needs=[KeptNeed(str(s.kind), str(s.severity), s.title, s.since) for s in needs],
        holding=events_of(summary, steps),
        best_quality=best,
        rise=None if best is None or before is None else best - before,
        running=summary.running,
        lost=summary.lost,
        waiting=summary.waiting,
        queued_at=summary.queued_at,
        ended_day=summary.ended_day,
        judging=summary.judging_at is not None,
        due_weight=summary.weight * summary.tenant_weight if is_active else 0.0,
        charged=study.charged,
        open=study.open,
        day_seconds=study.day_seconds,
        day_running=study.day_running,
        day_since=study.day_since,
        tenant_spent=has_spent_quota(summary),
        tenant_full=is_full(summary),
        facts=summary,
    )


def _moments(facts: StudySummary) -> list[datetime]:
    """Return when its steps change by the passing of time alone."""
    asked = [since + SILENT for since in (facts.asked_at, facts.judging_at) if since is not None]
    return [moment for moment in (*asked, facts.deadline) if moment is not None and moment > facts.read_at]


def urgency_of(steps: Sequence[Step]) -> int:
    """Return the place of the worst step that needs a person among the kinds; their number where none does."""
    return _URGENCY[steps[0].kind] if steps[0].needs_a_person else len(StepKind)


def events_of(facts: StudySummary, steps: Sequence[Step]) -> list[str]:
    """Return the kinds of events that hold for a study now."""
    budget = facts.budget_seconds
    found = [BUDGET_SPENT] if (budget is not None and facts.device_seconds >= budget) or has_spent_quota(facts) else []
    rest = [step for step in steps if not step.needs_a_person]
    if facts.state == StudyState.ACTIVE and standing(rest) is Standing.FINISHED:
        found.append(STUDY_FINISHED)
    return found


def out_of_step(store: Store) -> list[str]:
    """Return the studies whose row differs from what is counted, although it counts as up to date.

    All trials of all studies are counted, in one snapshot; nothing is written.
    """
    with store.snapshot() as tx:
        wrong = assessments.without_row(tx)
        after = 0
        while kept := assessments.kept_rows(tx, after, limit=AT_ONCE):
            counted = {study.study_id: kept_of(study) for study in counted_studies(tx, [r.study_id for r in kept])}
            wrong += [row.study for row in kept if _lasting(row) != _lasting(counted[row.study_id])]
            after = kept[-1].study_id
    return wrong


def _lasting(row: KeptAssessment) -> object:
    """Return the row without what grows while nothing changes; sums of numbers depend on their order a little."""
    plain = to_json(replace(row, until=None, day_seconds=0.0, day_since=0.0))
    facts = {
        f"facts.{name}": value for name, value in plain.pop("facts").items() if name not in assessments.OF_THE_MOMENT
    }
    return {name: f"{v:.9g}" if isinstance(v, float) else v for name, v in (plain | facts).items()}
