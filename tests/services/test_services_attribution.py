"""A trial trains the candidate that it is charged for, or nothing: who executes is part of the claim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from easeml_core.services.function_trials import run_function_trial
from easeml_core.services.suggestion import suggest_trials
from easeml_core.services.trials import trial_state

if TYPE_CHECKING:
    from collections.abc import Mapping

NB = {"name": "nb", "kind": "gaussian_naive_bayes"}
FUNCTIONS = [{"name": name, "kind": "function"} for name in ("const", "tree")]


def const(data: Any, parameters: Any, report: Any) -> Any:
    return GaussianNB().fit(data.train_inputs, data.train_labels)


def tree(data: Any, parameters: Any, report: Any) -> Any:
    return DecisionTreeClassifier(random_state=0).fit(data.train_inputs, data.train_labels)


@pytest.fixture
def mixed(lab: Any) -> Any:
    """The study of the report: two functions and a trainer of the product."""
    lab.register("mixed", candidates=[*FUNCTIONS, NB])
    return lab


def handed_out(lab: Any) -> Mapping[str, int]:
    """All three trials, as a DAG was handed them that has both functions: candidate to trial."""
    found = suggest_trials(
        lab.worker, count=9, studies_only=["mixed"], functions=["const", "tree"], request_key=lab.key()
    )
    return {trial["candidate"]: trial["trial_id"] for trial in found["trials"]}


def test_a_function_that_is_mapped_over_every_trial_trains_its_own_candidate_alone(mixed: Any) -> None:
    """``const.expand(trial=suggest.output)``: each trial ran ``const``, and ``nb`` was promoted for it."""
    trials = handed_out(mixed)
    for trial_id in trials.values():
        run_function_trial(
            mixed.worker, mixed.artifacts, trial_id=trial_id, request_key=f"map/{trial_id}", function=const
        )
    states = {name: trial_state(mixed.worker, trial_id=trial_id)["state"] for name, trial_id in trials.items()}
    assert states == {"const": "SUCCEEDED", "tree": "SUGGESTED", "nb": "SUGGESTED"}
    models = "SELECT count(*) FROM work.models WHERE trial_id = ANY(:ids)"
    assert mixed.one(models, ids=list(trials.values())) == 1
