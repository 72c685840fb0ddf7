"""The meter on 30 published models' real predictions: CIFAR-10's test set and its re-collection CIFAR-10.1."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from easeml_core.meter.meter import Answered, read_submission
from easeml_core.meter.ranges import signal_of
from easeml_core.settings.config import MeterConfig

DATA = Path(__file__).parents[3].parent / "shared" / "data" / "meter" / "cifar10.1"
CONFIG = MeterConfig(ranges=(0.03, 0.3), tolerance=0.1, reliability=0.9, steps=30, tail="hoeffding")

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the published predictions are not beside the checkout")


def digits(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)


@pytest.fixture(scope="module")
def mistakes() -> dict[str, np.ndarray]:
    """Per split, (30 models, examples): whether the model is wrong."""
    with (DATA / "predictions.csv").open(newline="") as file:
        rows = [(r["model"], r["split"], digits(r["labels_or_predictions"])) for r in csv.DictReader(file)]
    labels = {split: values for model, split, values in rows if model == "TRUE_LABELS"}
    return {
        split: np.array([v != truth for model, s, v in rows if s == split and model != "TRUE_LABELS"])
        for split, truth in labels.items()
    }


def test_random_halves_of_one_test_set_stay_in_range_one(mistakes):
    """Largest of 30 gaps: .0117 in the mean, .0184 at 95 %; .03 is over six standard deviations (of about .003) off."""
    wrong = mistakes["original"]
    rng = np.random.default_rng(2026)
    largest = []
    for _ in range(200):
        order = rng.permutation(wrong.shape[1])
        gaps = wrong[:, order[:5_000]].mean(axis=1) - wrong[:, order[5_000:]].mean(axis=1)
        largest.append(np.abs(gaps).max())
        assert {signal_of(float(gap), CONFIG.ranges) for gap in gaps} == {1}
    assert np.mean(largest) == pytest.approx(0.0117, abs=0.002)
    assert np.quantile(largest, 0.95) == pytest.approx(0.0184, abs=0.004)


@pytest.mark.parametrize("tail", ["hoeffding", "clopper-pearson"])
def test_a_meter_on_random_halves_says_range_one_for_every_model(mistakes, tail):
    """The meter itself, through all 30 submissions. False alarm: as above, six standard deviations."""
    config = MeterConfig(**{**CONFIG.to_json(), "tail": tail})
    wrong, rng = mistakes["original"], np.random.default_rng(101)
    for _ in range(5):
        order, earlier = rng.permutation(wrong.shape[1]), []
        for model in wrong:
            reading = read_submission(
                errors=int(model[order[5_000:]].sum()),
                examples=5_000,
                validation_loss=float(model[order[:5_000]].mean()),
                config=config,
                earlier=earlier,
            )
            earlier.append(Answered(reading.signal, reading.log_cost))
        assert [entry.signal for entry in earlier] == [1] * 30


@pytest.mark.parametrize("tail", ["hoeffding", "clopper-pearson"])
def test_a_recollected_test_set_leaves_range_one_for_every_model(mistakes, tail):
    config = MeterConfig(**{**CONFIG.to_json(), "tail": tail})
    original, again = mistakes["original"], mistakes["v4"]
    log_weight, gaps = 0.0, []
    for seen, fresh in zip(original, again, strict=True):
        reading = read_submission(
            errors=int(fresh.sum()),
            examples=fresh.size,
            validation_loss=float(seen.mean()),
            config=config,
            log_weight=log_weight,
        )
        log_weight += reading.log_cost
        gaps.append(reading.gap)
        assert reading.signal == 2
    assert len(gaps) == 30
    assert np.mean(gaps) == pytest.approx(0.081, abs=0.0006)
    assert min(gaps) == pytest.approx(0.041, abs=0.0006)
    assert max(gaps) == pytest.approx(0.154, abs=0.0006)
