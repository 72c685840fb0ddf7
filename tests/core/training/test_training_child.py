"""The work of the training child, done in this process: its files, its channel, its last words."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.errors import ArtifactError, InvalidInputError, TrainingError
from easeml_core.training import child, guard
from easeml_core.training.formats import ConstantPredictor
from easeml_core.training.job import TrainingJob
from easeml_core.training.progress import report_to, silent

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.training.parts import OpenParts


def test_a_job_leaves_three_files_and_tells_how_far_it_is(make_job, digits: OpenParts) -> None:
    job = make_job("decision_tree")
    job.output_dir.mkdir()
    told: list[tuple[Any, ...]] = []
    child.run(job, lambda *news: told.append(news))
    assert sorted(p.name for p in job.output_dir.iterdir()) == ["model", "predictions.npy", "result.json"]
    predictions = np.load(job.output_dir / "predictions.npy", allow_pickle=False)
    fields = json.loads((job.output_dir / "result.json").read_text())
    quality = float((predictions == digits.validation_labels).mean())
    assert fields == {"quality": quality, "artifact": "model", "format": "skops"}
    assert [news[0] for news in told] == [0.05, 0.1, 0.8, 0.9, 1.0]


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


def test_a_job_survives_its_way_to_the_child(make_job) -> None:
    job = make_job("rbf_svm", {"C": 2.0}, seed=9)
    assert TrainingJob.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_news_are_lines_of_json() -> None:
    out, into = os.pipe()
    report_to(into)(1 / 3, "note", 0.98765432)
    os.close(into)
    with os.fdopen(out) as channel:
        assert json.loads(channel.read()) == {"progress": 0.3333, "note": "note", "quality": 0.987654}


def test_last_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        guard.fail('a "reason"\nof two lines')
    assert caught.value.code == guard.REASON_STATUS
    assert guard.reason_in(capsys.readouterr().err) == 'a "reason"\nof two lines'
