"""A network that is asked to end does so after its present epoch, with a model like any other; settings of rungs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import ConfigError
from easeml_core.settings.config import TrainingConfig
from easeml_core.training.job import END, Run, checkpoint_name
from easeml_core.training.supervisor import run_job
from easeml_core.training.trainers import trainer_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from easeml_core.data.parts import OpenParts

    Fit = Callable[..., tuple[list[dict[str, Any]], np.ndarray]]


@pytest.fixture
def fit(digits: OpenParts, tmp_path: Path) -> Fit:
    """Train a small network of five epochs that is asked to end after one of them: its news, and its scores."""

    def make(*, ask_after: int | None = None, epochs: int = 5, **run: Any) -> tuple[list[dict[str, Any]], np.ndarray]:
        news: list[dict[str, Any]] = []

        def report(progress: float, note: str, quality: float | None = None, **more: Any) -> None:
            news.append({"progress": progress, "note": note, **more})
            if more.get("step") == ask_after:
                (tmp_path / END).touch()

        parameters = {"hidden_width": 16, "epochs": epochs}
        trained = Run(folder=tmp_path, device="cpu", **run)
        model = trainer_of("torch_mlp").fit(digits, parameters, seed=3, report=report, run=trained)
        return news, model.scores(digits.validation_inputs)

    return make


def steps(news: list[dict[str, Any]]) -> list[int]:
    return [reported["step"] for reported in news if "step" in reported]


def test_a_training_ends_after_the_epoch_in_which_it_was_asked(fit: Fit, tmp_path: Path) -> None:
    news, scores = fit(ask_after=2)
    assert steps(news) == [1, 2]
    assert news[-1]["note"] == "stopped after epoch 2 of 5, as it was asked to at a rung"
    (tmp_path / END).unlink()
    same = fit(epochs=2)[1]  # two epochs are two epochs
    assert (scores == same).all()


def test_at_least_one_epoch_is_trained(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / END).touch()
    assert steps(fit()[0]) == [1]


def test_what_goes_on_from_a_checkpoint_is_not_trained_further(fit: Fit, tmp_path: Path) -> None:
    whole, _ = fit(checkpoint_seconds=0.0)
    assert steps(whole) == [1, 2, 3, 4, 5]
    (tmp_path / END).touch()
    news, _ = fit(resume=tmp_path / checkpoint_name(4))
    assert steps(news) == []
    assert "stopped after epoch 4 of 5" in news[-1]["note"]


def test_early_stopping_says_its_own_reason(fit: Fit) -> None:
    news, _ = fit(ask_after=2, patience=1000)
    assert steps(news) == [1, 2]
    assert "asked to at a rung" in news[-1]["note"]


def test_a_real_job_that_is_reported_to_end_gives_a_result(make_job: Any, digits: OpenParts) -> None:
    job = make_job("torch_mlp", {"epochs": 1000, "hidden_width": 64, "batch_size": 8})
    job.output_dir.mkdir(exist_ok=True)
    (job.output_dir / END).touch()  # of an earlier attempt in the same folder
    news: list[Any] = []

    def reported() -> bool:
        return any(each.get("step", 0) >= 3 for each in news)

    result = run_job(job, on_progress=news.append, should_stop=lambda: False, should_end=reported, poll_seconds=0.05)
    last = max(each.get("step", 0) for each in news)
    assert 3 <= last < 1000
    assert result.quality == float((result.validation_predictions == digits.validation_labels).mean())
    assert any(f"stopped after epoch {last} of 1000" in each["note"] for each in news)


@pytest.mark.parametrize(
    "rungs",
    [[0.0, 0.5], [0.5, 0.5], [0.5, 0.3], [1.0], [-0.1], ["0.1"], [True], "0.1", 0.1, None, [float("nan")], [{}],
     [k / 100 for k in range(1, 22)]],
)  # fmt: skip
def test_rungs_that_are_none_are_refused(rungs: Any) -> None:
    with pytest.raises(ConfigError, match="rungs must be at most 20 rising shares between 0 and 1, got"):
        TrainingConfig.from_json({"rungs": rungs})


@pytest.mark.parametrize("rungs", [[], [0.5], [1 / 9, 1 / 3]])
def test_rungs_survive_json(rungs: list[float]) -> None:
    config = TrainingConfig.from_json({"rungs": rungs})
    assert config.rungs == tuple(rungs)
    assert TrainingConfig.from_json(config.to_json()) == config
