"""Candidates of training functions go to callers with the function; others give them back unharmed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sklearn.naive_bayes import GaussianNB

from easeml_core.services.selection.scheduler import LiveScheduler, suggest_trials
from easeml_core.services.trials.attempts import run_function_trial
from easeml_core.services.trials.execution import cancel_trial, run_trial, trial_state
from easeml_core.services.trials.worker import run_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.store.tables.decisions import SuggestedTrial

TREE = {"name": "tree", "kind": "decision_tree"}
OWN = [{"name": name, "kind": "function", "parameters": {"k": 1}} for name in ("fit", "fit-k2", "fit_all-k3", "other")]


@pytest.fixture
def own(lab: Any) -> Any:
    """A study of a tree and of the candidates of three functions; two of one."""
    lab.register("own", candidates=[TREE, *OWN])
    return lab


def ask(lab: Any, *functions: str, count: int = 9) -> Sequence[SuggestedTrial]:
    given = {"count": count, "studies_only": ["own"], "request_key": lab.key()}
    return suggest_trials(lab.worker, functions=functions, **given).trials


def names(found: Sequence[SuggestedTrial]) -> list[str]:
    return sorted(trial.candidate for trial in found)


def fit(data: Any, parameters: Any, report: Any) -> Any:
    assert parameters == {"k": 1}
    return GaussianNB().fit(data.train_inputs, data.train_labels)


def other(data: Any, parameters: Any, report: Any) -> Any:
    pytest.fail("this is another function's trial")


def row(lab: Any, trial_id: int) -> Any:
    columns = "state, attempt, lost_seconds, failure, lease_until"
    return tuple(lab.rows(f"SELECT {columns} FROM work.trials WHERE id = :id", id=trial_id)[0])


@pytest.mark.parametrize(
    ("functions", "handed"),
    [
        ((), ["tree"]),
        (("fit",), ["fit", "fit-k2", "tree"]),
        (("fit_all", "other"), ["fit_all-k3", "other", "tree"]),
        (("fit-k2", "fi", "FIT"), ["tree"]),
    ],
)
def test_whoever_asks_is_handed_what_it_can_run(functions: tuple[str, ...], handed: list[str], own: Any) -> None:
    assert names(ask(own, *functions)) == handed
    assert ask(own, *functions) == ()


def test_a_trial_without_its_function_is_given_back_unharmed(own: Any) -> None:
    (trial,) = [t for t in ask(own, "fit") if t.candidate == "fit"]
    trial_id, lines = trial.trial_id, []
    report = run_trial(own.worker, own.artifacts, trial_id=trial_id, request_key="a", log=lines.append)
    assert (report.state, report.failure) == ("SUGGESTED", None)
    answer = f"trial {trial_id} (own, fit) is given back: only the training function 'fit' (@trial) may train it"
    answer += ", and this task executes the trainers of this package; the next task that asks and has it is handed "
    assert lines == [answer + "the trial"]
    assert row(own, trial_id) == ("SUGGESTED", 0, 0.0, None, None)

    assert names(ask(own, "other")) == ["other"]
    again = run_function_trial(own.worker, own.artifacts, trial_id=trial_id, request_key="b", function=other)
    assert again.state == "SUGGESTED"
    (found,) = ask(own, "fit")
    assert (found.trial_id, "is given again" in found.reason) == (trial_id, True)
    done = run_function_trial(own.worker, own.artifacts, trial_id=trial_id, request_key="c", function=fit)
    assert (done.state, done.failure) == ("SUCCEEDED", None)
    late = run_trial(own.worker, own.artifacts, trial_id=trial_id, request_key="d", log=lines.append)
    assert (late, len(lines)) == (done, 1)


def test_a_trial_that_is_given_back_can_be_cancelled(own: Any) -> None:
    (trial,) = [t for t in ask(own, "other") if t.candidate == "other"]
    run_trial(own.worker, own.artifacts, trial_id=trial.trial_id, request_key="a")
    cancel_trial(own.worker, trial_id=trial.trial_id)
    assert trial_state(own.worker, trial_id=trial.trial_id).state == "CANCELLED"
    assert names(ask(own, "other", "fit")) == ["fit", "fit-k2"]


def test_what_a_function_has_found_counts_for_whoever_has_it_not(own: Any) -> None:
    """A scheduler that lives goes on after the end of a trial that it could not have handed out, as one made anew."""
    live = LiveScheduler(own.worker, studies_only=["own"])
    assert names(live.ask(request_key="first").trials) == ["tree"]
    (trial, _) = ask(own, "fit")
    run_function_trial(own.worker, own.artifacts, trial_id=trial.trial_id, request_key="w", function=fit)
    assert live.ask(request_key="second").trials == ()
    kept = live._memory
    assert kept is not None
    assert kept.arms[0].names == ("tree", "fit", "fit-k2")  # those that have a trial
    assert [kept.arms[0].names[pull.arm] for pull in kept.problem.pulls] == [trial.candidate]


def test_a_device_ends_where_only_functions_are_left(own: Any) -> None:
    """It does not wait for the end of a trial, since none could make a function's candidate run here."""
    held = ask(own, "other")
    summary = run_device(own.worker, own.artifacts, studies_only=["own"], device=None, request_key="d", poll_seconds=60)
    assert (summary.trials, names(held)) == ((), ["other", "tree"])
    assert summary.reason == "nothing runnable"
