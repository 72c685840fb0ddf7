"""Simulations from Python: tables of any form, matched by name."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

import easeml_core as easeml
from easeml_core.errors import EasemlError

QUALITY = pd.DataFrame(
    [[0.9, 0.5, None], [0.6, 0.8, 0.7], [0.7, 0.6, 0.9]], index=["ann", "bob", "<eve>"], columns=["svm", "mlp", "knn"]
)
COST = pd.DataFrame(np.arange(1.0, 10.0).reshape(3, 3), index=QUALITY.index, columns=QUALITY.columns)
ASKED: dict[str, Any] = {"policies": ["default", "roundrobin"], "served": 2, "repeats": 4}


def figures(quality: object, cost: object) -> list[list[object]]:
    found = easeml.simulate(quality, cost, **ASKED)
    return found.to_frame().drop(columns="decision_microseconds").to_numpy().tolist()


def test_frames_are_matched_by_name_and_arrays_by_position() -> None:
    wanted = figures(QUALITY.to_numpy(), COST.to_numpy())
    assert figures(QUALITY, COST.iloc[[2, 0, 1], [1, 2, 0]]) == wanted
    assert figures(QUALITY.to_numpy().tolist(), COST.to_numpy()) == wanted


@pytest.mark.parametrize(
    ("quality", "cost", "given", "message"),
    [
        (None, None, {}, "give either quality (with cost, or all costs are 1) or a synthetic table"),
        (QUALITY, None, {"synthetic": "SYN(0.5,1.0)"}, "give either quality"),
        ([0.9, 0.5], None, {}, "quality must have shape (n_tenants, n_candidates), neither of them 0, got (2,)"),
        (
            [[0.9], [0.5, 0.4]],
            None,
            {},
            "quality must be a table of numbers, one row for each tenant",
        ),
        ([["high"]], None, {}, "quality must be a table of numbers"),
        (QUALITY * 100, None, {}, "quality, row 'ann', column 'svm': 90 is above 1"),
        (QUALITY.drop("bob").reindex(QUALITY.index), None, {}, "quality, row 'bob': it has no quality at all"),
        (QUALITY, COST.iloc[:2], {}, "cost must have shape (3, 3), as quality has, got (2, 3)"),
        (QUALITY, COST.rename(index={"bob": "rob"}), {}, "cost: it has no row 'bob', which the quality table has"),
        (QUALITY, COST.set_axis(["svm", "svm", "knn"], axis=1), {}, "the column 'svm' is there more than once"),
        (QUALITY, COST.to_numpy(), {}, "quality is a DataFrame and cost a ndarray, so names cannot be matched"),
        (QUALITY.to_numpy().tolist(), COST, {}, "quality is a list and cost a DataFrame"),
        (QUALITY, COST * np.inf, {}, "cost, row 'ann', column 'svm': it is infinite"),
        (QUALITY, COST - 1, {}, "0 is no cost"),
        (QUALITY, None, {"objective": "fair"}, "objective must be mean, maxmin or a number in [0, 1], got 'fair'"),
        (QUALITY, None, {"policies": ["best"]}, "policy 'best'"),
        (QUALITY, None, {"served": 4}, "served must be from 1 to 3"),
        ("gone.csv", None, {}, "quality table gone.csv cannot be read"),
        ("gone.csv", COST, {}, "quality is the file gone.csv, so cost must be a file too, got DataFrame"),
    ],
)
def test_what_is_no_table_is_refused(quality: object, cost: object, given: dict[str, Any], message: str) -> None:
    with pytest.raises(EasemlError, match=re.escape(message)):
        easeml.simulate(quality, cost, **{**ASKED, **given})


def test_without_pandas_everything_but_frames_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    found = easeml.simulate(QUALITY.to_numpy(), **ASKED)
    assert "roundrobin" in found._repr_html_()
    assert found.plot().axes
    with pytest.raises(EasemlError, match=r"needs pandas .* install it with: pip install pandas"):
        found.to_frame()
