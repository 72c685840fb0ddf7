"""What a mapped task asks once it was cleared and its places have other studies and models than before."""

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from task_doubles import context

from easeml_airflow import operators
from easeml_core.services.models.submission import submit_model
from easeml_core.services.referee.requests import file_forced_promotion, file_gate_request
from easeml_core.store.tables import models, studies


def asked(task_id, place, operator):
    """The request that the operator waits for in this place of its mapped task."""
    given = context(task_id, dag_id="nightly", run_id="scheduled__1", map_index=place)
    with pytest.raises(TaskDeferred):
        operator.execute(given)
    return given["ti"].pushed["request_id"]


@pytest.fixture
def model(connected, make_study, monkeypatch):
    """Two studies; the number of the model that each begins with."""
    monkeypatch.setenv("AIRFLOW__EASEML__ANSWER_WAIT_SECONDS", "0")
    found = {}
    for name in ("first", "second"):
        make_study(name)
        with connected.worker.begin() as tx:
            found[name] = models.baseline_model(tx, studies.get_study(tx, name).id).id
    return found


@pytest.fixture
def hand_in(connected, artifacts, tmp_path):
    """Hand another model of a study in; its number."""

    def give(study):
        path = tmp_path / "model.json"
        path.write_text('{"label": 1}')
        told = {"format": "constant", "message": "a test", "request_key": f"hand in/{study}"}
        return submit_model(connected.worker, artifacts, study=study, path=path, **told).model_id

    return give


MAPPED = {
    "gate": lambda study, model: operators.GateOperator(task_id="t", study=study, model_id=model[study]),
    "meter": lambda study, model: operators.MeterOperator(task_id="t", study=study, model_id=str(model[study])),
    "promote": lambda study, model: operators.PromoteModelOperator(
        task_id="t", study=study, model_id=model[study], gate_request_id=model[study]
    ),
    "refresh": lambda study, model: operators.RefineOperator(task_id="t", study=study),
}


@pytest.mark.parametrize("name", MAPPED)
def test_a_place_that_has_another_study_now_asks_about_that_one_and_each_try_finds_its_request(model, name):
    """As after clearing `best_models` of a night: the study that was promoted is no longer in the list."""

    def ask(place, study):
        return asked(name, place, MAPPED[name](study, model))

    first, second = ask(0, "first"), ask(1, "second")
    moved = ask(0, "second")
    assert moved not in (first, second)
    assert [ask(0, "second"), ask(0, "first"), ask(1, "second")] == [moved, first, second]


def test_a_place_whose_study_has_a_better_model_now_asks_about_that_one(model, connected, hand_in):
    def ask(number):
        return asked("gate", 0, operators.GateOperator(task_id="t", study="first", model_id=number))

    before, better = ask(model["first"]), ask(hand_in("first"))
    assert better != before
    assert ask(model["first"]) == before


def test_a_question_about_the_same_model_that_has_changed_is_not_asked_beside_the_first(model):
    """As where a template has another value at the next try: each answer would use a step of the sealed set."""

    def ask(**given):
        return asked("gate", 0, operators.GateOperator(task_id="t", study="first", model_id=model["first"], **given))

    ask()
    with pytest.raises(AirflowFailException, match="was used for another request; use a new key, in Airflow a new run"):
        ask(condition="n > 0.3 +/- 0.2")


def test_a_rollback_is_not_asked_for_once_more_under_another_key(model, connected, hand_in):
    """The second one would go back one model further."""

    def roll_back(place, study):
        return asked("back", place, operators.RollbackModelOperator(task_id="t", study=study, why="slow"))

    for study in ("first", "second"):
        for number in (model[study], hand_in(study)):
            told = {"who": "ann", "why": "a test", "request_key": f"{study}/{number}", "directly": True}
            file_forced_promotion(connected.referee, study=study, model_id=number, **told)
    roll_back(0, "first")
    roll_back(1, "second")
    with pytest.raises(AirflowFailException, match="was used for another request"):
        roll_back(0, "second")


def test_what_an_earlier_version_has_asked_is_found(model, connected):
    key = "nightly/scheduled__1/gate/0"
    filed = file_gate_request(connected.worker, study="first", model_id=model["first"], request_key=key)
    assert asked("gate", 0, operators.GateOperator(task_id="t", study="first")) == filed
