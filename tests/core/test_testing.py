"""The conformance checks: the example package passes them, and each mistake is named."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from example_distribution import install_example

import easeml_core as easeml
from easeml_core import testing
from easeml_core.errors import EasemlError
from easeml_core.metrics.custom import user_metric

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_example(tmp_path, monkeypatch)


@pytest.mark.usefixtures("installed")
def test_the_example_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = importlib.import_module("test_extensions")
    found = [name for name in dir(tests) if name.startswith("test_")]
    assert len(found) == len(testing.__all__)
    for name in found:
        test = getattr(tests, name)
        test(monkeypatch) if inspect.signature(test).parameters else test()


@pytest.mark.usefixtures("installed")
def test_the_examples_policy_competes_and_its_source_is_a_table() -> None:
    from easeml_core.data.sources.load import load_source

    name = "easeml_example.extensions:cheapest"
    quality = np.random.default_rng(0).random((6, 4))
    found = easeml.simulate(quality, quality + 1, policies=[name, "roundrobin"], served=3, repeats=2)
    assert [*found.policies] == [name, "roundrobin"]
    assert load_source("plugin:readings", "failed").class_names == ("0", "1")
    with pytest.raises(EasemlError, match=r"there is no entry point of easeml.sources .reading.; known: .readings"):
        load_source("plugin:reading", "failed")


def metric(**stated: Any) -> Callable[[Any], Any]:
    return user_metric(**{"needs": "labels", "higher_is_better": True, "low": 0.0, "high": 1.0} | stated)


def accuracy(targets: Any, predictions: Any, _: Any) -> float:
    return float((targets == predictions).mean())


def forgetful(data: Any, parameters: Any, report: Any) -> Any:
    data.train_inputs[:] = 0


def frames() -> pd.DataFrame:
    return pd.DataFrame({"x": np.random.default_rng().normal(size=2000), "y": np.arange(2000) % 2})


MISTAKES = {
    "reversed": metric(higher_is_better=False)(lambda *a: accuracy(*a)),
    "beyond": metric()(lambda *_: 2.0),
    "words": metric()(lambda *_: "good"),
    "random": metric()(lambda *_: float(np.random.default_rng().random())),
    "first": metric()(lambda t, p, _: float(np.argmax(t)) / len(t)),
    "unmarked": accuracy,
    "taken": lambda seen: (0, 0),
    "outside": lambda seen: (9, 0),
    "nothing": lambda seen: None,
    "drawn": lambda seen: next(
        (i, int(np.random.default_rng().choice(np.flatnonzero(free)))) for i, free in enumerate(seen.free) if free.any()
    ),
}


@pytest.fixture
def mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("easeml_mistakes")
    for name, value in MISTAKES.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("mistakes")
@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: testing.check_metric("easeml_mistakes:reversed"), "perfect predictions have quality 0.0000"),
        (lambda: testing.check_metric("easeml_mistakes:beyond"), "came out as 2; it must be finite and in [0, 1]"),
        (lambda: testing.check_metric("easeml_mistakes:words"), "must give a number, got str"),
        (lambda: testing.check_metric("easeml_mistakes:random"), "for the same rows"),
        (lambda: testing.check_metric("easeml_mistakes:first"), "depends on the order of the rows"),
        (lambda: testing.check_metric("easeml_mistakes:unmarked"), "is not marked as a metric"),
        (lambda: testing.check_metric("easeml_mistakes:gone"), "there is no metric 'easeml_mistakes:gone'"),
        (lambda: testing.check_policy("easeml_mistakes:taken"), "chose (0, 0), which was started already"),
        (lambda: testing.check_policy("easeml_mistakes:outside"), "chose (9, 0); it must return (tenant, arm)"),
        (lambda: testing.check_policy("easeml_mistakes:nothing"), "chose None; it must return"),
        (lambda: testing.check_policy("easeml_mistakes:drawn"), "makes other choices for the same seed"),
        (lambda: testing.check_policy("easeml_mistakes:gone"), "there is no policy 'easeml_mistakes:gone'"),
        (lambda: testing.check_trainer(forgetful), "changed data.train_inputs; work on a copy"),
        (lambda: testing.check_trainer(lambda *_: 5), "must return a fitted scikit-learn classifier"),
        (lambda: testing.check_trainer(lambda *_: {}["x"]), "raised KeyError: 'x'"),
        (
            lambda: testing.check_notifier(lambda event: event["model"]),
            "raised KeyError for an event of kind",
        ),
        (lambda: testing.check_notifier(lambda event: event.clear()), "changed an event of kind 'promotion'"),
        (lambda: testing.check_source("sklearn:iris"), "with the settings of a new study"),
        (lambda: testing.check_source("plugin:gone", "y"), "there is no entry point of easeml.sources 'gone'"),
    ],
)
def test_a_mistake_is_named(check: Callable[[], None], message: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        check()


def test_a_source_that_changes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from easeml_core.data.sources import load

    class Point:
        name = "frames"

        def load(self) -> Any:
            return frames

    monkeypatch.setattr(load, "entry_points", lambda group: [Point()])
    with pytest.raises(AssertionError, match="gives other rows when it is read again"):
        testing.check_source("plugin:frames", "y")
