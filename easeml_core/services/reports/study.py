"""What a person wants to know of one study: how good it is, what it has used, what runs, and what it is made of.

Only what everybody who sees the study may know: of sealed sets the one symbol of the last verdict, and the last signal
where one team alone uses the meter.

What a tenant may do with a study by hand: which models answer, what a row looks like, what was fed and refreshed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from easeml_core.data.layout import Layout
from easeml_core.data.split_spec import check_split
from easeml_core.entities import StudyState
from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.services.datasets.refresh import MOST_FEEDS
from easeml_core.services.selection.executors import waiting_sentences
from easeml_core.services.selection.policy import current_config
from easeml_core.services.studies.columns import require_one_answer
from easeml_core.store.queries import compute as store_compute
from easeml_core.store.queries import overview
from easeml_core.store.queries import study as study_facts
from easeml_core.store.tables import datasets, decisions, models, releases, studies, trials

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from easeml_core.entities import DataVersion, Model, Study
    from easeml_core.store.database import Store


PAGE = 20
"""Trials on one page."""


def facts_of_study(store: Store, *, study: str, page: int = 1) -> dict[str, Any]:
    """Everything that the page of a study shows, but for what is believed (``services/selection/beliefs.py``).

    Args:
        store: Role ``easeml_worker``.
        study: Its name.
        page: Which page of its trials, from 1, newest first.

    Returns:
        ``{"study", "own_weight", "counts", "best", "best_before", "shares", "points", "trials", "open", "curves",
        "data", "candidates", "verdict", "signal", "signals", "alerts", "waiting", "settings"}``. ``study`` is the
        entity;
        ``counts`` as of ``store.study_facts.counts`` with the number of ``candidates``; ``best`` and ``best_before``
        (before the last day) as of ``store.study_facts.best``; ``shares`` has ``used`` and ``due``, shares in [0, 1] of
        the last day, None where nothing ran or the study is not active; ``points`` are ended trials in their order;
        ``trials`` those of the page and ``open`` all that wait or run; ``curves`` of both, by trial; ``data`` of the
        newest version, with what was fed and switched off; ``waiting`` as
        of ``candidate_waits``; ``settings`` are those that the scheduler follows now.

    Raises:
        NotFoundError: There is no such study.
    """
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        shown = study_facts.trials_page(tx, found.id, skip=PAGE * (max(page, 1) - 1), limit=PAGE)
        under_way = study_facts.open_trials(tx, found.id)
        candidates = studies.list_candidates(tx, found.id)
        best = study_facts.best(tx, found.id)
        return {
            "study": found,
            "own_weight": studies.own_weight(tx, found.id),
            "counts": study_facts.counts(tx, found.id) | {"candidates": len(candidates)},
            "best": best,
            "best_before": _best_before(tx, found),
            "shares": _shares(tx, found),
            "points": study_facts.points(tx, found.id),
            "trials": shown,
            "open": under_way,
            "curves": study_facts.sparks(tx, [t["trial_id"] for t in (*shown, *under_way)]),
            "data": _data(tx, found),
            "candidates": candidates,
            "settings": current_config(tx),
            "alerts": releases.list_alerts(tx, found.id, open_only=True),
            "waiting": waiting_sentences(tx, [found.name]).get(found.name, []),
        } | _released(tx, found)


def _best_before(tx: Connection, study: Study) -> dict[str, Any] | None:
    """The best of a day ago."""
    return study_facts.best(tx, study.id, before=study_facts.moment(tx) - timedelta(days=1))


def _shares(tx: Connection, study: Study) -> dict[str, float | None]:
    """Used and due of the last day, as the overview tells them."""
    own, total = study_facts.seconds_of_day(tx, study.id), overview.totals(tx)
    is_due = study.state == StudyState.ACTIVE and total["weight"] > 0
    return {
        "used": own / total["seconds"] if total["seconds"] > 0 else None,
        "due": study.weight / total["weight"] if is_due else None,
    }


def _data(tx: Connection, study: Study) -> dict[str, Any] | None:
    """The newest data; None before they are sealed."""
    try:
        version = studies.latest_data_version(tx, study.id)
    except NotFoundError:
        return None
    return study_facts.versions(tx, study.id) | study_facts.changes(tx, study.id) | {"version": version}


def _released(tx: Connection, study: Study) -> dict[str, Any]:
    reading = releases.newest_reading(tx, study.id)
    return {
        "verdict": study_facts.last_verdict(tx, study.id),
        "signal": None if reading is None else reading.signal,
        "signals": None if reading is None else reading.signals,
    }


def facts_of_decision(store: Store, *, trial_id: int) -> dict[str, Any]:
    """What the page of a decision shows beside ``explain``: the trial, its curve, and what its study had when it ended.

    Returns:
        ``{"trial", "curve", "best_before", "known"}``: as of ``store.study_facts.one_trial``; (share of the steps,
        quality) pairs; the best quality on the same data when it ended, None before; as of
        ``store.study_facts.known_at``, None where no decision is stored.

    Raises:
        NotFoundError: There is no such trial.
    """
    with store.begin() as tx:
        trials.get_trial(tx, trial_id)
        decided = [b for b in decisions.suggestions_of_trial(tx, trial_id) if "mean" in b["reasons"]]
        moment = decided[0]["created_at"] if decided else None
        return {
            "known": None if moment is None else study_facts.known_at(tx, trial_id, moment=moment),
            "trial": study_facts.one_trial(tx, trial_id),
            "curve": study_facts.sparks(tx, [trial_id], most=200).get(trial_id, []),
            "best_before": decisions.outcome_of_trial(tx, trial_id)["best_before"],
        }


def guard_of_day(store: Store, *, studies_seen: Collection[str] | None = None) -> dict[str, Any]:
    """What the guard for the least served did in the last day, and who was served least.

    Args:
        store: Role ``easeml_worker``.
        studies_seen: Names of the studies that whoever asks may see; None for all. Of others only sums are told.

    Returns:
        ``{"used", "least", "of_due", "is_all"}``: the share of all compute that trials of the guard took, in [0, 1],
        None where nothing ran; of the tenants that may be seen and have an active study the one that had least of what
        is due to it by its weight, and which part of that, None where nothing ran; whether those were all tenants.
    """
    with store.begin() as tx:
        day = study_facts.guard_of_day(tx)
        since: datetime = study_facts.moment(tx) - timedelta(days=1)
        shares = store_compute.shares(tx, since=since, names=studies_seen)
    if day["seconds"] <= 0:
        return {"used": None, "least": None, "of_due": None, "is_all": studies_seen is None}
    due = day["seconds"] / (sum(s.weight or 0.0 for s in shares) or 1.0)
    parts = [(s.seconds / (due * s.weight), s.tenant) for s in shares if s.seen and s.weight]
    of_due, least = min(parts, default=(None, None))
    used = day["guarded"] / day["seconds"]
    return {"used": used, "least": least, "of_due": of_due, "is_all": studies_seen is None}


def study_of_trial(store: Store, *, trial_id: int) -> str | None:
    """Name of the study that a trial is of; None where there is no such trial."""
    with store.begin() as tx:
        return study_facts.study_of_trial(tx, trial_id)


MOST_SHOWN = 20


def use_of_study(store: Store, study: str) -> dict[str, Any]:
    """All that the page shows of one study, from one moment.

    Args:
        store: Role ``easeml_worker``.
        study: The study.

    Returns:
        ``{"data", "production", "best", "feeds", "refreshes", "waiting_feeds", "waiting_switches"}``. ``data`` is None
        before the data are sealed, else ``{"version", "kind", "shape", "features", "columns", "classes", "train_rows",
        "no_pairs"}``, the last being why it takes no pairs, or empty; ``production`` and ``best`` are ``{"model_id",
        "candidate"}`` or None; feeds and refreshes are the newest ``MOST_SHOWN``.

    Raises:
        NotFoundError: There is no such study.
    """
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        try:
            data = _data_in_use(tx, found, studies.latest_data_version(tx, found.id))
        except NotFoundError:
            data = None
        return {
            "data": data,
            "production": _model(tx, releases.production_model(tx, found.id)),
            "best": _model(tx, models.best_model_so_far(tx, found.id)),
            "feeds": datasets.list_feeds(tx, found.id, limit=MOST_SHOWN),
            "refreshes": datasets.refresh_history(tx, found.id, limit=MOST_SHOWN),
            "waiting_feeds": len(datasets.waiting_feeds(tx, found.id, limit=MOST_FEEDS)),
            "waiting_switches": len(datasets.waiting_switches(tx, found.id)),
        }


def _data_in_use(tx: Connection, study: Study, version: DataVersion) -> dict[str, Any]:
    layout = None if version.layout is None else Layout.from_json(version.layout)
    return {
        "version": version.version,
        "kind": "table" if layout is None else layout.kind,
        "shape": () if layout is None else layout.shape,
        "features": version.features,
        "columns": studies.feature_names(tx, version.id),
        "classes": studies.class_names(tx, version.id),
        "train_rows": version.train_rows,
        "no_pairs": _no_pairs(study, version),
    }


def _no_pairs(study: Study, version: DataVersion) -> str:
    try:
        require_one_answer(version, "pairs that are fed")
        check_split(study.config.get("split")).require_feedable()
    except InvalidInputError as error:
        return str(error)
    return ""


def _model(tx: Connection, model: Model | None) -> dict[str, Any] | None:
    if model is None:
        return None
    return {"model_id": model.id, "candidate": models.origin(tx, model.id)["candidate"]}
