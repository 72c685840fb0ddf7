"""Whole jobs in real children: what a good one gives, and how every bad one ends."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from easeml_core.data.parts import OpenParts, load_open_parts
from easeml_core.errors import ConfigError, TrainingCancelled, TrainingError
from easeml_core.models.formats import load_predictor
from easeml_core.training.supervisor import read_result, run_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easeml_core.training.job import TrainingJob, TrainingResult

LONG = {"kind": "torch_mlp", "parameters": {"epochs": 1000}}


def train(
    job: TrainingJob, news: list | None = None, should_stop: Callable[[], bool] = lambda: False
) -> TrainingResult:
    return run_job(
        job, on_progress=(news if news is not None else []).append, should_stop=should_stop, poll_seconds=0.05
    )


def children() -> list[psutil.Process]:
    """Training children of this process that still run."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any("easeml_core.training" in word for word in process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost", "rbf_svm"])
def test_a_good_job_about_numbers(kind: str, make_job, diabetes: OpenParts, diabetes_file: Path) -> None:
    news: list = []
    result = train(make_job(kind, data_path=diabetes_file, metric="within:60"), news)
    assert result.validation_predictions.dtype == np.float64
    errors = result.validation_predictions - diabetes.validation_labels
    assert result.quality == np.mean(abs(errors) <= 60)
    assert result.quality > 0.6  # the mean of all gives 0.4
    loaded = load_predictor(result.artifact_path, result.format)
    assert np.array_equal(loaded.predict(diabetes.validation_inputs), result.validation_predictions)
    assert news[-1]["progress"] == 1.0


@pytest.mark.parametrize(
    ("kind", "parameters"), [("random_forest", {"n_estimators": 20}), ("torch_cnn", {"epochs": 3})]
)
def test_a_good_job(kind, parameters, make_job, digits: OpenParts) -> None:
    news: list = []
    started = time.monotonic()
    job = make_job(kind, parameters, seed=5)
    result = train(job, news)
    assert 0 < result.cost_seconds <= time.monotonic() - started
    assert result.quality == float((result.validation_predictions == digits.validation_labels).mean())
    assert result.quality > 0.4  # of ten classes
    assert result.validation_predictions.dtype == np.int64
    assert result.artifact_path.parent == job.output_dir
    loaded = load_predictor(result.artifact_path, result.format)
    assert np.array_equal(loaded.predict(digits.validation_inputs), result.validation_predictions)
    assert [n["progress"] for n in news] == sorted(n["progress"] for n in news)
    assert 50 < news[-1].pop("peak_mb") < 4096
    assert news[-1] == {"progress": 1.0, "note": "saved", "quality": round(result.quality, 6)}
    assert not children()


def test_news_reach_us_while_it_runs_and_a_stop_ends_it(make_job) -> None:
    news: list = []
    with pytest.raises(TrainingCancelled, match="cancelled"):
        train(make_job(**LONG), news, should_stop=lambda: any(n["note"].startswith("epoch 2 ") for n in news))
    assert any(n["note"] == "epoch 2 of 1000" and 0 <= n["quality"] <= 1 for n in news)
    assert not children()


def test_should_stop_is_asked_again_and_again_even_without_news(make_job) -> None:
    asked: list = []

    def fifth_time() -> bool:
        asked.append(time.monotonic())
        return len(asked) >= 5

    with pytest.raises(TrainingCancelled):
        train(make_job(**LONG), should_stop=fifth_time)
    assert asked[-1] - asked[0] < 20
    assert not children()


def test_an_error_of_the_caller_ends_the_job(make_job) -> None:
    def broken(_: object) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        run_job(make_job(**LONG), on_progress=broken, should_stop=lambda: False)
    assert not children()


@pytest.mark.cold  # what a fork shares with its server does not count as its memory
def test_out_of_memory(make_job) -> None:
    with pytest.raises(TrainingError, match=r"out of memory: .* 64 MB allowed"):
        train(make_job("random_forest", memory_limit_mb=64))


@pytest.mark.cold  # the start of the child takes longer than the limit
def test_out_of_time(make_job) -> None:
    with pytest.raises(TrainingError, match=r"out of time: not finished after 0\.2 s"):
        train(make_job("random_forest", time_limit_seconds=0.2))
    assert not children()


def test_divergence(make_job) -> None:
    with pytest.raises(TrainingError) as caught:
        train(make_job("torch_mlp", {"learning_rate": 1e30}))
    assert str(caught.value).startswith("torch_mlp diverged: the loss of epoch 1 is nan")
    assert len(str(caught.value).splitlines()) == 1


