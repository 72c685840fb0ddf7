"""Reports about one study for every viewer: quality, device time, trials, data, models, and feeding by hand.

Of test sets they hold the symbol of the last verdict, and the last signal where one team alone uses the meter.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from easeml_core.data.layout import Layout
from easeml_core.data.split_spec import check_split
from easeml_core.entities import StudyState
from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.services.datasets.refresh import MOST_FEEDS
from easeml_core.services.reports.assessments import assess_changes, totals_of_all
from easeml_core.services.reports.next_steps import waits_of
from easeml_core.services.reports.recommendations import assess
from easeml_core.services.selection.beliefs import beliefs
from easeml_core.services.selection.policy import current_config
from easeml_core.services.studies.columns import require_one_answer
from easeml_core.store.queries import compute, overview
from easeml_core.store.queries import study as study_queries
from easeml_core.store.tables import datasets, decisions, models, releases, studies

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sqlalchemy import Connection

    from easeml_core.entities import Candidate, DataVersion, Model, Study
    from easeml_core.services.reports.recommendations import Assessment
    from easeml_core.services.selection.beliefs import Beliefs
    from easeml_core.store.database import Store
    from easeml_core.store.queries.overview import InstallationTotals, StudySummary
    from easeml_core.store.queries.study import DataFacts, EndedPoint, KnownThen, ListedTrial, StudyTrial
    from easeml_core.store.tables.datasets import Feed, RefreshEntry
    from easeml_core.store.tables.releases import Alert


PAGE = 20
"""Trials on one page."""


@dataclass(frozen=True, slots=True)
class StudyReport:
    """The contents of a study's page, read in one transaction.

    Attributes:
        study: The study.
        assessment: Its facts, next steps and standing.
        totals: Device time and weight of the whole installation.
        points: Ended trials in the order of their end.
        trials: One page of its trials, newest first.
        open: All trials that wait or run: running ones first, then by age.
        data: The newest data; None before they are sealed.
        candidates: All of them.
        alerts: The open alerts.
        waiting: Candidates' waits for an implementation or for a repair of their task.
        believed: The scheduler's predictions; None where it has none now.
        policy: Of the scheduler.
        price_per_second: Least gain of quality that a second of compute must promise.
    """

    study: Study
    assessment: Assessment
    totals: InstallationTotals
    points: list[EndedPoint]
    trials: list[ListedTrial]
    open: list[ListedTrial]
    data: DataFacts | None
    candidates: list[Candidate]
    alerts: list[Alert]
    waiting: list[str]
    believed: Beliefs | None
    policy: str
    price_per_second: float

    @property
    def facts(self) -> StudySummary:
        """Return the facts of the study."""
        return self.assessment.facts

    @property
    def used_share(self) -> float | None:
        """Return the study's share of the device time of the last day, in [0, 1]; None where nothing ran."""
        return self.assessment.used_share(self.totals) if self.totals.seconds > 0 else None

    @property
    def due_share(self) -> float | None:
        """Return the share that is due by weight, in [0, 1]; None for a study that is not active."""
        is_due = self.study.state == StudyState.ACTIVE and self.totals.weight > 0
        return self.assessment.due_share(self.totals) if is_due else None


def study_report(
    store: Store, *, study: str, page: int = 1, sees: Callable[[Study], bool] = lambda _: True
) -> StudyReport:
    """Return the contents of a study's page, from one moment."""
    assess_changes(store)
    with store.snapshot() as tx:
        found = studies.get_study(tx, study)
        if not sees(found):
            raise NotFoundError(kind="study", name=study)
        (facts,) = overview.study_summaries(tx, ids=[found.id])
        listed = study_queries.listed_trials(tx, found.id, skip=PAGE * (max(page, 1) - 1), limit=PAGE)
        under_way = sorted((t for t in listed if t.finished_at is None), key=lambda t: (t.state, t.trial_id))
        is_active = found.state == StudyState.ACTIVE
        believed = beliefs(store, study=study, tx=tx)
        config = current_config(tx) if believed is None else believed
        return StudyReport(
            study=found,
            assessment=assess(facts),
            totals=totals_of_all(store, tx),
            points=study_queries.points(tx, found.id),
            trials=[t for t in listed if t.on_page],
            open=under_way[: study_queries.MOST_OPEN],
            data=study_queries.data_facts(tx, found.id),
            candidates=studies.list_candidates(tx, found.id),
            alerts=releases.list_alerts(tx, found.id, open_only=True) if facts.open_alerts else [],
            waiting=waits_of(tx, study) if is_active else [],
            believed=believed,
            policy=config.policy,
            price_per_second=config.price_per_second,
        )


@dataclass(frozen=True, slots=True)
class DecisionFacts:
    """The contents of a decision's page beside ``explain_trial``.

    Attributes:
        trial: The trial with its learning curve.
        known: What the scheduler knew at the choice; None where no decision is stored.
        best_before: Best quality on the same data when the trial ended; None before the first.
    """

    trial: StudyTrial
    known: KnownThen | None
    best_before: float | None


