"""Verdicts on values of Python: matched by index or by position, and never guessed."""

from __future__ import annotations

import math
import re
from array import array
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import easeml_core as easeml
from easeml_core.errors import ConfigError, InvalidInputError, MissingLabelsError, ShapeError
from easeml_core.gate.offline.arrays import predictions_from

if TYPE_CHECKING:
    from collections.abc import Callable

PLAN = easeml.gate.plan("n - o > 0 +/- 0.1", reliability=0.95, steps=4, adaptivity="none")
TRUTH = ["cat", "dog"] * 100
OLD = ["cat", "dog"] * 60 + ["dog", "cat"] * 40


def series(values: list[object]) -> pd.Series:
    return pd.Series(values, index=[f"img{i}" for i in range(len(values))])


@pytest.mark.parametrize(
    ("labels", "old", "new"),
    [
        (TRUTH, tuple(OLD), np.array(TRUTH)),
        (series(TRUTH), series(OLD), series(TRUTH)),
        (series(TRUTH).sample(frac=1, random_state=1), series(OLD), series(TRUTH).sample(frac=1, random_state=2)),
        (series(TRUTH), np.array(OLD, dtype=object), series(TRUTH)),  # one index in one order: by position
        (pd.Categorical(TRUTH), series(OLD), np.array(TRUTH)),
        *(
            (
                pd.Series([int(t == "cat") for t in TRUTH], dtype=kind),
                np.array([t == "cat" for t in OLD]),
                [float(t == "cat") for t in TRUTH],
            )
            for kind in ("int8", "float32", "Int64", "bool", "boolean")
        ),
    ],
)
def test_the_same_classes_in_any_form_give_the_same_verdict(labels: object, old: object, new: object) -> None:
    verdict = easeml.gate.decide(PLAN, labels=labels, old=old, new=new)
    assert (verdict.symbol, bool(verdict), verdict.verdict) == ("pass", True, "PASS")
    assert (verdict.report().wins, verdict.report().losses) == (80, 0)


def test_labels_that_are_not_known_are_asked_for_by_name_where_they_matter() -> None:
    labels = series(TRUTH)
    known = labels.where(labels.index != "img199")  # the two models differ there
    with pytest.raises(InvalidInputError, match="labels lacks 1 label that the verdict needs next: 'img199'"):
        easeml.gate.decide(PLAN, labels=known, old=series(OLD), new=series(TRUTH))
    agreed = labels.drop([f"img{i}" for i in range(120)])
    assert easeml.gate.decide(PLAN, labels=agreed, old=series(OLD), new=series(TRUTH))


A, B = pd.Series([1, 0], index=["a", "b"]), pd.Series([0, 1], index=["b", "a"])


