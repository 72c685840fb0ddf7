"""The night itself: trigger the retraining, tell what runs, collect what it released; and hand in a worse model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stack.failures import NightError

from demo_night.runs import Release, await_dag, follow, kind_of, require_no_broken_tasks, title
from easeml_core.gate.condition import parse_condition
from easeml_core.services.models.promotion import model_list
from easeml_core.services.reports.overview import overview, study_details

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stack.progress import Progress
    from stack.rest import Rest

    from demo_night.runs import Task
    from easeml_core.store.database import Store


NIGHT_DAG = "easeml_nightly_retraining"
MARKS = {"success": "[green]✓[/]", "failed": "[red]✗[/]", "upstream_failed": "[red]·[/]"}
REPORTED = ("train", "gate", "promote", "meter")


@dataclass(frozen=True, slots=True)
class Night:
    """What one run did.

    Attributes:
        number: 1 for the first night of this state.
        run_id: Airflow's.
        policy: Which policy chose.
        suggested: ``{"trial_id", "study", "candidate", "reason"}`` each, in the order of the rounds.
        message: What the last round said, e.g. that there is nothing to train.
        released: What became of each submission.
    """

    number: int
    run_id: str
    policy: str
    suggested: tuple[dict[str, Any], ...]
    message: str
    released: tuple[Release, ...]


class Ticker:
    """Tells each finished task once, above the line that says what runs now.

    Args:
        progress: Where to print.
        tell: Shows what runs now.
        submissions: Gives the studies whose models are judged, in the order of the mapped group.
    """

    def __init__(self, progress: Progress, tell: Callable[[str], None], submissions: Callable[[], list[str]]) -> None:
        self.progress, self.tell, self.submissions = progress, tell, submissions
        self.reported: set[tuple[str, int]] = set()
        self.names: list[str] = []

    def show(self, tasks: Sequence[Task]) -> None:
        """Tell what is new."""
        for task in tasks:
            key = (str(task["task_id"]), int(task["map_index"]))
            if kind_of(task).rstrip("_0123456789") in REPORTED and task["state"] in MARKS and key not in self.reported:
                self.reported.add(key)
                seconds = f"{task['duration']:.1f} s" if task.get("duration") else ""
                self.progress.console.print(f"      {MARKS[task['state']]} {self.title(task)} [dim]{seconds}[/]")
        running = [self.title(t) for t in tasks if t["state"] in ("running", "deferred")]
        self.tell(", ".join(running[:3]) + (f" and {len(running) - 3} more" if len(running) > 3 else ""))

    def title(self, task: Task) -> str:
        """The task's title, with the study's name where Airflow knows only a number."""
        if not str(task["task_id"]).startswith("release.") or task["map_index"] < 0:
            return title(task)
        self.names = self.names or self.submissions()
        return f"{kind_of(task)} {self.names[task['map_index']]}"


def run_night(rest: Rest, progress: Progress, check: Callable[[], None], conf: dict[str, Any] | None = None) -> Night:
    """Run one night to its end.

    Args:
        rest: Airflow.
        progress: Where to tell what happens.
        check: Raises when the stack is not well any more.
        conf: What the trigger form would give.

    Raises:
        NightError: If it did not go as it should.
    """
    await_dag(rest, NIGHT_DAG, check)
    number = rest.count_runs(NIGHT_DAG) + 1
    rest.pause(NIGHT_DAG, False)
    run_id = rest.trigger(NIGHT_DAG, conf)
    with progress.step(f"night {number}: {NIGHT_DAG}") as tell:
        ticker = Ticker(progress, tell, lambda: [b["study"] for b in rest.xcom(NIGHT_DAG, run_id, "best_models")])
        for state, tasks in follow(rest, NIGHT_DAG, run_id, check):
            ticker.show(tasks)
            if state == "queued":
                tell("waiting for its turn: another night may be under way")
    ticker.show(tasks := rest.tasks(NIGHT_DAG, run_id))
    released = require_no_broken_tasks(rest, NIGHT_DAG, run_id)
    rounds = sorted({str(t["task_id"]) for t in tasks if str(t["task_id"]).startswith("suggest_")})
    return Night(
        number=number,
        run_id=run_id,
        policy=str(rest.xcom(NIGHT_DAG, run_id, rounds[0], key="policy")),
        suggested=tuple(s for name in rounds for s in rest.xcom(NIGHT_DAG, run_id, name) or ()),
        message=str(rest.xcom(NIGHT_DAG, run_id, rounds[-1], key="message")),
        released=tuple(released),
    )


GATE_DAG = "easeml_commit_gate"
BASELINE = "baseline"
"""Origin of the model that a study has before any other."""


@dataclass(frozen=True, slots=True)
class Worse:
    """A model that is worse than the one in production, by validation quality; ``candidate`` says where it is from."""

    study: str
    model_id: int
    candidate: str
    quality: float
    standing: str
    standing_quality: float
    condition: str


def find_worse(store: Store) -> Worse | None:
    """The widest gap between production and another model, over the studies whose gate compares the two.

    A trained model if there is one, else the baseline that production has replaced; None before any promotion.
    """
    found = [w for entry in overview(store).tenants for w in _worse_of(store, entry.study)]
    trained = [w for w in found if w.candidate != BASELINE]
    return max(trained or found, key=lambda w: w.standing_quality - w.quality, default=None)


def _worse_of(store: Store, study: str) -> list[Worse]:
    """All models of a study that are worse than the one that stands."""
    condition = str(study_details(store, study=study).settings["gate"]["condition"])
    listed = model_list(store, study=study)
    standing = next((m for m in listed if m.in_production), None)
    if standing is None or not compares(condition):
        return []
    return [
        Worse(
            study=study,
            model_id=model.model_id,
            candidate=model.origin,
            quality=model.validation_quality,
            standing=standing.origin,
            standing_quality=standing.validation_quality,
            condition=condition,
        )
        for model in listed
        if model.validation_quality < standing.validation_quality
    ]


def compares(condition: str) -> bool:
    """Whether a condition speaks of the old model: a worse one may well be good enough in itself."""
    return any(dict(clause.weights).get("o") for clause in parse_condition(condition).clauses)


def hand_in(rest: Rest, worse: Worse, progress: Progress, check: Callable[[], None]) -> Release:
    """Trigger the commit gate as its form would.

    Raises:
        NightError: If the gate lets the worse model pass, or something else breaks.
    """
    await_dag(rest, GATE_DAG, check)
    rest.pause(GATE_DAG, False)
    title = f"hand in a worse model: {worse.candidate} for {worse.study}, by {GATE_DAG}"
    with progress.step(title) as tell:
        run_id = rest.trigger(GATE_DAG, {"study": worse.study, "model": worse.model_id})
        for state, _ in follow(rest, GATE_DAG, run_id, check):
            tell(f"run {run_id}, {state}")
    released = require_no_broken_tasks(rest, GATE_DAG, run_id)
    if [r.symbol for r in released] != ["fail"] or released[0].promoted:
        message = f"the gate should have rejected {worse}, but answered {released}"
        raise NightError(message)
    return released[0]
