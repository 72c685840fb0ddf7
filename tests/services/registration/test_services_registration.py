"""Registering a study: what is refused and with which words, and that a repeated call changes nothing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from registering import register_study

from easeml_core.entities import StudyState
from easeml_core.errors import (
    AlreadyExistsError,
    ConditionSyntaxError,
    ConfigError,
    InvalidInputError,
    NotFoundError,
    StateError,
)
from easeml_core.gate.condition import parse_condition
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.register import StudyStateReport, pause_study, study_settings
from easeml_core.training.trainers import TRAINERS

IRIS = {"tenant": "lab", "study": "iris", "source": "sklearn:iris", "request_key": "night/1"}

# What is wrong, and what the message must say: the value, what is allowed, and where it helps what to do.
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = {
    "unknown source": ({"source": "sklearn:moon"}, InvalidInputError, ("'sklearn:moon'", "sklearn:digits", "csv:")),
    "source without its target": ({"source": "csv:/data/a.csv"}, InvalidInputError, ("needs a target", "column")),
    "no candidates": ({"candidates": []}, InvalidInputError, ("at least one candidate", "nearest_centroid")),
    "unknown kind": (
        {"candidates": [{"name": "a", "kind": "forest"}]},
        InvalidInputError,
        ("'forest'", *TRAINERS),
    ),
    "candidate without a name": ({"candidates": [{"kind": "decision_tree"}]}, InvalidInputError, ("name, kind",)),
    "two candidates of one name": (
        {"candidates": [{"name": "a", "kind": "decision_tree"}, {"name": "a", "kind": "nearest_centroid"}]},
        InvalidInputError,
        ("'a'", "two candidates"),
    ),
    "parameter out of range": (
        {"candidates": [{"name": "a", "kind": "decision_tree", "parameters": {"max_depth": 0}}]},
        ConfigError,
        ("max_depth", "1 to 1,000", "got 0"),
    ),
    "weight zero": ({"weight": 0}, ConfigError, ("weight", ">= 1e-6 and <= 1e6", "got 0")),
    "weight negative": ({"weight": -2.0}, ConfigError, ("weight", ">= 1e-6 and <= 1e6", "got -2.0")),
    "weight NaN": ({"weight": float("nan")}, ConfigError, ("weight", ">= 1e-6 and <= 1e6", "got nan")),
    "weight infinite": ({"weight": float("inf")}, ConfigError, ("weight", ">= 1e-6 and <= 1e6", "got inf")),
    "weight as a word": ({"weight": "high"}, ConfigError, ("weight", ">= 1e-6 and <= 1e6", "got 'high'")),
    "budget zero": ({"budget_seconds": 0}, ConfigError, ("budget_seconds", "> 0", "None for no limit")),
    "budget NaN": ({"budget_seconds": float("nan")}, ConfigError, ("budget_seconds", "got nan")),
    "unknown metric": ({"metric": "precision"}, NotFoundError, ("'precision'", "'accuracy'", "module:function")),
    "numbers without a tolerance": ({"metric": "rmse"}, InvalidInputError, ("within:T", "unit of the target")),
    "study's name": ({"study": "My Study"}, InvalidInputError, ("study must be", "1 to 63 of a-z", "'My Study'")),
    "tenant's name": ({"tenant": "Lab 1"}, InvalidInputError, ("tenant must be", "1 to 63 of a-z", "'Lab 1'")),
    "no request key": ({"request_key": ""}, InvalidInputError, ("request_key", "repeatable")),
    "reliability": ({"gate": {"reliability": 1.5}}, ConfigError, ("reliability", "> 0 and < 1", "got 1.5")),
    "adaptivity": ({"gate": {"adaptivity": "some"}}, ConfigError, ("none, full, firstChange", "got 'some'")),
    "mode": ({"gate": {"mode": "free"}}, ConfigError, ("fp-free, fn-free", "got 'free'")),
    "steps": ({"gate": {"steps": 0}}, ConfigError, ("steps", "whole number", "got 0")),
    "unknown setting": ({"gate": {"conditon": "n > 0.5 +/- 0.1"}}, InvalidInputError, ("conditon", "known: adap")),
    "setting as a word": ({"gate": {"reliability": "0.9"}}, ConfigError, ("reliability must be > 0 and < 1", "'0.9'")),
    "settings as a list": ({"meter": [0.2, 0.6]}, InvalidInputError, ("meter must be a mapping", "'ranges'")),
    "ranges as a number": ({"meter": {"ranges": 0.2}}, ConfigError, ("ranges must be rising boundaries", "got 0.2")),
    "falling ranges": ({"meter": {"ranges": [0.6, 0.2]}}, ConfigError, ("rising boundaries", "(0.6, 0.2)")),
    "tolerance": ({"meter": {"tolerance": 1.5}}, ConfigError, ("tolerance", ">= 1e-9 and < 1", "got 1.5")),
    "time limit": ({"training": {"time_limit_seconds": 0}}, ConfigError, ("time_limit_seconds", "> 0", "got 0")),
    "endless time": ({"training": {"time_limit_seconds": 1e300}}, ConfigError, ("time_limit_seconds", "<= 1e8")),
    "endless lease": ({"training": {"lease_seconds": 1e300}}, ConfigError, ("lease_seconds", "<= 1e8")),
    "name with an escape": (
        {"candidates": [{"name": "\x1b[2J", "kind": "decision_tree"}]},
        InvalidInputError,
        ("candidate's name", "control characters"),
    ),
    "half an attempt": ({"training": {"max_attempts": 2.5}}, ConfigError, ("max_attempts", "whole", "got 2.5")),
    "attempts as a truth value": ({"training": {"max_attempts": True}}, ConfigError, ("max_attempts", "got True")),
    "seed as a word": ({"training": {"seed": "lucky"}}, ConfigError, ("seed", "whole", "got 'lucky'")),
}


def no_row(lab: Any) -> bool:
    tables = ("tenants", "data_sets", "studies", "candidates", "requests")
    return all(lab.one(f"SELECT count(*) FROM work.{table}") == 0 for table in tables)


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_is_refused_with_what_was_wrong_and_what_is_allowed(what: str, bare: Any) -> None:
    changes, error, words = REFUSED[what]
    with pytest.raises(error) as caught:
        register_study(bare.worker, **IRIS | changes)
    for word in words:
        assert word in str(caught.value)
    assert no_row(bare)


def test_a_typo_in_a_condition_is_pointed_at(bare: Any) -> None:
    with pytest.raises(ConditionSyntaxError) as caught:
        register_study(bare.worker, **IRIS, gate={"condition": "n - o > 0.02 +- 0.01"})
    _, line, caret = str(caught.value).splitlines()
    assert line.strip() == "n - o > 0.02 +- 0.01"
    assert caret.index("^") == line.index("0.02") + len("0.02")  # where the tolerance was expected
    assert no_row(bare)


def test_what_is_stored_is_complete_and_canonical(bare: Any) -> None:
    gate = {"condition": "n-o>0.05+/-0.1", "steps": 2}
    filed = register_study(bare.worker, **IRIS, gate=gate, weight=2.5, budget_seconds=60.0)
    stored = bare.one("SELECT config FROM work.studies")
    settings = study_settings(gate=gate, meter=None, training=None) | {"split": "rows", "grid": "one"}
    assert stored == json.loads(json.dumps(settings))
    assert stored["gate"]["condition"] == str(parse_condition("n - o > 0.05 +/- 0.1"))
    assert bare.rows("SELECT weight, budget_seconds, state FROM work.studies") == [(2.5, 60.0, "REGISTERED")]
    assert answer_of(bare.worker, filed.request_id) is None  # the referee has not answered yet


def test_the_same_key_gives_the_same_study(bare: Any) -> None:
    first = register_study(bare.worker, **IRIS)
    assert register_study(bare.worker, **IRIS) == first
    assert bare.one("SELECT count(*) FROM work.studies") == bare.one("SELECT count(*) FROM work.requests") == 1


def test_a_repetition_adds_no_candidate(bare: Any) -> None:
    register_study(bare.worker, **IRIS, candidates=[{"name": "a", "kind": "decision_tree"}])
    register_study(bare.worker, **IRIS, candidates=[{"name": "b", "kind": "decision_tree"}])
    assert bare.rows("SELECT name FROM work.candidates") == [("a",)]


def test_a_name_that_another_request_has_taken_is_refused(bare: Any) -> None:
    register_study(bare.worker, **IRIS)
    with pytest.raises(AlreadyExistsError) as refused:
        register_study(bare.worker, **IRIS | {"request_key": "night/2", "tenant": "other"})
    assert (refused.value.kind, refused.value.name) == ("study", "iris")
    assert bare.rows("SELECT name FROM work.tenants") == [("lab",)]


def test_a_key_that_made_another_study_is_refused(bare: Any) -> None:
    register_study(bare.worker, **IRIS)
    with pytest.raises(InvalidInputError, match="'iris', not 'wine'"):
        register_study(bare.worker, **IRIS | {"study": "wine", "tenant": "other"})
    assert bare.rows("SELECT name FROM work.tenants") == [("lab",)]


def test_eight_simultaneous_repetitions_make_one_study(bare: Any) -> None:
    together = Barrier(8)

    def register(_: int) -> Any:
        together.wait()
        return register_study(bare.worker, **IRIS)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(register, range(8)))
    assert answers == [answers[0]] * 8
    assert bare.one("SELECT count(*) FROM work.requests") == 1


def test_pause_and_resume_may_be_repeated(lab: Any) -> None:
    for _ in range(2):
        assert pause_study(lab.worker, study="full", paused=True) == StudyStateReport("full", StudyState.PAUSED)
    for _ in range(2):
        assert pause_study(lab.worker, study="full", paused=False) == StudyStateReport("full", StudyState.ACTIVE)


def test_only_a_study_with_sealed_data_can_be_paused(bare: Any) -> None:
    register_study(bare.worker, **IRIS)
    with pytest.raises(StateError, match=r"'iris' is REGISTERED.*can be paused; `easeml"):
        pause_study(bare.worker, study="iris", paused=True)


def test_an_unknown_study_is_reported_with_those_there_are(lab: Any) -> None:
    with pytest.raises(NotFoundError) as refused:
        pause_study(lab.worker, study="ful", paused=True)
    assert (refused.value.name, refused.value.known) == ("ful", ["first", "full", "hidden"])
