"""``easeml model meter``, and what ``status`` and ``alerts`` tell of two meters."""

from __future__ import annotations

from typing import Any

import pytest

from easeml_core.entities import AlertKind, RequestKind
from easeml_core.store.tables import models, releases, requests, studies

METER = {"ranges": (-0.2, 0.3), "tolerance": 0.19, "reliability": 0.8, "steps": 4, "overfitting_budget": 3}
GATE = {"condition": "n > 0.5 +/- 0.3", "reliability": 0.8, "steps": 2, "estimator": "paper"}


@pytest.fixture
def metered(make_study: Any) -> None:
    """A study ``cancer`` with a baseline, a meter set and a second validation sample."""
    make_study(meter=METER, gate=GATE, direct={"share": 0.5})


def test_a_reading_is_asked_for_and_reported_with_what_to_do(ask: Any, baseline: int, referee: None) -> None:
    answer = ask("model", "meter", "cancer", str(baseline), "--request-key", "k").text
    first = "signal 2 of 3, 2 on the second validation sample; drift: none seen; 3 submissions left"
    assert answer.startswith(f"{first} test signal 2, validation")
    assert "renew it from the same source" in answer
    again = ask("model", "meter", "cancer", str(baseline), "--request-key", "k", "--json").json
    assert (again["signal"], again["direct_signal"], again["cached"]) == (2, 2, False)  # the very same request
    assert ask("model", "meter", "cancer", str(baseline), "--team", "1", "--json").json["cached"]
    refused = ask("model", "meter", "cancer", str(baseline), "--team", "2")  # the referee's answer is no, and no error
    assert (refused.status, "team must be a whole number from 1 to 1" in refused.out, refused.err) == (1, True, "")
    answer = ask("model", "meter", "cancer", str(baseline), "--team", "2", "--json")
    assert (answer.status, answer.json["refused"]) == (1, True)
    assert ask("model", "meter", "cancer", str(baseline), "--team", "0").status == 2
    assert "second signal 2 of 3 (drift: none seen)" in ask("status").text
    (entry,) = ask("status", "--json").json["tenants"]
    assert (entry["direct_signal"], entry["drift"]) == (2, "none seen")


@pytest.fixture
def brief(make_study: Any) -> None:
    """A study ``cancer`` whose meter set serves one submission."""
    make_study(meter=METER | {"steps": 1}, gate=GATE)


def test_one_signal_is_reported_in_words_with_what_is_left(ask: Any, brief: None, referee: None) -> None:
    answer = ask("model", "meter", "cancer", "1")
    assert (answer.status, answer.out.splitlines()[0]) == (
        0,
        "signal 2 of 3: the gap is above -0.2 and at most 0.3 (+/- 0.19); 0 submissions left",
    )
    ended = ask("model", "meter", "cancer", "1")  # the set has served: a refusal
    assert (ended.status, "no live meter set" in ended.out, ended.err) == (1, True, "")


def test_a_reading_that_does_not_come_in_time_is_an_error(ask: Any, brief: None) -> None:
    late = ask("model", "meter", "cancer", "1", "--request-key", "k", "--timeout", "0")
    assert (late.status, "no answer to request" in late.err) == (2, True)


@pytest.mark.parametrize(
    ("reading", "line", "status"),
    [
        (
            {"signal": 1, "submissions_left": 7},
            "signal 1 of 3: the gap is at most 0.2 (+/- 0.1); 7 submissions left",
            0,
        ),
        (
            {"signal": 3, "submissions_left": 1},
            "signal 3 of 3: the gap is above 0.6 (+/- 0.1); 1 submission left",
            0,
        ),
        ({"signal": 1, "submissions_left": None}, "signal 1 of 3: the gap is at most 0.2 (+/- 0.1)", 0),
        ({"signal": None, "submissions_left": 0}, "the sealed set is retired; 0 submissions left", 1),
    ],
    ids=["first", "last", "open-ended", "retired"],
)
def test_each_kind_of_answer_has_its_words_and_its_status(
    reading: dict[str, Any], line: str, status: int, ask: Any, make_study: Any, database: Any
) -> None:
    make_study(meter={"ranges": (0.2, 0.6), "tolerance": 0.1}, gate=GATE)
    with database.referee.begin() as tx:
        study = studies.get_study(tx, "cancer")
        sets = {s.purpose: s.id for s in releases.public_test_sets(tx, study.id)}
        model = models.baseline_model(tx, study.id).id
        asked = {"study_id": study.id, "model_id": model, "arguments": {}, "request_key": "m"}
        request = requests.file_request(tx, kind=RequestKind.METER, **asked)
        row = {"test_set_id": sets["meter"], "step": 1, "signals": 3, "cached": False} | reading
        read = releases.Reading(model_id=model, **row)
        releases.add_reading(tx, request_id=request, study_id=study.id, reading=read)
        said = "the sealed set is retired" if reading["signal"] is None else f"signal {reading['signal']} of 3"
        requests.add_answer(tx, request, refused=False, message=said)
    answer = ask("model", "meter", "cancer", str(model), "--request-key", "m")
    assert (answer.status, answer.out) == (status, f"{line}\n")


