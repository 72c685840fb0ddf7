"""The gate on 30 published models' real predictions: a verdict on half of a test set never contradicts all of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figures.gate import cifar

from easeml_core.entities import Verdict
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.outcomes import count_outcomes

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT.parent / "shared" / "data"
CONDITION = parse_condition("n - o > 0.02 +/- 0.02")
LOG_LEVEL = math.log(0.01) - math.log(32)
EVERY = 27
"""One pair in so many is judged whatever it looks like; of the others half of those that could pass."""

pytestmark = pytest.mark.skipif(
    not (DATA / "meter" / "cifar10.1").is_dir(), reason="the published predictions are not beside the checkout"
)


@pytest.fixture(scope="module")
def models() -> Any:
    return cifar.read_models(DATA)


@pytest.fixture(scope="module")
def half(models: Any) -> Any:
    return models.sample(np.random.default_rng(0), 5000)


def true_gain(models: Any) -> np.ndarray:
    """n - o over all 10,000 in ten-thousandths."""
    return cifar.tabulate(models).gains()


def test_counts_of_all_pairs_are_those_of_each(half):
    table = cifar.tabulate(half)
    assert len(half.names) == 30
    for new, old in list(half.pairs())[::41]:
        one = count_outcomes(half.labels, half.predictions[old], half.predictions[new])
        assert table.outcomes(new, old) == one
        assert table.gains()[new, old] == one.wins - one.losses


@pytest.mark.nightly
def test_no_pass_on_a_half_contradicts_the_whole(models, half):
    """The promise is .01 for 32 verdicts; here are 870 on one half, whose true gain is that of the whole set."""
    truth, table = true_gain(models), cifar.tabulate(half)
    seen = table.gains()
    pairs = [p for k, p in enumerate(half.pairs()) if (seen[p] > 0.02 * 5000 and k % 2) or k % EVERY == 0]
    found = cifar.fixed(CONDITION, table, pairs, log_level=LOG_LEVEL)
    passed = [pair for pair, decision in found.items() if decision.passed]
    assert len(passed) > 50
    assert all(seen[pair] > 100 for pair in passed)
    assert all(truth[pair] > 200 for pair in passed)
    # A fail is as sure as a pass.
    assert all(truth[pair] < 200 for pair, decision in found.items() if decision.verdict is Verdict.FAIL)
    # Twice the tolerance above the threshold, nearly all pass: those that miss have many disagreements.
    clear = [pair for pair in found if truth[pair] > 600]
    assert sum(found[pair].passed for pair in clear) > 0.9 * len(clear)
    assert sum(decision.labels for decision in found.values()) < 0.2 * 5000 * len(found)


def test_early_verdicts_agree_with_the_whole_and_need_fewer_labels(models, half):
    truth, table = true_gain(models), cifar.tabulate(half)
    pairs = list(half.pairs())[::14]
    found = cifar.early(CONDITION, half, pairs, log_level=LOG_LEVEL, power=0.9)
    assert all(truth[pair] > 200 for pair, decision in found.items() if decision.passed)
    assert all(truth[pair] < 200 for pair, decision in found.items() if decision.verdict is Verdict.FAIL)
    assert any(decision.passed for decision in found.values())
    used = sum(decision.labels for decision in found.values())
    assert used < 0.6 * sum(int(table.disagreements[pair]) for pair in pairs)
    assert all(decision.labels <= table.disagreements[pair] for pair, decision in found.items())
