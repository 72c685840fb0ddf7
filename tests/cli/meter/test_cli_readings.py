"""``easeml model meter``, and what ``status`` and ``alerts`` tell of two meters."""

from __future__ import annotations

import re
from typing import Any

import pytest

from easeml_core.entities import AlertKind, RequestKind
from easeml_core.store.tables import models, releases, requests, studies

METER = {"ranges": (-0.2, 0.3), "tolerance": 0.19, "reliability": 0.8, "steps": 4, "overfitting_budget": 3}
GATE = {"condition": "n > 0.5 +/- 0.3", "reliability": 0.8, "steps": 2, "estimator": "paper"}


@pytest.fixture
def metered(make_study: Any) -> None:
    """A study ``cancer`` with a baseline, a meter set and a second validation sample."""
    make_study(meter=METER, gate=GATE, direct={"share": 0.5}, candidates=[{"name": "tree", "kind": "decision_tree"}])


def test_a_reading_is_asked_for_and_reported_with_what_to_do(
    ask: Any, baseline: int, referee: None, recorded: Any
) -> None:
    recorded(ask("model", "meter", "cancer", str(baseline), "--request-key", "k").out, "model_meter_second_sample")
    again = ask("model", "meter", "cancer", str(baseline), "--request-key", "k", "--json").json
    assert (again["signal"], again["direct_signal"], again["cached"]) == (2, 2, False)  # the very same request
    assert ask("model", "meter", "cancer", str(baseline), "--team", "1", "--json").json["cached"]
    refused = ask("model", "meter", "cancer", str(baseline), "--team", "2")  # the referee's answer is no, and no error
    assert (refused.status, "from 1 to 1" in refused.out, refused.err) == (1, True, "")
    answer = ask("model", "meter", "cancer", str(baseline), "--team", "2", "--json")
    assert (answer.status, answer.json["refused"]) == (1, True)
    assert ask("model", "meter", "cancer", str(baseline), "--team", "0").status == 2
    recorded(ask("status").out, "status_second_sample")
    (entry,) = ask("status", "--json").json["tenants"]
    assert (entry["direct_signal"], entry["drift"]) == (2, "none seen")


@pytest.fixture
def brief(make_study: Any) -> None:
    """A study ``cancer`` whose meter set serves one submission."""
    make_study(meter=METER | {"steps": 1}, gate=GATE)


def test_a_set_that_has_served_is_a_refusal(ask: Any, brief: None, referee: None) -> None:
    answer = ask("model", "meter", "cancer", "1")
    assert (answer.status, "0 submissions left" in answer.out) == (0, True)
    ended = ask("model", "meter", "cancer", "1")
    assert (ended.status, "no live meter" in ended.out, ended.err) == (1, True, "")


def test_a_reading_that_does_not_come_in_time_is_an_error(ask: Any, brief: None) -> None:
    late = ask("model", "meter", "cancer", "1", "--request-key", "k", "--timeout", "0")
    assert (late.status, "within 0 s" in late.err) == (2, True)


KINDS: tuple[dict[str, Any], ...] = (
    {"signal": 1, "submissions_left": 7},
    {"signal": 2, "submissions_left": 2},
    {"signal": 3, "submissions_left": 1},
    {"signal": 1, "submissions_left": None},  # a set without an end
    {"signal": None, "submissions_left": 0},  # retired
)


def test_each_kind_of_answer_has_its_words_and_its_status(
    ask: Any, make_study: Any, database: Any, recorded: Any
) -> None:
    make_study(meter={"ranges": (0.2, 0.6), "tolerance": 0.1}, gate=GATE)
    with database.referee.begin() as tx:
        study = studies.get_study(tx, "cancer")
        sets = {s.purpose: s.id for s in releases.public_test_sets(tx, study.id)}
        model = models.baseline_model(tx, study.id).id
        for step, reading in enumerate(KINDS, 1):
            asked = {"study_id": study.id, "model_id": model, "arguments": {}, "request_key": f"m{step}"}
            request = requests.file_request(tx, kind=RequestKind.METER, **asked)
            row = {"test_set_id": sets["meter"], "step": step, "signals": 3, "cached": False} | reading
            read = releases.Reading(model_id=model, **row)
            releases.add_reading(tx, request_id=request, study_id=study.id, reading=read)
            said = "the sealed set is retired" if reading["signal"] is None else f"signal {reading['signal']} of 3"
            requests.add_answer(tx, request, refused=False, message=said)
    answers = [ask("model", "meter", "cancer", str(model), "--request-key", f"m{step}") for step in range(1, 6)]
    assert [answer.status for answer in answers] == [0, 0, 0, 0, 1]
    recorded("".join(answer.out for answer in answers), "model_meter")


def test_drift_is_listed_with_both_signals(ask: Any, database: Any, baseline: int, recorded: Any) -> None:
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
    recorded(re.sub(r"\d{4}-[-\d]+ [\d:.]+\+00:00", "(time)".ljust(32), ask("alerts", "cancer").out), "alerts_drift")
    (listed,) = ask("alerts", "cancer", "--json").json
    assert (listed["signal"], listed["direct_signal"], listed["message"]) == (3, 1, "cancer: drift")
    assert "test data differ" in ask("status").text


def test_a_teams_alert_is_listed_and_cleared_for_that_team_alone(
    ask: Any, database: Any, baseline: int, recorded: Any
) -> None:
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
        assert ask("alerts", "cancer", *other, "--json").json == []
        assert "no open alert" in ask("alerts", "cancer", "--clear", str(alert["alert_id"]), *other).err
    assert "overfitting" not in ask("status").text
    assert ask("alerts", "cancer", "--team", "0").status == 2
    recorded(ask("alerts", "cancer", "--team", "2", "--clear", str(alert["alert_id"])).out, "alerts_cleared")
    assert ask("alerts", "cancer", "--team", "2", "--json").json == []


def test_status_says_that_signals_are_reported_by_team(ask: Any, make_study: Any) -> None:
    make_study(meter=METER | {"teams": 2}, gate=GATE)
    assert "by team" in ask("status").text


@pytest.fixture
def baseline(database: Any, metered: None) -> int:
    """The model that stands before the first promotion."""
    with database.worker.begin() as tx:
        return models.baseline_model(tx, studies.get_study(tx, "cancer").id).id