def facts_of_decision(store: Store, *, trial_id: int) -> DecisionFacts:
    """Return the contents of a decision's page beside ``explain_trial``."""
    with store.begin() as tx:
        shown = study_queries.one_trial(tx, trial_id)
        if shown is None:
            raise NotFoundError(kind="trial", name=trial_id)
        decided = [b for b in decisions.suggestions_of_trial(tx, trial_id) if "mean" in b.reasons]
        moment = decided[0].created_at if decided else None
        known = None if moment is None else study_queries.known_at(tx, trial_id, moment=moment)
        return DecisionFacts(shown, known, decisions.outcome_of_trial(tx, trial_id).best_before)


@dataclass(frozen=True, slots=True)
class GuardReport:
    """The guard for the least-served tenant in the last day.

    Attributes:
        used: Share of all compute that trials of the guard took, in [0, 1]; None where nothing ran.
        least: The least-served tenant by weight, of those that the viewer may see with an active study; None where
            nothing ran.
        of_due: The share of what is due that it received.
        is_all: Whether the viewer sees all tenants.
    """

    used: float | None
    least: str | None
    of_due: float | None
    is_all: bool


def guard_of_day(store: Store, *, studies_seen: Collection[str] | None = None) -> GuardReport:
    """Return what the guard did in the last day, and which tenant was served least."""
    with store.begin() as tx:
        day = study_queries.guard_of_day(tx)
        shares = compute.shares(tx, since=study_queries.moment(tx) - timedelta(days=1), names=studies_seen)
    is_all = studies_seen is None
    if day.seconds <= 0:
        return GuardReport(None, None, None, is_all)
    due = day.seconds / (sum(s.weight or 0.0 for s in shares) or 1.0)
    parts = [(s.seconds / (due * s.weight), s.tenant) for s in shares if s.seen and s.weight]
    of_due, least = min(parts, default=(None, None))
    return GuardReport(day.guarded / day.seconds, least, of_due, is_all)


def study_of_trial(store: Store, *, trial_id: int) -> str | None:
    """Return the name of a trial's study; None where there is no such trial."""
    with store.begin() as tx:
        return study_queries.study_of_trial(tx, trial_id)


MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class ModelInUse:
    """A model; ``candidate`` is None of one that was submitted."""

    model_id: int
    candidate: str | None


@dataclass(frozen=True, slots=True)
class DataInUse:
    """The newest data of a study, in the form of a model's rows.

    Attributes:
        version: Its number.
        kind: ``table``, or another kind of a layout.
        shape: Of one example; empty for a table.
        features: Number of a model's inputs.
        columns: Their names; None where they were not kept.
        classes: Names of the classes; empty where numbers are predicted.
        train_rows: Training examples.
        no_pairs: Why it takes no examples; empty where it does.
    """

    version: int
    kind: str
    shape: tuple[int, ...]
    features: int
    columns: list[str] | None
    classes: list[str]
    train_rows: int
    no_pairs: str


@dataclass(frozen=True, slots=True)
class StudyUse:
    """What a tenant may do with a study by hand.

    Attributes:
        data: None before the data are sealed.
        production: The model in production, or None; ``best`` is the best model so far.
        feeds: The newest feeds, at most ``MOST_SHOWN``; ``refreshes`` likewise.
        waiting_feeds: Feeds that the referee has not processed; ``waiting_switches`` likewise.
    """

    data: DataInUse | None
    production: ModelInUse | None
    best: ModelInUse | None
    feeds: list[Feed]
    refreshes: list[RefreshEntry]
    waiting_feeds: int
    waiting_switches: int


def use_of_study(store: Store, study: str) -> StudyUse:
    """Return the contents of a study's page for feeding and inference, from one moment."""
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        try:
            data = _data_in_use(tx, found, studies.latest_data_version(tx, found.id))
        except NotFoundError:
            data = None
        return StudyUse(
            data=data,
            production=_model(tx, releases.production_model(tx, found.id)),
            best=_model(tx, models.best_model_so_far(tx, found.id)),
            feeds=datasets.list_feeds(tx, found.id, limit=MOST_SHOWN),
            refreshes=datasets.refresh_history(tx, found.id, limit=MOST_SHOWN),
            waiting_feeds=len(datasets.waiting_feeds(tx, found.id, limit=MOST_FEEDS)),
            waiting_switches=len(datasets.waiting_switches(tx, found.id)),
        )


def _data_in_use(tx: Connection, study: Study, version: DataVersion) -> DataInUse:
    layout = None if version.layout is None else Layout.from_json(version.layout)
    return DataInUse(
        version=version.version,
        kind="table" if layout is None else layout.kind,
        shape=() if layout is None else layout.shape,
        features=version.features,
        columns=studies.feature_names(tx, version.id),
        classes=studies.class_names(tx, version.id),
        train_rows=version.train_rows,
        no_pairs=_no_pairs(study, version),
    )


def _no_pairs(study: Study, version: DataVersion) -> str:
    try:
        require_one_answer(version, "pairs that are fed")
        check_split(study.config.get("split")).require_feedable()
    except InvalidInputError as error:
        return str(error)
    return ""


def _model(tx: Connection, model: Model | None) -> ModelInUse | None:
    return None if model is None else ModelInUse(model.id, models.origin(tx, model.id).candidate)
