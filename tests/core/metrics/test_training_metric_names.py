"""Names of metrics, metrics that the gate can take, and metrics of the user's own."""

from __future__ import annotations

import math
import subprocess
import sys
import types

import numpy as np
import pytest

from easeml_core.errors import ConfigError, InvalidInputError, NotFoundError, NumericalError
from easeml_core.metrics.custom import user_metric
from easeml_core.metrics.metric import METRICS, check_metric_name, metric_of, require_gate_metric

LABELS = [0, 0, 1, 1, 1, 2]
SAID = [0, 1, 1, 1, 0, 2]
CHANCES = [[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25], [0.1, 0.1, 0.8]]
NUMBERS = [1.0, 2.0, 4.0, 7.0]
GUESSES = [1.5, 2.0, 3.0, 9.0]


def test_a_tolerance_has_a_canonical_name() -> None:
    assert metric_of("within:.50").name == metric_of("within:5e-1").name == "within:0.5"


@pytest.mark.parametrize("name", ["within:", "within:0", "within:-1", "within:nan", "within:inf", "within:a"])
def test_a_tolerance_must_be_a_number_above_0(name) -> None:
    with pytest.raises(InvalidInputError, match="a number T > 0"):
        check_metric_name(name)


@pytest.mark.parametrize(
    "name", ["acuracy", "", "a.b", ":f", "m:", "m:f:g", "m;x:f", "os:system()", "a" * 300, 3, None]
)
def test_unknown_names_are_refused_with_those_that_there_are(name) -> None:
    with pytest.raises(NotFoundError, match=r"there is no metric.*accuracy.*module:function"):
        check_metric_name(name)


@pytest.mark.parametrize("name", ["accuracy", "within:0.25"])
def test_the_gate_takes_means_of_hits(name) -> None:
    metric = metric_of(require_gate_metric(name))
    targets, said = (LABELS, SAID) if metric.needs == "labels" else (NUMBERS, GUESSES)
    hits = metric.hits(targets, said)
    assert hits.dtype == np.bool_
    assert hits.mean() == metric.score(targets, said)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        *((name, "'accuracy'") for name in ("balanced_accuracy", "f1", "auc", "log_loss")),
        *((name, "'within:0.5'") for name in ("rmse", "mae", "r2")),
        ("shop.metrics:profit", "'within:T' for numbers"),
    ],
)
def test_the_gate_refuses_others_and_says_what_to_use(name, instead) -> None:
    with pytest.raises(InvalidInputError, match=f"cannot take the metric '{name}'.*bounded losses only.*{instead}"):
        require_gate_metric(name)
    if name in METRICS:
        with pytest.raises(InvalidInputError, match="the gate cannot take"):
            METRICS[name].hits([0, 1], [0, 1])


def test_every_metric_is_gated_or_says_why_not() -> None:
    from easeml_core.metrics.metric import _NOT_GATED

    assert {"accuracy", *_NOT_GATED} == set(METRICS)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch):
    module = types.ModuleType("shop_metrics")
    monkeypatch.setitem(sys.modules, "shop_metrics", module)
    return module


def profit(targets, said, chances):
    assert chances is None
    return 10.0 * np.sum(targets == said) - 25.0 * np.sum(targets != said)


@pytest.mark.parametrize(
    ("stated", "quality"),
    [
        ({"higher_is_better": True, "low": -150, "high": 60}, (-10 + 150) / 210),
        ({"higher_is_better": False, "low": -150, "high": 60}, 1 - (-10 + 150) / 210),
        ({"higher_is_better": True, "high": 60, "scale": 35}, 1 / 3),
        ({"higher_is_better": True, "low": -150, "scale": 70}, 2 / 3),
        ({"higher_is_better": False, "high": 60, "scale": 35}, 2 / 3),
        ({"higher_is_better": True, "scale": 10}, 1 / (1 + math.e)),
        ({"higher_is_better": False, "scale": 10}, math.e / (1 + math.e)),
    ],
)
def test_a_function_is_a_metric(shop, stated, quality) -> None:
    shop.profit = user_metric(needs="labels", **stated)(lambda *arrays: profit(*arrays))
    metric = metric_of("shop_metrics:profit")
    score = metric.score(LABELS, SAID)
    assert score == 10.0 * 4 - 25.0 * 2
    assert metric.quality(score) == pytest.approx(quality, rel=1e-9)
    assert metric.value(metric.quality(score)) == pytest.approx(score, rel=1e-9)
    assert "scale" not in metric.map.formula


@pytest.mark.parametrize(
    ("said", "error", "expected"),
    [
        (None, InvalidInputError, "must give a number, got NoneType"),
        ("x", InvalidInputError, "must give a number, got str"),
        (math.nan, NumericalError, "came out as nan"),
        (2.0, NumericalError, "must be finite and in"),
    ],
)
def test_a_function_that_gives_no_score_is_reported_of(shop, said, error, expected) -> None:
    shop.odd = user_metric(needs="numbers", higher_is_better=True, low=0, high=1)(lambda *_: said)
    with pytest.raises(error, match=expected):
        metric_of("shop_metrics:odd").score([0.0], [1.0])


def test_a_function_must_be_marked_and_be_there(shop) -> None:
    shop.plain = lambda *_: 0.5
    with pytest.raises(InvalidInputError, match="not marked as a metric"):
        metric_of("shop_metrics:plain")
    with pytest.raises(InvalidInputError, match="not marked as a metric"):
        metric_of("os:system")
    for name in ("shop_metrics:gone", "no_such_module:f"):
        with pytest.raises(NotFoundError, match="importing it said"):
            metric_of(name)


@pytest.mark.parametrize(
    "wrong",
    [{"needs": "images"}, {"low": 1.0, "high": 1.0}, {"low": math.nan}, {"scale": 0.0}, {"scale": math.inf}],
)
def test_a_statement_is_checked(wrong) -> None:
    with pytest.raises(ConfigError):
        user_metric(**{"needs": "labels", "higher_is_better": True, **wrong})


def test_importing_loads_no_library_and_a_name_is_checked_without_importing() -> None:
    code = (
        "import sys; from easeml_core.metrics.metric import *\n"
        "check_metric_name('no_such_module:f'); metric_of('rmse'); require_gate_metric('within:0.1')\n"
        "print([name for name in ('numpy', 'sklearn', 'scipy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
