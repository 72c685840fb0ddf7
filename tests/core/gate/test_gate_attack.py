"""Why the level is divided by 2^H: a developer who asks 31 times and hands in the majority vote of the answers.

Labels are fair coins, so no model is truly better than 0.5. Each of 31 random models gets one bit, whether it was right
more often than not on the sealed set; the 32nd model is the vote of those that were. It looks better than 0.5 by about
(1/pi) sqrt(31/N), though it has learnt nothing but the set.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import decide_counts
from easeml_core.gate.outcomes import count_outcomes
from easeml_core.stats.adaptivity import allocate

EXAMPLES, STEPS, RUNS, DELTA = 1000, 32, 200, 0.05


@pytest.fixture(scope="module")
def attacks():
    """Labels and the 32nd model of each run, seeded."""
    rng = np.random.default_rng(31)
    runs = []
    for _ in range(RUNS):
        labels = rng.integers(0, 2, EXAMPLES)
        models = rng.integers(0, 2, (STEPS - 1, EXAMPLES))
        answers = (models == labels).mean(axis=1) > 0.5
        # A model that was refused tells as much: its opposite would have passed.
        votes = np.where(answers[:, None], models, 1 - models)
        runs.append((labels, (votes.mean(axis=0) > 0.5).astype(int)))
    return runs


def fooled(attacks, adaptivity):
    """Runs in which the vote passes ``n > 0.5`` at the level that the adaptivity gives."""
    condition = parse_condition("n > 0.5 +/- 0.05")
    log_level = math.log(DELTA) - allocate(adaptivity, STEPS, mode="fp-free", estimator="paper").log_multiplicity()
    passes = 0
    for labels, vote in attacks:
        counts = count_outcomes(labels, np.zeros_like(labels), vote)
        passes += decide_counts(condition, counts, log_level=log_level, mode="fp-free").passed
    return passes


def test_the_vote_looks_better_than_it_is(attacks):
    inflation = np.mean([(labels == vote).mean() - 0.5 for labels, vote in attacks])
    # Standard error of the mean 0.0158 / sqrt(200) = 0.0011: five of them, false alarm below one in a million.
    assert inflation == pytest.approx(math.sqrt((STEPS - 1) / EXAMPLES) / math.pi, abs=0.0056)


def test_one_level_per_step_is_fooled(attacks):
    # Seen: 161 of 200 runs. Fewer than half of 200 has a chance below 1e-12.
    assert fooled(attacks, "none") > RUNS // 2


def test_one_level_per_transcript_is_not(attacks):
    # The level's critical count is 7.0 standard deviations above one half, the vote's mean 3.5: chance 2e-4 a run at
    # most, so two or more in 200 runs have a chance below 1e-3, and six or more below 1e-11.
    assert fooled(attacks, "full") < 6