@pytest.mark.parametrize(
    ("labels", "old", "new", "message"),
    [
        ([1, 0], [1, 0, 1], [1, 0, 1], "labels must have shape (3,), as old has, got (2,)"),
        ([1, 0], [[0.2, 0.8], [0.9, 0.1]], [1, 0], "old at 0 is [0.2, 0.8], which is no class"),
        ([1, 0], np.eye(2), [1, 0], "of probabilities give the most probable class, with .argmax(axis=1), got (2, 2)"),
        ([1, 0], [1, 0], [0.7, 0.2], "new at 0 is 0.7, which is no class: give whole numbers or texts; a probability"),
        ([1, 0], ["1", "0"], ["0", "0"], "classes must be all texts or all numbers, got '1' in old and 1 in labels"),
        ([1, 0], [1, np.nan], [1, 0], "old lacks 1 prediction, at 1; both models must have one for every example"),
        ([1, 0], [1, np.inf], [1, 0], "old at 1 is inf, which is no class"),
        (["Cat"], ["cat"], ["dog"], "no label is ever predicted: labels such as 'Cat', predictions such as 'cat'"),
        ([], [], [], "old has no values"),
        ("10", [1, 0], [1, 0], "got str"),
        ([1, 0], {1, 0}, [1, 0], "got set"),
        ([1, 0], {"a": 1}, [1, 0], "got dict"),
        ([1, 0], array("i", [1, 0]), [1, 0], "old must be one class for each example: a list, a NumPy array"),
        ([1, 0], pd.DataFrame({"x": [1, 0]}), [1, 0], "got a table with the columns 'x': take one of them"),
        (A, B, np.array([1, 0]), "old and labels are Series whose indexes differ, and new has none"),
        (
            A,
            A,
            pd.Series([1, 0], index=["a", "c"]),
            "do not match: new lacks 'b'; old lacks 'c', which new",
        ),
        (pd.Series([1], index=["z"]), A, B, "the indexes of old and labels do not match: old lacks 'z'"),
        (A, pd.Series([1, 0], index=["a", "a"]), A, "the index of old has 'a' more than once"),
        (A, pd.Series([1, 0], index=["a", None]), A, "the index of old has a missing label"),
    ],
)
def test_what_cannot_be_matched_is_refused(labels: object, old: object, new: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        easeml.gate.decide(PLAN, labels=labels, old=old, new=new)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"step": 5}, ConfigError, "step must be 1 to 4; further steps need a new set, got 5"),
        ({"passes": 1}, InvalidInputError, "passes says nothing under adaptivity none"),
        ({"sampling": "quick"}, ConfigError, "sampling must be one of"),
        ({"slices": ["x"] * 200}, InvalidInputError, "slices and slice_conditions belong together"),
        ({"slices": ["x"] * 2, "slice_conditions": {"x": "n > 0 +/- 1"}}, ShapeError, "slices must have shape (200,)"),
        ({"plan": "n > 0.5 +/- 0.1"}, InvalidInputError, "plan must be what easeml.gate.plan(condition, ...) returned"),
    ],
)
def test_a_verdict_that_the_plan_does_not_have_is_refused(given: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        easeml.gate.decide(**{"plan": PLAN, "labels": TRUTH, "old": OLD, "new": TRUTH} | given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: easeml.gate.plan("n > 0.8 +/- 0.1", reliability="0.9"), "reliability must be a number, got '0.9'"),
        (lambda: easeml.gate.plan("n > 0.8 +/- 0.1", reliability=None), "reliability must be a number, got None"),
        (lambda: easeml.gate.plan("n > 0.8 +/- 0.1", power="same"), "power must be a number"),
        (lambda: easeml.gate.plan("n > 0.8 +/- 0.1", steps=3.5), "steps must be a whole number, got 3.5"),
        (lambda: easeml.meter.plan(ranges=0.1), "ranges must be a list of numbers, got 0.1"),
        (lambda: easeml.meter.plan(ranges="ab"), "ranges must be a list of numbers, got 'ab'"),
        (lambda: easeml.simulate([[0.5, 0.6]], losses=0.05), "losses must be a list of numbers, got 0.05"),
        (lambda: easeml.simulate([[0.5, 0.6]], served="2"), "served must be a whole number, got '2'"),
        (lambda: easeml.simulate([[0.5, 0.6]], served=1, curve="x"), "curve must be one of guard, objective"),
        (lambda: easeml.gate.decide(PLAN, labels=[1], old=[1], new=[1], step="1"), "step must be a whole number"),
        (
            lambda: easeml.gate.decide(PLAN, labels=[1], old=[1], new=[1], slice_conditions=["x"]),
            "slice_conditions must be a mapping",
        ),
    ],
)
def test_an_argument_of_another_kind_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        call()


def test_numbers_of_numpy_are_numbers() -> None:
    plain = easeml.gate.plan("n > 0.8 +/- 0.1", reliability=0.5, steps=4)
    assert easeml.gate.plan("n > 0.8 +/- 0.1", reliability=np.float32(0.5), steps=np.int64(4)) == plain


def test_a_set_that_is_planned_after_a_pass_is_judged_at_its_level() -> None:
    plan = easeml.gate.plan("n > 0.5 +/- 0.1", reliability=0.95, steps=4, adaptivity="recycle", passes=1)
    verdict = easeml.gate.decide(plan, labels=TRUTH, old=OLD, new=TRUTH)
    assert verdict.decision.log_level == plan.found.log_level
    first = easeml.gate.decide(plan, labels=TRUTH, old=OLD, new=TRUTH, passes=0)
    assert first.decision.log_level > plan.found.log_level


