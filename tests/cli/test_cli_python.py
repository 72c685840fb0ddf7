"""Commands and their functions in Python give the same answer from the same defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import easeml_core as easeml
from easeml_core.formats.encoding import to_json

if TYPE_CHECKING:
    from pathlib import Path


def test_each_command_prints_what_its_function_returns(run: Any, nowhere: Path) -> None:
    condition = "n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01"
    plan = easeml.gate.plan(condition)
    assert run("gate", "plan", "--condition", condition, "--json").json == to_json(plan.report())
    assert run("meter", "plan", "--json").json == to_json(easeml.meter.plan().report())

    rng = np.random.default_rng(0)
    names = pd.Index([f"img{i}" for i in range(500)], name="example")
    data = {who: pd.Series(rng.integers(0, 3, 500), index=names) for who in ("labels", "old")}
    data["new"] = data["labels"].sample(frac=1, random_state=1)
    for who, values in data.items():
        values.rename("label" if who == "labels" else "prediction").to_csv(nowhere / f"{who}.csv")
    files = [part for who in data for part in (f"--{who}", f"{who}.csv")]
    verdict = easeml.gate.decide(easeml.gate.plan("n - o > 0 +/- 0.1"), **data)
    assert run("gate", "decide", "--condition", "n - o > 0 +/- 0.1", *files, "--json").json == to_json(verdict.report())

    history = pd.DataFrame({"submission": range(3), "validation_loss": 0.2, "test_errors": [600, 700, 900]})
    history.to_csv(nowhere / "history.csv", index=False)
    replayed = easeml.meter.replay(easeml.meter.plan(), history, examples=3000)
    printed = run("meter", "replay", "--history", "history.csv", "--test-size", "3000", "--json").json
    assert printed == to_json(replayed.report())

    quality = pd.DataFrame(rng.random((12, 4)), index=[f"t{i}" for i in range(12)], columns=list("abcd")).round(3)
    quality.to_csv(nowhere / "quality.csv")
    asked = ("--repeats", "2", "--processes", "1", "--json")
    printed, found = (
        run("simulate", "--quality", "quality.csv", *asked).json,
        easeml.simulate(quality, repeats=2).to_json(),
    )
    for each in (printed, found):
        each["protocol"]["quality"] = None
        for figures in each["policies"].values():
            del figures["decision_microseconds"]
    assert printed == found
