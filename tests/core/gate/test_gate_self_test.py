"""The A/A test: an honest gate fits its level, one that does not is noticed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.outcomes import Outcomes
from easeml_core.gate.self_test import identical_models, identical_to, run_self_test

LAW = identical_models(accuracy=0.8, disagreement=0.2)


def run(source="n - o > 0 +/- 0.05", law=LAW, *, alpha=0.1, runs=200, mode="fp-free", **more):
    settings = {"examples": 300, "log_level": math.log(alpha), "mode": mode, "seed": 1} | more
    return run_self_test(parse_condition(source), law, runs=runs, **settings)


def test_identical_models_pass_as_often_as_the_level_allows():
    found = run()
    # Exact chance of a pass: .065, between .058 and .1 for 50 to 70 disagreements; the sample is seeded.
    assert 0 < found.passes == found.errors
    assert found.interval[0] < found.rate < found.interval[1]
    assert found.compatible
    assert found.labels == pytest.approx(60, abs=3)


def test_it_says_how_far_it_is():
    reported = []
    run(runs=3, on_done=lambda done, of: reported.append((done, of)))
    assert reported == [(1, 3), (2, 3), (3, 3)]


def test_a_gate_that_errs_too_often_is_noticed(monkeypatch):
    """Judged at level .3, reported as .001."""
    from easeml_core.gate import self_test

    judge = self_test.judge_predictions
    monkeypatch.setattr(self_test, "judge_predictions", lambda *a, **k: judge(*a, **k | {"log_level": math.log(0.3)}))
    found = run(alpha=0.001)
    assert found.rate > 0.1
    assert not found.compatible


def test_fn_free_errs_by_failing():
    found = run("n - o > -0.001 +/- 0.05", mode="fn-free")
    assert found.errors == found.runs - found.passes > 0
    assert found.compatible


def test_early_uses_fewer_labels():
    found = run(sampling="early", examples=3000, runs=20)
    assert found.labels < 590
    assert found.compatible


def test_the_same_seed_gives_the_same_report():
    assert run(runs=30) == run(runs=30)


def test_real_models_are_made_identical():
    law = identical_to(Outcomes(100, wins=20, losses=4, new_correct=80, old_correct=64, disagreements=30))
    assert law.tolist() == pytest.approx([0.6, 0.12, 0.12, 0.1, 0.06])
    assert np.isclose(law.sum(), 1)


@pytest.mark.parametrize(
    ("source", "mode", "message"),
    [
        ("n > 0.7 +/- 0.1", "fp-free", "identical models satisfy n > 0.7 .* take one that they do not satisfy"),
        ("n - o > 0 +/- 0.1", "fn-free", "identical models do not satisfy .* take one that they satisfy"),
    ],
)
def test_a_condition_that_cannot_be_answered_wrongly_is_refused(source, mode, message):
    with pytest.raises(InvalidInputError, match=message):
        run(source, mode=mode)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: identical_models(accuracy=1.2, disagreement=0), r"accuracy must be in \[0, 1\], got 1.2"),
        (lambda: identical_models(accuracy=0.9, disagreement=0.3), r"disagreement must be in \[0, 0.2\] at accuracy"),
        (lambda: run(runs=0), "runs must be 1 to 1000000, got 0"),
        (lambda: run(examples=0), "examples must be 1 to 10000000, got 0"),
    ],
)
def test_settings_outside_their_range_are_refused(ask, message):
    with pytest.raises(ConfigError, match=message):
        ask()
