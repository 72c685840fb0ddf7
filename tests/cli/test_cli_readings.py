"""``easeml model meter``, and what ``status`` and ``alerts`` tell of two meters."""

from __future__ import annotations

from typing import Any

import pytest

from easeml_core.entities import AlertKind, RequestKind
from easeml_core.store import models, releases, requests, studies

METER = {"ranges": (-0.2, 0.3), "tolerance": 0.19, "reliability": 0.8, "steps": 4, "overfitting_budget": 3}
GATE = {"condition": "n > 0.5 +/- 0.3", "reliability": 0.8, "steps": 2, "estimator": "paper"}


@pytest.fixture
def metered(make_study: Any) -> None:
    """A study ``cancer`` with a baseline, a meter set and a second validation sample."""
    make_study(meter=METER, gate=GATE, direct={"share": 0.5})


def test_a_reading_is_asked_for_and_told_with_what_to_do(ask: Any, baseline: int, referee: None) -> None:
    told = ask("model", "meter", "cancer", str(baseline), "--request-key", "k").text
    assert told.startswith(
        "signal 2 of 3, 2 on the second validation sample; drift: none seen test signal 2, validation"
    )
    assert "renew it from the same source" in told
    again = ask("model", "meter", "cancer", str(baseline), "--request-key", "k", "--json").json
    assert (again["signal"], again["direct_signal"], again["cached"]) == (2, 2, False)  # the very same request
    assert ask("model", "meter", "cancer", str(baseline), "--team", "1", "--json").json["cached"]
    refused = ask("model", "meter", "cancer", str(baseline), "--team", "2")
    assert (refused.status, "team must be a whole number from 1 to 1" in refused.err) == (2, True)
    assert ask("model", "meter", "cancer", str(baseline), "--team", "0").status == 2
    assert "second signal 2 of 3 (drift: none seen)" in ask("status").text
    (entry,) = ask("status", "--json").json["tenants"]
    assert (entry["direct_signal"], entry["drift"]) == (2, "none seen")


def test_drift_is_listed_with_both_signals(ask: Any, database: Any, baseline: int) -> None:
    with database.referee.begin() as tx:
        study = studies.get_study(tx, "cancer")
        sets = {s["purpose"]: s["id"] for s in releases.public_test_sets(tx, study.id)}
        asked = {"study_id": study.id, "model_id": baseline, "arguments": {}, "request_key": "m"}
        request = requests.file_request(tx, kind=RequestKind.METER, **asked)
        row = {"test_set_id": sets["meter"], "step": 1, "signal": 3, "signals": 3, "cached": False, "drift": "certain"}
        row |= {"direct_test_set_id": sets["direct"], "direct_signal": 1}
        releases.add_reading(tx, request_id=request, study_id=study.id, model_id=baseline, **row)
        about = {"study_id": study.id, "study": "cancer", "request_id": request, "kind": AlertKind.DRIFT}
        releases.add_alert(tx, message="cancer: drift", **about)
        requests.add_answer(tx, request, refused=False, message="signal 3 of 3")
    listed = ask("alerts", "cancer").text
    assert ("3 / 1" in listed, "cancer: drift" in listed) == (True, True)
    assert ask("alerts", "cancer", "--json").json[0]["direct_signal"] == 1
    assert "read the alert: validation and test data differ" in ask("status").text


@pytest.fixture
def baseline(database: Any, metered: None) -> int:
    """The model that stands before the first promotion."""
    with database.worker.begin() as tx:
        return models.baseline_model(tx, studies.get_study(tx, "cancer").id).id
