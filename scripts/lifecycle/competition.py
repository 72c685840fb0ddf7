"""Chapter 2: tenants compete for two devices; one decision between them is explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from demo_night.registration import await_answers
from demo_night.runs import await_dag, follow
from stack.failures import LifecycleError

from easeml_core.entities import TrialState
from easeml_core.services.registration.register import register_study
from easeml_core.services.reports.overview import study_details
from lifecycle.stage import OPERATOR

if TYPE_CHECKING:
    from easeml_core.store.tables.trials import TrialEntry
    from lifecycle.stage import Stage
    from lifecycle.story import Chapter
    from lifecycle.window import Window

TITLE = "Tenants compete for two devices"
STREAM_DAG = "easeml_stream"
TRIALS_A_DEVICE = 6
ENOUGH, MOST_RUNS = 4, 4
"""Trials that the newcomer's study needs for what comes later; where studies of earlier plays compete, one run of the
DAG may be too few."""

LOOKED_AT = 8
"""Decisions that are opened at most, to find one whose runner-up is another study's."""

KINDS = ("nearest_centroid", "gaussian_naive_bayes", "logistic_regression")
OTHERS = (("clinic", "tumour", "sklearn:breast_cancer"), ("cellar", "wine", "sklearn:wine"))
GATE = {"condition": "n > 0.7 +/- 0.2", "reliability": 0.9, "steps": 4}
METER = {"ranges": [0.4], "tolerance": 0.25, "reliability": 0.9, "steps": 4}
RUNNER_UP = "dt:has-text('Runner-up')"


def register_others(stage: Stage) -> None:
    """Let two more tenants be there, before the newcomer comes.

    Raises:
        LifecycleError: The stack fell ill, or a study was refused.
    """
    requests = {}
    for tenant, name, source in OTHERS:
        study = f"{name}{stage.ending}"
        wish: dict[str, Any] = {"tenant": tenant, "study": study, "source": source, "gate": GATE, "meter": METER}
        candidates = [{"name": kind, "kind": kind} for kind in KINDS]
        filed = register_study(stage.store, **wish, candidates=candidates, request_key=f"lifecycle/{study}")
        requests[study] = filed.request_id
    await_answers(stage.store, requests, stage.check, lambda _: None)


def play(stage: Stage, chapter: Chapter) -> None:
    """Let two devices train, watch, and open a decision."""
    window = stage.window(OPERATOR)
    chapter.tell(f"Airflow runs {STREAM_DAG}: two devices, at most {TRIALS_A_DEVICE} trials each, over all tenants.")
    for _ in range(MOST_RUNS):
        run_id = _train(stage, chapter, window)
        if len(_ended(stage, stage.study)) >= ENOUGH:
            break
    else:
        message = f"{stage.study} has fewer than {ENOUGH} trials after {MOST_RUNS} runs of {STREAM_DAG}"
        raise LifecycleError(message)
    window.go("/")
    chapter.keep(window.picture("2b-after-training"))
    window.go_airflow(f"/dags/{STREAM_DAG}/runs/{run_id}")
    window.await_seen("text=run_device", "the run's tasks in Airflow")
    chapter.keep(window.picture("2c-run-in-airflow"))
    for tenant, name, _ in (("school", "digits", ""), *OTHERS):
        trials = _ended(stage, f"{name}{stage.ending}")
        best = max((t.quality for t in trials if t.quality is not None), default=None)
        reached = "none has ended" if best is None else f"best quality {best:.4f}"
        chapter.tell(f"{tenant} {name}: {len(trials)} trials, {reached}.")
    window.go(stage.path)
    window.await_seen("table.trials tbody tr", "the study's trials")
    chapter.keep(window.picture("2d-study"))
    _explain(stage, chapter, window)


def _train(stage: Stage, chapter: Chapter, window: Window) -> str:
    rest = stage.access.rest()
    await_dag(rest, STREAM_DAG, stage.check)
    rest.pause(STREAM_DAG, False)
    run_id = rest.trigger(STREAM_DAG, {"devices": ["cpu", "cpu"], "max_trials": TRIALS_A_DEVICE})
    if not chapter.pictures:
        window.go("/")
        window.await_seen("td.t .busy", "a trial that runs, on the overview")
        chapter.keep(window.picture("2a-competition"))
    *_, (state, _) = follow(rest, STREAM_DAG, run_id, stage.check)
    if state != "success":
        message = f"run {run_id} of {STREAM_DAG} ended as {state}; its logs are in {stage.places.task_logs}"
        raise LifecycleError(message)
    return run_id


def _ended(stage: Stage, study: str) -> list[TrialEntry]:
    return [t for t in study_details(stage.store, study=study).trials if t.state == TrialState.SUCCEEDED]


def _explain(stage: Stage, chapter: Chapter, window: Window) -> None:
    """Open the newest decision whose runner-up is another study's, else the newest that had a runner-up."""
    pages: dict[bool, str] = {}
    for trial in sorted(_ended(stage, stage.study), key=lambda t: -t.trial_id)[:LOOKED_AT]:
        window.go(f"{stage.path}/decisions/{trial.trial_id}")
        window.await_seen("p.now", "the reason of the decision")
        if found := window.texts(RUNNER_UP):
            pages.setdefault(stage.study not in found[0], window.page.url)
    if not pages:
        message = f"none of the newest {LOOKED_AT} decisions of {stage.study} had a runner-up"
        raise LifecycleError(message)
    window.go(pages[max(pages)].partition("/easeml")[2])
    chapter.keep(window.picture("2e-decision"))
    chapter.tell(f"Why one of them ran: “{window.text('p.now')}”")
