"""The work of the training child, done in this process: its files, its channel, its last words."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, roc_auc_score

from easeml_core.data.layout import table_layout
from easeml_core.data.parts import OpenParts
from easeml_core.errors import ArtifactError, InvalidInputError, NotFoundError, TrainingError
from easeml_core.metrics.metric import metric_of
from easeml_core.models.formats import ConstantPredictor, load_predictor
from easeml_core.sandbox import child_protocol
from easeml_core.sandbox.child_protocol import report_to, silent
from easeml_core.training import child
from easeml_core.training.job import TrainingJob
from easeml_core.training.trainers import trainer_of


def test_a_job_leaves_three_files_and_tells_how_far_it_is(make_job, digits: OpenParts) -> None:
    job = make_job("decision_tree")
    job.output_dir.mkdir()
    reported: list[tuple[Any, ...]] = []
    child.run(job, lambda *news, **_: reported.append(news))
    assert sorted(p.name for p in job.output_dir.iterdir()) == ["model", "predictions.npy", "result.json"]
    predictions = np.load(job.output_dir / "predictions.npy", allow_pickle=False)
    fields = json.loads((job.output_dir / "result.json").read_text())
    quality = float((predictions == digits.validation_labels).mean())
    assert fields.pop("processor_seconds") > 0
    assert fields == {"quality": quality, "score": quality, "artifact": "model", "format": "skops"}
    assert [news[0] for news in reported] == [0.05, 0.1, 0.8, 0.9, 1.0]


@pytest.mark.parametrize(
    ("kind", "parameters", "error"),
    [("forest", {}, InvalidInputError), ("decision_tree", {"depth": 1}, InvalidInputError)],
)
def test_what_is_not_allowed_is_said_before_the_data_is_read(kind, parameters, error, make_job, tmp_path: Path) -> None:
    with pytest.raises(error):
        child.run(make_job(kind, parameters, data_path=tmp_path / "absent.npz"), silent)
    with pytest.raises(ArtifactError, match=r"absent\.npz"):
        child.run(make_job(data_path=tmp_path / "absent.npz"), silent)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_one_score_that_is_not_finite_is_enough(broken: float, digits: OpenParts) -> None:
    class Broken(ConstantPredictor):
        def scores(self, inputs):
            scores = np.ones((len(inputs), 10))
            scores[7, 3] = broken
            return scores

    with pytest.raises(TrainingError, match=r"not finite \(NaN\) on 1 of 200 validation rows"):
        child.validate("broken", Broken(1), digits)


def test_accuracy_is_the_share_that_is_right_bit_by_bit() -> None:
    for rows in (1, 3, 7, 100, 999):
        for right in range(0, rows + 1, max(1, rows // 37)):
            labels = np.zeros(rows, dtype=np.int64)
            labels[right:] = 1
            inputs = np.zeros((rows, 2), dtype=np.float32)
            parts = OpenParts(inputs, labels, inputs, labels, 2, table_layout(2))
            score, quality, predictions = child.score_on_validation("constant", ConstantPredictor(0), parts)
            assert score == quality == float((predictions == labels).mean())


def shares(chances: Any) -> Any:
    """Some libraries compute in float32; scikit-learn wants sums of exactly 1."""
    return chances / chances.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("kind", "metric", "expected"),
    [
        ("decision_tree", "balanced_accuracy", lambda y, a, _: balanced_accuracy_score(y, a)),
        ("decision_tree", "f1", lambda y, a, _: f1_score(y, a, average="macro")),
        ("gaussian_naive_bayes", "log_loss", lambda y, _, p: log_loss(y, shares(p))),
        ("lightgbm", "log_loss", lambda y, _, p: log_loss(y, shares(p))),
        ("xgboost", "auc", lambda y, _, p: roc_auc_score(y, shares(p), multi_class="ovr")),
    ],
)
def test_the_metric_of_the_job_decides(kind: str, metric: str, expected, make_job, digits: OpenParts) -> None:
    job = make_job(kind, {"n_estimators": 5} if kind in ("lightgbm", "xgboost") else {}, metric=metric)
    job.output_dir.mkdir()
    child.run(job, silent)
    fields = json.loads((job.output_dir / "result.json").read_text())
    loaded = load_predictor(job.output_dir / "model", fields["format"])
    answers, chances = (
        loaded.predict(digits.validation_inputs),
        loaded.probabilities(digits.validation_inputs, classes=10),
    )
    assert fields["score"] == pytest.approx(expected(digits.validation_labels, answers, chances), rel=1e-6)
    assert fields["quality"] == metric_of(metric).quality(fields["score"])
    assert np.array_equal(np.load(job.output_dir / "predictions.npy"), answers)


def test_numbers_are_scored_by_r2_or_in_the_unit_of_the_metric(
    make_job, diabetes: OpenParts, diabetes_file: Path
) -> None:
    found = {}
    for metric in (None, "rmse", "within:50"):
        job = make_job("ridge_regression", metric=metric, data_path=diabetes_file)
        job.output_dir.mkdir(exist_ok=True)
        child.run(job, silent)
        found[metric] = json.loads((job.output_dir / "result.json").read_text())
    predictions = np.load(job.output_dir / "predictions.npy")
    assert predictions.dtype == np.float64
    errors = predictions - diabetes.validation_labels
    assert found[None]["score"] == pytest.approx(1 - np.mean(errors**2) / np.var(diabetes.validation_labels))
    assert found["rmse"]["score"] == pytest.approx(np.mean(errors**2) ** 0.5)
    assert found["within:50"]["score"] == found["within:50"]["quality"] == np.mean(abs(errors) <= 50)
    assert found["rmse"]["quality"] == pytest.approx(found[None]["quality"])  # one map, said in two units


@pytest.mark.parametrize(
    ("kind", "metric", "error"),
    [
        ("decision_tree", "r2", "the metric 'r2' is about numbers, the targets of these data are classes"),
        ("linear_svm", "log_loss", "log_loss needs the probabilities of the classes, and this model gives none"),
    ],
)
def test_a_metric_that_does_not_suit_is_said(kind: str, metric: str, error: str, make_job) -> None:
    job = make_job(kind, metric=metric)
    job.output_dir.mkdir()
    with pytest.raises(InvalidInputError, match=error):
        child.run(job, silent)


def test_numbers_have_no_accuracy(make_job, diabetes_file: Path) -> None:
    job = make_job("decision_tree", metric="accuracy", data_path=diabetes_file)
    job.output_dir.mkdir()
    with pytest.raises(InvalidInputError, match="'accuracy' is about labels, the targets of these data are numbers"):
        child.run(job, silent)


def test_a_metric_that_is_none_is_said_before_the_data_is_read(make_job, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="metric"):
        make_job(metric="acuracy")
    with pytest.raises(NotFoundError, match="nowhere"):
        child.run(make_job(metric="nowhere:metric", data_path=tmp_path / "absent.npz"), silent)


def test_a_class_without_a_training_row_has_no_chance(digits: OpenParts) -> None:
    kept = digits.train_labels != 4
    parts = replace(digits, train_inputs=digits.train_inputs[kept], train_labels=digits.train_labels[kept])
    model = trainer_of("gaussian_naive_bayes").fit(parts, {}, seed=0, report=silent)
    chances = model.probabilities(digits.validation_inputs, classes=10)
    assert (chances[:, 4] == 0).all()
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-4)
    assert np.array_equal(chances.argmax(axis=1), model.predict(digits.validation_inputs))


def test_all_that_a_job_says_survives_its_way_to_the_child(tmp_path: Path) -> None:
    said = {"seed": 9, "memory_limit_mb": 128, "threads": 2, "metric": "log_loss", "device": "cuda", "patience": 3}
    said |= {"resume": tmp_path / "saved", "checkpoint_seconds": 1.5, "halved": True, "mixed_precision": "on"}
    said |= {"devices": 2, "memory_parts": 4, "distributed_backend": "gloo", "files": {"program": tmp_path / "program"}}
    job = TrainingJob("rbf_svm", {"C": 2.0}, tmp_path / "open.npz", tmp_path / "job", **said)
    usual = TrainingJob("", {}, Path(), Path())
    as_usual = {one.name for one in fields(job) if getattr(job, one.name) == getattr(usual, one.name)}
    assert as_usual == {"time_limit_seconds", "gpus"}  # the supervisor's alone
    assert TrainingJob.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_news_are_lines_of_json() -> None:
    out, into = os.pipe()
    report_to(into)(1 / 3, "note", 0.98765432)
    os.close(into)
    with os.fdopen(out) as channel:
        assert json.loads(channel.read()) == {"progress": 0.3333, "note": "note", "quality": 0.987654}


def test_last_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        child_protocol.fail('a "reason"\nof two lines')
    assert caught.value.code == child_protocol.REASON_STATUS
    assert child_protocol.reason_in(capsys.readouterr().err) == 'a "reason"\nof two lines'
