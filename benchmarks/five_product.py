"""The product's own way through a study without Airflow: register, let the referee seal, ask and train in a loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from five_data import write_source
from five_race import METRICS, Contest
from five_rivals import PATIENCE
from installation import GATE, TENANT

from easeml_core.data.parts import load_open_parts
from easeml_core.models.formats import load_predictor
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.register import register_study
from easeml_core.services.selection.scheduler import LiveScheduler
from easeml_core.services.trials.execution import run_trial
from easeml_core.services.trials.function_trials import run_function_trial
from easeml_core.store.tables import models, studies
from easeml_core.training.trainers import default_candidates

if TYPE_CHECKING:
    from five_data import Kind
    from five_race import Race
    from installation import Installation

    from easeml_core.data.parts import Part
    from easeml_core.data.table import RawTable

METER = {"ranges": (0.5,), "tolerance": 0.3, "reliability": 0.5, "steps": 1, "ambiguous": 0}
"""Small sealed sets: a fifth and a tenth of the rows are sealed anyway."""


def register(bench: Installation, name: str, kind: Kind, raw: RawTable, part: Part, seconds: float) -> Contest:
    """Register a study on a part of the data, and give what the product made of it to all methods.

    Raises:
        RuntimeError: If the referee refused the data.
    """
    more: dict[str, Any] = {}
    if kind.within is not None:
        more = {"task": str(raw.task), "metric": METRICS[raw.task], "hit": f"within:{kind.within:g}"}
    filed = register_study(
        bench.worker,
        tenant=TENANT,
        study=name,
        source=write_source(bench.folder / "data" / TENANT / name, part, raw.layout),
        gate=GATE,
        meter=METER,
        training={"time_limit_seconds": PATIENCE * seconds},
        candidates=kind.candidates,
        request_key=bench.key(),
        **more,
    )
    bench.judge.answer_one()
    answer = answer_of(bench.worker, filed["request_id"])
    if answer is None or answer["refused"]:
        message = f"the study {name} was not sealed: {answer}"
        raise RuntimeError(message)
    with bench.worker.begin() as tx:
        version = studies.latest_data_version(tx, filed["study_id"])
        artifact = studies.data_artifact(tx, version.id)
    parts = load_open_parts(bench.artifacts.path(artifact))
    candidates = kind.candidates or default_candidates(parts.layout, parts.task)
    return Contest(name, parts, candidates, kind.function)


def product(bench: Installation, contest: Contest, race: Race) -> None:
    """Ask the default policy for a trial and train it, again and again, as a device does."""
    functions = [] if contest.function is None else [contest.function.__name__]
    scheduler = LiveScheduler(bench.worker, studies_only=[contest.name], functions=functions)
    while race.left > 0:
        key = bench.key()
        found = scheduler.ask(request_key=key).trials
        if not found:
            return
        asked: dict[str, Any] = {"trial_id": found[0].trial_id, "request_key": key}
        report = (
            run_trial(bench.worker, bench.artifacts, **asked)
            if contest.function is None
            else run_function_trial(bench.worker, bench.artifacts, function=contest.function, **asked)
        )
        if report.model_id is None or report.quality is None:
            continue
        with bench.worker.begin() as tx:
            model = models.get_model(tx, studies.get_study(tx, contest.name).id, report.model_id)
        predictor = load_predictor(bench.artifacts.path(model.artifact), model.format)
        race.note(contest.score_of(report.quality), predictor.predict)
