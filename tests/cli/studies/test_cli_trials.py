"""``easeml trial show``: what came of a trial, its attempts, its learning curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.entities import FailureKind
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import claim, record_failure

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def found(make_study: Any, database: Any) -> Callable[[int], int]:
    """A running trial that has told of so many steps; its id."""

    def make(steps: int) -> int:
        make_study("cancer", candidates=[{"name": "tree", "kind": "decision_tree"}])
        (trial,) = suggest_trials(database.worker, count=1, request_key="s").trials
        lease = claim(database.worker, trial_id=trial.trial_id, request_key="w")
        for step in range(1, steps + 1):
            news = {"step": step, "of": steps, "quality": step / steps, "loss": 1 / step, "peak_mb": 321.5}
            lease.progress({"progress": step / steps, "note": f"epoch {step} of {steps}", **news})
        lease.beat()
        return int(trial.trial_id)

    return make


def test_the_curve_of_a_trial_is_shown(ask: Any, found: Callable[[int], int]) -> None:
    trial = str(found(4))
    shown = ask("trial", "show", trial, "--json").json
    assert [(p["step"], p["of"], p["quality"]) for p in shown["curve"]] == [
        (1, 4, 0.25), (2, 4, 0.5), (3, 4, 0.75), (4, 4, 1.0),
    ]  # fmt: skip
    assert (shown["attempt"], shown["state"], shown["lost_seconds"]) == (1, "RUNNING", 0.0)
    assert shown["progress"]["note"] == "epoch 4 of 4"
    text = ask("trial", "show", trial).text
    assert "Learning curve" in text
    assert "last_news epoch 4 of 4" in text
    assert "peak_mb 321.5" in text
    assert "0.7500" in text


def test_a_long_curve_is_thinned_on_a_screen_alone(ask: Any, found: Callable[[int], int]) -> None:
    trial = str(found(1000))
    assert len(ask("trial", "show", trial, "--json").json["curve"]) == 1000
    rows = [line.split() for line in ask("trial", "show", trial).out.splitlines() if "│" in line]
    assert [row[1] for row in rows] == [str(step) for step in range(20, 1001, 20)]


def test_a_trial_without_a_curve_has_no_empty_table(ask: Any, found: Callable[[int], int]) -> None:
    assert "Learning curve" not in ask("trial", "show", str(found(0))).text


def test_a_slot_that_is_none(run: Any, database: Any, artifacts: Any) -> None:
    where = ("--database", database.url("easeml_worker"), "--artifacts", str(artifacts.root))
    answer = run("device", "run", "--slot", "gpu", *where)
    assert (answer.status, "slot must be" in answer.err, "'gpu'" in answer.err) == (2, True, True)


def test_a_trial_that_its_task_failed_is_retried_once(ask: Any, make_study: Any, database: Any) -> None:
    make_study("cancer", candidates=[{"name": "tree", "kind": "decision_tree"}])
    (trial,) = suggest_trials(database.worker, count=1, request_key="s").trials
    lease = claim(database.worker, trial_id=trial.trial_id, request_key="w")
    record_failure(database.worker, lease, "no package", kind=FailureKind.TASK)
    first = ask("trial", "retry", str(trial.trial_id), "--json").json
    assert (first["state"], first["trial_id"] > trial.trial_id) == ("SUGGESTED", True)
    assert ask("trial", "retry", str(trial.trial_id), "--json").json == first
