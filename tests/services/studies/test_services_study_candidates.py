"""Candidates fit their study: what could never give a model of it is left out, or refused where it was named."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from easeml_core.data.layout import table_layout
from easeml_core.data.parts import OpenParts
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError
from easeml_core.services.registration.register import checked_goal
from easeml_core.services.studies.candidates import add_candidates
from easeml_core.training.trainers import TRAINERS

TABLE = "{input: {[Tensor[30]], []}, output: {[Category[2]], []}}"
MISFITS = {
    "a kind for series": ("rocket", "rocket needs series"),
    "a kind for numbers": ("ridge_regression", "ridge_regression learns numbers"),
    "a kind without probabilities": ("rbf_svm", "auc needs"),
}


def names(lab: Any) -> list[str]:
    return [name for (name,) in lab.rows("SELECT name FROM work.candidates ORDER BY id")]


@pytest.mark.parametrize("program", [None, TABLE])
@pytest.mark.parametrize("metric", ["accuracy", "auc", "log_loss"])
def test_nothing_is_tried_that_the_metric_cannot_score(metric: str, program: str | None, bare: Any) -> None:
    assert not bare.register("cancer", metric=metric, program=program, candidates=None).refused
    machines = {"linear_svm", "rbf_svm"}
    assert machines & set(names(bare)) == (machines if metric == "accuracy" else set())
    assert {"random_forest", "logistic_regression"} < set(names(bare))


@pytest.mark.parametrize("what", MISFITS)
def test_a_candidate_that_can_give_no_model_is_refused(what: str, bare: Any) -> None:
    kind, why = MISFITS[what]
    words = f"'mine' .*: {why}"
    tree, misfit = {"name": "tree", "kind": "decision_tree"}, {"name": "mine", "kind": kind}
    answer = bare.register("cancer", metric="auc", candidates=[tree, misfit])
    assert answer.refused
    assert re.search(words, answer.message)
    assert not bare.register("again", metric="auc", candidates=[tree]).refused
    with pytest.raises(InvalidInputError, match=words):
        add_candidates(bare.worker, study="again", candidates=[{"name": "forest", "kind": "random_forest"}, misfit])
    assert names(bare) == ["tree", "mine", "tree"]  # of the study that joins: all or none


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # few rows; its form is what counts
@pytest.mark.parametrize(
    "kind", [kind for kind, t in TRAINERS.items() if t.library == "sklearn" and "classification" in t.tasks]
)
def test_a_kind_says_truly_whether_its_models_give_probabilities(kind: str) -> None:
    draws = np.random.default_rng(2)
    labels = np.arange(80, dtype=np.int64) % 2
    inputs = (draws.normal(size=(80, 3)) + labels[:, None]).astype(np.float32)
    parts = OpenParts(inputs[:60], labels[:60], inputs[60:], labels[60:], classes=2, layout=table_layout(3))
    assert parts.task == Task.CLASSIFICATION
    model = TRAINERS[kind].fit(parts, {}, seed=0, report=lambda *_, **__: None)
    chances = model.probabilities(inputs[60:], classes=2)
    assert (chances is not None) == TRAINERS[kind].gives_chances


@pytest.mark.parametrize("hit", ["20", "within20", "accuracy"])
def test_a_hit_of_numbers_is_a_tolerance(hit: str) -> None:
    with pytest.raises(InvalidInputError, match=f"hit must .*within:T .*'{hit}'"):
        checked_goal(metric="r2", hit=hit)
