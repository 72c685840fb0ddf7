"""Studies, trials, alerts and the referee from the command line, on a real database."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest

from easeml_core.data.sources.load import load_source
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import file_meter_request
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.columns import StudyColumns
from easeml_core.services.trials.execution import claim, record_success
from easeml_core.store.rows import pack
from easeml_core.training.job import TrainingResult

GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3}
METER = {"tolerance": 0.2, "reliability": 0.9, "steps": 4}
CANDIDATES = [{"name": "tree", "kind": "decision_tree"}]
REGISTER = ("study", "register", "cancer", "--tenant", "lab", "--source", "sklearn:breast_cancer")
SETTINGS = ("--gate", json.dumps(GATE), "--meter", json.dumps(METER), "--candidates", json.dumps(CANDIDATES))


@pytest.fixture
def trial(make_study: Any, database: Any) -> int:
    """A waiting trial of a study called cancer."""
    make_study("cancer", candidates=CANDIDATES, meter=METER | {"ranges": (0.2, 0.9)})
    (suggested,) = suggest_trials(database.worker, count=1, request_key="k").trials
    return int(suggested.trial_id)


def test_without_studies_the_status_says_how_to_begin(ask: Any, recorded: Any) -> None:
    recorded(ask("status").out, "status_without_studies")
    assert ask("status", "--json").json == {"policy": None, "tenants": []}
    assert ask("study", "list", "--json").json == []


@pytest.mark.usefixtures("referee")
def test_a_study_is_registered_and_seen(ask: Any, monkeypatch: pytest.MonkeyPatch, recorded: Any) -> None:
    answer = ask(*REGISTER, *SETTINGS, "--weight", "2", "--json").json
    assert (answer["study"], answer["answer"]["refused"]) == ("cancer", False)
    assert "train 315, validation 85, gate 113, meter 56" in answer["answer"]["message"]

    (listed,) = ask("study", "list", "--json").json
    assert (listed["study"], listed["tenant"], listed["state"], listed["weight"]) == ("cancer", "lab", "ACTIVE", 2.0)
    recorded(ask("study", "list").out, "study_list")
    wide = ask("status").out
    monkeypatch.setenv("COLUMNS", "80")
    assert ask("status").out == wide, "words of the table are not split"
    recorded(wide, "status")
    (row,) = ask("status", "--json").json["tenants"]
    assert row["next"].startswith("train: 1 candidate")

    shown = ask("study", "show", "cancer", "--json").json
    assert shown["candidates"] == CANDIDATES
    names = load_source("sklearn:breast_cancer").feature_names
    assert (shown["features"], shown["columns"], shown["classes"]) == (30, list(names), ["malignant", "benign"])
    expected = GATE | {"mode": "fp-free", "adaptivity": "full", "estimator": "exact"}
    assert {name: shown["settings"]["gate"][name] for name in expected} == expected
    recorded(ask("study", "show", "cancer").out, "study_show")


@pytest.mark.usefixtures("referee")
def test_a_registration_may_be_repeated_with_its_key(ask: Any) -> None:
    first = ask(*REGISTER, *SETTINGS, "--request-key", "k", "--json").json
    assert ask(*REGISTER, *SETTINGS, "--request-key", "k", "--json").json == first
    answer = ask(*REGISTER, *SETTINGS)
    assert (answer.status, "'cancer' already exists" in answer.err) == (2, True)


@pytest.mark.usefixtures("referee")
def test_a_refused_study_is_an_answer_of_no(ask: Any, recorded: Any) -> None:
    given = ("study", "register", "iris", "--tenant", "lab", "--source", "sklearn:iris", *SETTINGS)
    answer = ask(*given)
    assert answer.status == 1
    recorded(answer.out, "study_register_refused")
    assert ask("study", "show", "iris", "--json").json["columns"] is None
    assert "columns:" not in ask("study", "show", "iris").text
    assert "1 refused" in ask("study", "register", "--help").text
    (entry,) = ask("status", "--json").json["tenants"]
    assert entry["next"].startswith(f"register it again: {answer.out.split(';')[0]}")


@pytest.mark.usefixtures("referee")
def test_a_refused_study_is_registered_again_under_its_name(ask: Any) -> None:
    wrong = ("study", "register", "cancer", "--tenant", "lab", "--source", "csv:none.csv", "--target", "y")
    assert ask(*wrong).status == 1
    again = ask(*REGISTER, *SETTINGS, "--request-key", "again", "--json")
    assert (again.status, again.json["answer"]["refused"]) == (0, False)
    (entry,) = ask("status", "--json").json["tenants"]
    assert (entry["study"], entry["state"]) == ("cancer", "ACTIVE")
    assert ask("study", "show", "cancer", "--json").json["columns"] is not None
    assert ask(*REGISTER, *SETTINGS).status == 2  # the name is taken now


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (["a\n\x1b[2J", *map(str, range(1, 20))], "columns: a \\x1b[2J, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, "),
        (None, "columns: 20; their names were not kept"),
    ],
)
def test_columns_take_one_line_whatever_their_names(
    columns: list[str] | None, line: str, ask: Any, make_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study("cancer", candidates=CANDIDATES)
    found = StudyColumns(features=20, columns=columns, classes=["no", "yes"])
    monkeypatch.setattr("easeml_core.services.studies.columns.study_columns", lambda *_: found)
    shown = [part for part in ask("study", "show", "cancer").out.splitlines() if part.startswith("columns:")]
    assert len(shown) == 1
    assert shown[0].startswith(line)
    assert "more" not in shown[0]


def test_without_waiting_the_request_is_reported(ask: Any, recorded: Any) -> None:
    recorded(ask(*REGISTER, *SETTINGS, "--no-wait").out, "study_register_without_waiting")


def test_without_a_referee_the_waiting_ends_with_a_hint(ask: Any) -> None:
    answer = ask(*REGISTER, *SETTINGS, "--timeout", "0.3")
    assert answer.status == 2
    assert ("request 1 within 0.3 s" in answer.err, "no referee runs" in answer.err) == (True, True)


def test_the_referee_answers_what_there_is(run: Any, ask: Any, database: Any, artifacts: Any) -> None:
    ask(*REGISTER, *SETTINGS, "--no-wait")
    once = (
        "referee",
        "--once",
        "--answer-delay",
        "0",
        "--database",
        database.url("easeml_referee"),
        "--artifacts",
        str(artifacts.root),
    )
    assert run(*once).text == "1 request answered"
    assert run(*once, "--json").json == {"answered": 0}
    assert ask("study", "list", "--json").json[0]["state"] == "ACTIVE"


def test_pause_and_resume(ask: Any, make_study: Any) -> None:
    make_study("cancer", candidates=CANDIDATES)
    assert ask("study", "pause", "cancer").text == "cancer is PAUSED"
    assert ask("study", "resume", "cancer", "--json").json == {"study": "cancer", "state": "ACTIVE"}


def test_a_trial_is_shown_and_cancelled(ask: Any, trial: int) -> None:
    shown = ask("trial", "show", str(trial), "--json").json
    assert (shown["candidate"], shown["state"], shown["quality"]) == ("tree", "SUGGESTED", None)
    text = ask("trial", "cancel", str(trial)).text
    assert "state CANCELLED" in text
    assert "quality -" in text
    assert ask("trial", "cancel", str(trial), "--json").json["state"] == "CANCELLED"
    assert ask("study", "show", "cancer", "--json").json["trials"][0]["state"] == "CANCELLED"


def test_alerts_are_listed_and_cleared(ask: Any, trial: int, database: Any, artifacts: Any, tmp_path: Any) -> None:
    assert ask("alerts", "cancer", "--json").json == []
    # A model that is wrong on 4 of 10 validation rows (the split is random), and then on all that come: a gap near 0.6.
    (tmp_path / "model").write_text('{"label": 1}')
    result = TrainingResult(0.6, 1.0, tmp_path / "model", "constant", np.ones(85, dtype=np.int64))
    record_success(database.worker, artifacts, claim(database.worker, trial_id=trial, request_key="w"), result)
    with contextlib.closing(database.server.connect(database=database.name)) as opened, opened.cursor() as cursor:
        meter_set = "(SELECT id FROM work.test_sets WHERE purpose = 'meter')"
        cursor.execute(
            f"UPDATE sealed.test_sets SET labels = %s WHERE id = {meter_set}", [pack(np.zeros(56, dtype=np.int64))]
        )
    file_meter_request(database.worker, study="cancer", request_key="m")
    Referee(database.referee, artifacts).answer_one()

    assert "cancer: overfitting signal 2 of 3" in ask("alerts", "cancer").text
    (alert,) = ask("alerts", "cancer", "--json").json
    assert "alert: cancer: overfitting signal 2 of 3" in ask("study", "show", "cancer").text
    assert "2 of 3" in ask("status").text
    assert ask("alerts", "cancer", "--clear", str(alert["alert_id"])).status == 0
    assert ask("alerts", "cancer", "--json").json == []
    answer = ask("alerts", "cancer", "--clear", str(alert["alert_id"]))
    assert (answer.status, "no open alert" in answer.err) == (2, True)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("study", "show", "fool"), "study 'fool'; register"),
        (("study", "pause", "fool"), "study 'fool'"),
        (("alerts", "fool"), "study 'fool'"),
        (("trial", "show", "99"), "trial 99; list"),
        (("trial", "cancel", "99"), "no trial 99"),
        ((*REGISTER, "--gate", '{"condition": "n - o > 0.02"}'), "expected a tolerance"),
        ((*REGISTER, "--gate", "{condition}"), "got '{condition}'"),
        ((*REGISTER, "--gate", "[1]"), "gate must be"),
        ((*REGISTER, "--meter", '{"tolerance": "small"}'), "got 'small'"),
        ((*REGISTER, "--training", '{"max_attempts": 0}'), "max_attempts must"),
        ((*REGISTER, "--weight", "0"), "weight must"),
        ((*REGISTER[:-1], "sklearn:moon"), "allowed: sklearn:digits"),
        (("study", "register", "My Study", *REGISTER[3:]), "1 to 63 of a-z"),
    ],
)
def test_bad_input_is_an_error_with_what_is_allowed(asked: tuple[str, ...], words: str, ask: Any) -> None:
    answer = ask(*asked)
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith("easeml: ")
    assert words in answer.err
    assert "Traceback" not in answer.err
