"""Inference: class names by the model in production, and every input that it cannot take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from easeml_core.errors import InvalidInputError, NotFoundError, ShapeError, StateError
from easeml_core.services.inference import infer
from easeml_core.services.registration import register_study
from easeml_core.training.formats import load_predictor


@pytest.fixture
def producing(lab: Any) -> Any:
    """The study ``full`` has a model in production."""
    assert lab.promote(lab.gate("good")["request_id"])["promoted"]
    return lab


def test_the_model_in_production_answers_with_class_names(producing: Any) -> None:
    rows = producing.open_parts().validation_inputs[:20]
    missing = [[None] * 30, [float("nan")] * 30]
    answer = infer(producing.worker, producing.artifacts, study="full", inputs=[*rows.tolist(), *missing])
    artifact = producing.one("SELECT artifact FROM work.models WHERE id = 2")
    labels = load_predictor(producing.artifacts.path(artifact), "skops").predict(
        np.vstack([rows, np.full((2, 30), np.nan)])
    )
    assert answer == {"study": "full", "model_id": 2, "labels": [("malignant", "benign")[i] for i in labels]}
    assert len(set(answer["labels"])) == 2


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        ([[0.0] * 29], ShapeError, r"inputs must have shape \(n >= 1, 30\), got \(1, 29\)"),
        ([0.0] * 30, ShapeError, r"inputs must have shape \(n >= 1, 30\), got \(30,\)"),
        ([], ShapeError, r"inputs must have shape \(n >= 1, 30\), got \(0,\)"),
        ([[0.0] * 30, [0.0]], InvalidInputError, "inputs must be rows of numbers, all of the same length"),
        ([["a"] * 30], InvalidInputError, "inputs must be rows of numbers, all of the same length"),
        ([[float("-inf")] * 30], InvalidInputError, r"at most 3\.4e38 in size .* None or NaN is missing"),
        ([[1e300] * 30], InvalidInputError, r"at most 3\.4e38 in size .* None or NaN is missing"),
    ],
)
def test_what_is_no_table_of_the_right_width_is_refused(inputs: Any, error: Any, words: str, producing: Any) -> None:
    with pytest.raises(error, match=words):
        infer(producing.worker, producing.artifacts, study="full", inputs=inputs)


def test_without_a_model_in_production_there_is_no_answer(lab: Any, bare: Any) -> None:
    with pytest.raises(StateError, match="study 'first' has no model in production yet; promote one first"):
        infer(lab.worker, lab.artifacts, study="first", inputs=np.zeros((1, 30)).tolist())
    with pytest.raises(NotFoundError, match="there is no study 'fool'"):
        infer(lab.worker, lab.artifacts, study="fool", inputs=[[0.0]])
    register_study(bare.worker, tenant="lab", study="iris", source="sklearn:iris", request_key="k")
    with pytest.raises(NotFoundError, match="wait until the referee has split and sealed its data"):
        infer(bare.worker, bare.artifacts, study="iris", inputs=[[0.0] * 4])