def test_drift_is_listed_with_both_signals(ask: Any, database: Any, baseline: int) -> None:
    with database.referee.begin() as tx:
        study = studies.get_study(tx, "cancer")
        sets = {s.purpose: s.id for s in releases.public_test_sets(tx, study.id)}
        asked = {"study_id": study.id, "model_id": baseline, "arguments": {}, "request_key": "m"}
        request = requests.file_request(tx, kind=RequestKind.METER, **asked)
        row = {"test_set_id": sets["meter"], "step": 1, "signal": 3, "signals": 3, "cached": False, "drift": "certain"}
        row |= {"direct_test_set_id": sets["direct"], "direct_signal": 1}
        read = releases.Reading(model_id=baseline, **row)
        releases.add_reading(tx, request_id=request, study_id=study.id, reading=read)
        about = {"study_id": study.id, "study": "cancer", "request_id": request, "kind": AlertKind.DRIFT}
        releases.add_alert(tx, message="cancer: drift", **about)
        requests.add_answer(tx, request, refused=False, message="signal 3 of 3")
    listed = ask("alerts", "cancer").text
    assert ("3 / 1" in listed, "cancer: drift" in listed) == (True, True)
    assert ask("alerts", "cancer", "--json").json[0]["direct_signal"] == 1
    assert "read the alert: validation and test data differ" in ask("status").text


def test_a_teams_alert_is_listed_and_cleared_for_that_team_alone(ask: Any, database: Any, baseline: int) -> None:
    with database.referee.begin() as tx:
        study = studies.get_study(tx, "cancer")
        sets = {s.purpose: s.id for s in releases.public_test_sets(tx, study.id)}
        asked = {"study_id": study.id, "model_id": baseline, "arguments": {"team": 2}, "request_key": "m"}
        request = requests.file_request(tx, kind=RequestKind.METER, **asked)
        row = {"test_set_id": sets["meter"], "step": 1, "signal": 3, "signals": 3, "cached": False, "team": 2}
        read = releases.Reading(model_id=baseline, **row)
        releases.add_reading(tx, request_id=request, study_id=study.id, reading=read)
        about = {"study_id": study.id, "study": "cancer", "request_id": request, "team": 2}
        releases.add_alert(tx, message="cancer: overfitted", **about)
    (alert,) = ask("alerts", "cancer", "--team", "2", "--json").json
    assert (alert["message"], alert["team"]) == ("cancer: overfitted", 2)
    for other in ((), ("--team", "1")):
        assert ask("alerts", "cancer", *other).text == "cancer has no open alert"
        assert (
            "study 'cancer' has no open alert" in ask("alerts", "cancer", "--clear", str(alert["alert_id"]), *other).err
        )
    assert "overfitting" not in ask("status").text
    assert ask("alerts", "cancer", "--team", "0").status == 2
    cleared = ask("alerts", "cancer", "--team", "2", "--clear", str(alert["alert_id"])).text
    assert cleared.endswith("cancer has no open alert")


def test_status_says_that_signals_are_reported_by_team(ask: Any, make_study: Any) -> None:
    make_study(meter=METER | {"teams": 2}, gate=GATE)
    assert "by team" in ask("status").text


@pytest.fixture
def baseline(database: Any, metered: None) -> int:
    """The model that stands before the first promotion."""
    with database.worker.begin() as tx:
        return models.baseline_model(tx, studies.get_study(tx, "cancer").id).id