@pytest.mark.parametrize(("adaptivity", "counts"), [("recycle", "fail"), ("upTo:1", "fail"), ("firstChange", "pass")])
@pytest.mark.parametrize("step", [2, None])
def test_passes_are_never_taken_for_none(adaptivity: str, counts: str, step: int | None) -> None:
    """Each pass lowers the level of the next verdict under ``recycle``, or ends the set."""
    plan = easeml.gate.plan("n > 0.5 +/- 0.1", reliability=0.95, steps=4, adaptivity=adaptivity, mode="fn-free")
    data = {"labels": TRUTH, "old": OLD, "new": TRUTH}
    with pytest.raises(
        InvalidInputError, match=rf"passes how many of the earlier verdicts on this set were a {counts}"
    ):
        easeml.gate.decide(plan, **data, step=step)
    level = easeml.gate.decide(plan, **data, step=step, passes=0).decision.log_level
    assert easeml.gate.decide(plan, **data, step=1).decision.log_level == level == plan.found.log_level
    once = easeml.gate.plan("n > 0.5 +/- 0.1", reliability=0.95, steps=1, adaptivity=adaptivity, mode="fn-free")
    assert easeml.gate.decide(once, **data).passed


WORSE_SORTED = {
    "labels": ["cat"] * 1000 + ["dog"] * 1000,
    "old": ["cat", "dog"] * 500 + ["dog"] * 1000,
    "new": ["cat"] * 1000 + ["cat", "cat", "dog"] * 333 + ["cat"],
}
"""Sorted by class: the new model is right on all cats, but on a third of the dogs: n - o is about -.08."""


def test_stopping_early_does_not_go_through_the_rows_of_a_sorted_file_in_their_order() -> None:
    """By the file's order the verdict was PASS after 200 labels of cats, whatever the level.

    The order is drawn by the names alone, here the positions, so nothing is random in this test; over all orders a
    wrong pass would have a chance of 3.2e-6, the level.
    """
    plan = easeml.gate.plan("n - o > 0.02 +/- 0.05", reliability=0.9999, steps=32, adaptivity="recycle", power=0.9)
    verdict = easeml.gate.decide(plan, **WORSE_SORTED, step=1, sampling="early")
    assert (verdict.passed, verdict.verdict) == (False, "UNKNOWN")
    assert math.exp(verdict.decision.log_level) < 3.2e-6


@pytest.mark.parametrize("known", [2000, 900])
def test_the_same_examples_in_another_order_have_the_same_verdict_and_want_the_same_labels(known: int) -> None:
    plan = easeml.gate.plan("n - o > 0 +/- 0.05", reliability=0.9, steps=1, adaptivity="none", power=0.9)
    data = {name: pd.Series(values, index=[f"img{i}" for i in range(2000)]) for name, values in WORSE_SORTED.items()}
    slices = pd.Series(["a", "b"] * 1000, index=data["old"].index)
    found = []
    for seed in (None, 1, 2):
        moved = {
            name: values if seed is None else values.sample(frac=1, random_state=seed) for name, values in data.items()
        }
        asked = moved | {
            "labels": data["labels"].head(known),
            "slices": slices,
            "slice_conditions": {"b": "d < 0.9 +/- 0.1"},
        }
        try:
            found.append(easeml.gate.decide(plan, **asked, sampling="early").report())
        except MissingLabelsError as error:
            found.append(error.examples)
    assert found[0] == found[1] == found[2]
    assert isinstance(found[0], tuple) == (known < 2000)


def test_slices_are_matched_like_labels() -> None:
    where = series(["night" if i < 40 else None for i in range(200)]).sample(frac=1, random_state=3)
    data = {"labels": series(TRUTH), "old": series(OLD), "new": series(TRUTH)}
    verdict = easeml.gate.decide(PLAN, **data, slices=where, slice_conditions={"night": "n > 0.5 +/- 0.1"})
    assert verdict.report().slices["night"].examples == 40
    assert verdict.to_frame()["slice"].tolist() == ["", "night"]


def test_what_a_notebook_shows_is_escaped_and_tells_the_symbol_alone() -> None:
    odd = ["<img src=x>"] + ["dog", "cat"] * 99 + ["dog"]
    verdict = easeml.gate.decide(PLAN, labels=odd, old=TRUTH, new=OLD)
    shown = verdict._repr_html_()
    assert "&lt;img src=x&gt;" in shown
    assert "<img" not in shown
    assert "fail" in shown
    for secret in (verdict.verdict, *(f"{end:.3f}" for end in verdict.interval), "estimate", str(verdict.decision)):
        assert secret not in shown + repr(verdict)


def test_a_million_predictions_are_matched() -> None:
    numbers = np.arange(1_000_000) % 7
    found, _ = predictions_from(numbers, numbers, numbers[::-1])
    assert (found.old == found.labels).all()