def test_killed_from_outside(make_job) -> None:
    def kill_once_there_is_news(_: object) -> None:
        for process in children():
            process.kill()

    with pytest.raises(TrainingError, match="ended by SIGKILL"):
        run_job(make_job(**LONG), on_progress=kill_once_there_is_news, should_stop=lambda: False)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("forest", {}, "there is no trainer kind 'forest'; known kinds: nearest_centroid"),
        ("decision_tree", {"depth": 3}, "decision_tree has no parameter 'depth'; allowed: max_depth"),
        ("decision_tree", {"max_depth": 0}, "decision_tree.max_depth must be a whole number from 1 to 1,000, got 0"),
    ],
)
def test_a_job_that_is_not_allowed_says_so(kind, parameters, message, make_job) -> None:
    with pytest.raises(TrainingError) as caught:
        train(make_job(kind, parameters))
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_damaged_data(make_job, digits_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.npz"
    path.write_bytes(digits_file.read_bytes()[:5000])
    with pytest.raises(TrainingError, match=r"the data file cut\.npz cannot be read"):
        train(make_job(data_path=path))


def test_a_crash_inside_the_library_is_reported_with_its_last_words(
    make_job, digits_file: Path, tmp_path: Path
) -> None:
    arrays = vars_of(load_open_parts(digits_file))
    arrays["train_inputs"] = np.full_like(arrays["train_inputs"], np.inf)
    np.savez(tmp_path / "infinite.npz", **arrays)
    with pytest.raises(TrainingError, match=r"crashed with exit status 1: ValueError: Input X contains infinity"):
        train(make_job(data_path=tmp_path / "infinite.npz"))


def test_scores_that_are_not_finite(make_job, digits_file: Path, tmp_path: Path) -> None:
    # Sums of products of such inputs do not fit into single precision: the scores become infinite.
    arrays = vars_of(load_open_parts(digits_file))
    arrays["validation_inputs"] = arrays["validation_inputs"].copy()
    arrays["validation_inputs"][:3] = 3e38
    np.savez(tmp_path / "far.npz", **arrays)
    with pytest.raises(TrainingError, match=r"gives scores that are not finite \(NaN\) on 3 of 200 validation rows"):
        train(make_job("torch_mlp", {"epochs": 1}, data_path=tmp_path / "far.npz"))


def vars_of(parts: OpenParts) -> dict[str, np.ndarray]:
    return {
        **{name: getattr(parts, name) for name in parts.__slots__ if name.endswith(("_inputs", "_labels"))},
        "image_shape": np.array(parts.image_shape or ()),
        "classes": np.array(parts.classes),
    }  # fmt: skip


@pytest.mark.cold  # the start of the child takes longer than the limit
def test_a_result_of_an_earlier_attempt_is_not_taken_for_this_one(make_job) -> None:
    job = make_job("nearest_centroid", time_limit_seconds=0.05)
    job.output_dir.mkdir(exist_ok=True)
    (job.output_dir / "result.json").write_text("{}")
    with pytest.raises(TrainingError, match="out of time"):
        train(job)
    assert not (job.output_dir / "result.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": float("nan")}, "quality must be a number from 0 to 1, got nan"),
        ({"quality": float("inf")}, "quality must be a number from 0 to 1"),
        ({"quality": 1.01}, "quality must be a number from 0 to 1, got 1.01"),
        ({"quality": -0.1}, "quality must be a number from 0 to 1"),
        ({"quality": True}, "quality must be a number from 0 to 1"),
        ({"quality": None}, "quality must be a number from 0 to 1"),
        (
            {"format": "pickle"},
            "the format must be one of skops, lightgbm, xgboost, safetensors, constant, command, got 'pickle'",
        ),
        ({"artifact": "../../etc/passwd"}, "the model's file is not in the job's folder"),
        ({"artifact": "/etc/passwd"}, "the model's file is not in the job's folder"),
        ({"artifact": "link"}, "the model's file is not in the job's folder"),
        ({"artifact": "absent"}, "the model's file is not in the job's folder"),
        (None, "quality must be a number"),
    ],
)
def test_a_result_that_does_not_say_what_it_must_is_refused(change, message, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    np.save(tmp_path / "predictions.npy", np.zeros(3, np.int64))
    good = {"quality": 0.5, "artifact": "model", "format": "skops"}
    (tmp_path / "result.json").write_text(json.dumps([] if change is None else {**good, **change}))
    with pytest.raises(TrainingError, match=f"left no usable result: {message}"):
        read_result(tmp_path, cost_seconds=1.0)
    (tmp_path / "result.json").write_text(json.dumps(good))
    assert read_result(tmp_path, cost_seconds=1.0).quality == 0.5


@pytest.mark.parametrize(
    "array",
    [np.zeros(3, np.float32), np.array([1.0, np.nan]), np.zeros((3, 1), np.int64), np.array([object()]), None],
)
def test_predictions_that_are_no_labels_and_no_numbers_are_refused(array, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("x")
    (tmp_path / "result.json").write_text('{"quality": 0.5, "artifact": "model", "format": "skops"}')
    if array is not None:
        np.save(tmp_path / "predictions.npy", array, allow_pickle=True)
    with pytest.raises(TrainingError, match=r"left no usable result: predictions\.npy"):
        read_result(tmp_path, cost_seconds=1.0)


def test_predictions_may_be_numbers(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("x")
    (tmp_path / "result.json").write_text('{"quality": 0.5, "artifact": "model", "format": "skops"}')
    np.save(tmp_path / "predictions.npy", np.array([0.5, -1e300]))
    assert read_result(tmp_path, cost_seconds=1.0).validation_predictions.tolist() == [0.5, -1e300]


def test_no_result_at_all(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"result\.json cannot be read"):
        read_result(tmp_path, cost_seconds=1.0)


@pytest.mark.parametrize(
    "change", [{"time_limit_seconds": 0}, {"time_limit_seconds": float("inf")}, {"memory_limit_mb": 63}, {"seed": -1},
               {"threads": 0}],
)  # fmt: skip
def test_limits_out_of_range_are_refused(change, make_job) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        make_job(**change)
