"""The meter from Python: plans, and histories of any form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import easeml_core as easeml
from easeml_core.errors import EasemlError
from easeml_core.meter.history import Submitted

if TYPE_CHECKING:
    from pathlib import Path

PLAN = easeml.meter.plan(tolerance=0.05, steps=8, ranges=[0.1, 0.3], tail="clopper-pearson")
ROWS = [{"submission": f"m{i}", "validation_loss": 0.2, "test_errors": 600 + 150 * i} for i in range(4)]


def test_a_history_of_any_form_gives_the_same_answers(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "history.csv", index=False)
    forms = [ROWS, frame.sample(frac=1, random_state=0).sort_index(), tmp_path / "history.csv"]
    forms.append([Submitted(**row) for row in ROWS])
    found = [easeml.meter.replay(PLAN, form, examples=np.int64(2000), budget="signal above range 1") for form in forms]
    assert all(each.report() == found[0].report() for each in found)
    assert found[0].signals == found[0].to_frame()["signal"].tolist()
    assert found[0].alerts[0][0] == 1 + found[0].signals.index(2)
    assert "alert at submission" in found[0]._repr_html_()


def test_a_frame_of_a_plan_marks_the_method_that_was_asked_for() -> None:
    frame = PLAN.to_frame()
    assert frame["method"][frame["asked"]].tolist() == [PLAN.method]
    assert sorted(frame["method"]) == sorted([PLAN.method, *(other.method for other in PLAN.alternatives)])


def test_a_number_that_came_as_a_text_is_the_same_submission() -> None:
    rows = [ROWS[0] | {"submission": name} for name in (1, "1", " 1 ", np.int64(1))]
    again = easeml.meter.replay(PLAN, rows, examples=2000).report().readings
    assert all(each == again[0] for each in again)
    assert again[0].submission == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_errors": 2001}, "history, row 4, column test_errors: must be a whole number from 0 to 2000, got 2001"),
        ({"test_errors": 3.5}, "got 3.5"),
        ({"test_errors": float("nan")}, "got nan"),
        ({"validation_loss": float("nan")}, "column validation_loss: must be a number from 0 to 1, got nan"),
        ({"validation_loss": True}, "got True"),
        ({"validation_loss": "0.2"}, "got '0.2'"),
        ({"submission": None}, "column submission: must be a name or a whole number, got None"),
        ({"submission": " "}, "column submission: must be a name or a whole number, got ' '"),
        ({"submission": "m1"}, "submission 'm1' comes twice with different numbers"),
        ({"team": 2}, "column team: must be a whole number from 1 to 1, got 2"),
    ],
)
def test_a_row_that_is_none_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(EasemlError, match=re.escape(message)):
        easeml.meter.replay(PLAN, [*ROWS[:3], ROWS[3] | change], examples=2000)


@pytest.mark.parametrize(
    ("plan", "history", "given", "message"),
    [
        (PLAN, [], {}, "history is empty"),
        (PLAN, {"submission": 1}, {}, "history is a dict"),
        (PLAN, pd.DataFrame({"submission": [1]}), {}, "row 1: it lacks validation_loss, test_errors"),
        (PLAN, ROWS, {"examples": 0}, "examples must be a whole number >= 1, got 0"),
        (PLAN, ROWS, {"examples": 2e3}, "examples must be a whole number >= 1, got 2000.0"),
        (PLAN.config, ROWS, {}, "plan must be what easeml.meter.plan(...) returned, got MeterConfig"),
        (easeml.meter.plan(method="fresh"), ROWS, {}, "method must be one that answers: it can only be planned with"),
    ],
)
def test_what_cannot_be_replayed_is_refused(plan: object, history: object, given: dict, message: str) -> None:
    with pytest.raises(EasemlError, match=re.escape(message)):
        easeml.meter.replay(plan, history, **{"examples": 2000} | given)
