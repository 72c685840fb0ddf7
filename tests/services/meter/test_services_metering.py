"""The meter: measured by the referee alone, alerts when the budget is exceeded, retires before it must guess."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from registering import register_study
from scipy.stats import beta
from sklearn.tree import DecisionTreeClassifier

from easeml_core.errors import NotFoundError, StateError
from easeml_core.formats.encoding import to_json
from easeml_core.models.formats import load_predictor, save_model
from easeml_core.models.skops_format import PipelinePredictor
from easeml_core.services.meter.alerts import ClearedAlert, clear_alert, next_alert, open_alerts
from easeml_core.services.referee.requests import file_meter_request
from easeml_core.services.reports.overview import live_sets, overview
from easeml_core.store.tables import requests, sealed

METER_SET = 2  # of the study "full"; its gate set is 1
NO_SET = "study 'full' has no live meter set; the referee must seal a new one"


RETIRED = "the sealed set is retired"
"""What a submitter reads when the meter ends, whatever the cause: a cause would say something of sealed rows."""


def ledger(lab: Any) -> list[Any]:
    return lab.rows("SELECT step, answer, log_level, log_cost, tolerance FROM sealed.ledger ORDER BY step")


def report(lab: Any) -> dict[str, Any]:
    return lab.one("SELECT report FROM sealed.ledger ORDER BY id DESC LIMIT 1")


def constant(lab: Any, folder: Any, label: int, *, blanks: int = 0, study: str = "full", loss: float = 0.5) -> int:
    """A model that always answers one label; blanks make another file of the same model."""
    path = folder / f"always-{label}-{blanks}"
    path.write_text(f'{{"label": {label}}}' + " " * blanks)
    return lab.hand_in(study, path.name, path, kind="constant", loss=loss)


@pytest.fixture
def memoriser(lab: Any, tmp_path: Any) -> int:
    """A tree that was shown the validation set and the opposite of the truth everywhere else."""
    parts = lab.open_parts()
    inputs = np.concatenate([parts.train_inputs, parts.validation_inputs])
    labels = np.concatenate([1 - parts.train_labels, parts.validation_labels])
    from sklearn.pipeline import make_pipeline

    tree = make_pipeline(DecisionTreeClassifier(random_state=0)).fit(inputs, labels)
    save_model(PipelinePredictor(tree), tmp_path / "memoriser")
    return lab.hand_in("full", "memoriser", tmp_path / "memoriser", kind="skops", loss=0.0)


@pytest.fixture
def flattered(lab: Any, tmp_path: Any) -> int:
    """A model whose class fills the sealed set no more: often right on the validation set, wrong on what came."""
    majority = int(np.bincount(lab.open_parts().train_labels).argmax())
    lab.relabel(METER_SET, lambda labels: np.full_like(labels, 1 - majority))
    return constant(lab, tmp_path, majority, blanks=1)


@pytest.fixture
def also_flattered(lab: Any, flattered: int, tmp_path: Any) -> int:
    """Another artifact that does the same."""
    majority = int(np.bincount(lab.open_parts().train_labels).argmax())
    return constant(lab, tmp_path, majority, blanks=2)


@pytest.fixture
def crash(lab: Any) -> Any:
    """Makes a model one that cannot be run on the sealed inputs alone, and the set one of another method."""

    def made(name: str, *, method: str) -> None:
        lab.as_superuser(
            "UPDATE work.test_sets SET plan = plan || jsonb_build_object('method', %s::text) WHERE id = %s",
            method,
            METER_SET,
        )
        model = "SELECT format || ' ' || artifact FROM work.models WHERE id = :id"
        lab.as_superuser(
            "UPDATE sealed.predictions SET labels = NULL, failure = 'it crashed' WHERE test_set_id = %s AND model = %s",
            METER_SET,
            lab.one(model, id=lab.models["full"][name]),
        )

    return made


def test_an_honest_model_stays_in_the_first_range_as_measured(lab: Any) -> None:
    answer = lab.meter("good")
    assert to_json(answer) == {
        "request_id": answer.request_id,
        "kind": "meter",
        "study": "full",
        "model_id": lab.models["full"]["good"],
        "refused": False,
        "message": "signal 1 of 3",
        "signal": 1,
        "signals": 3,
        "boundaries": [0.2, 0.6],
        "tolerance": 0.2,
        "submissions_left": 3,
        "retired": False,
        "cached": False,
        "alert": None,
        "direct_signal": None,
        "drift": None,
        "meaning": answer.meaning,
        "sentence": None,
        "reliability": 0.9,
    }
    assert "at most 0.2 (+/- 0.2)" in answer.meaning
    assert open_alerts(lab.worker, study="full") == []
    # And this is what the referee measured:
    ((artifact, kind),) = lab.rows("SELECT artifact, format FROM work.models WHERE id = 2")
    model, parts = load_predictor(lab.artifacts.path(artifact), kind), lab.open_parts()
    with lab.referee.begin() as tx:
        inputs, labels = sealed.sealed_inputs(tx, METER_SET), sealed.sealed_labels(tx, METER_SET)
    errors = int(np.sum(model.predict(inputs) != labels))
    loss = float(np.mean(model.predict(parts.validation_inputs) != parts.validation_labels))
    read = report(lab)
    assert (read["errors"], read["signal"], read["failure"]) == (errors, 1, None)
    assert read["validation_loss"] == pytest.approx(loss, abs=1e-12)
    assert read["gap"] == pytest.approx(errors / len(labels) - loss, abs=1e-12)
    # Clopper-Pearson at level (1 - reliability) / steps, half a side, from another library.
    side, n = 0.1 / 4 / 2, len(labels)
    assert read["low"] == pytest.approx(beta.ppf(side, errors, n - errors + 1) if errors else 0.0, rel=1e-6)
    assert read["high"] == pytest.approx(beta.ppf(1 - side, errors + 1, n - errors), rel=1e-6)


def test_a_loss_that_a_worker_made_up_is_not_believed(lab: Any, tmp_path: Any) -> None:
    parts = lab.open_parts()
    rare = int(np.bincount(parts.train_labels).argmin())
    answer = lab.meter(constant(lab, tmp_path, rare, blanks=1, loss=0.0))  # with the claim, its gap would be 0.6
    assert answer.signal == 1
    assert report(lab)["validation_loss"] == pytest.approx(float(np.mean(parts.validation_labels != rare)), abs=1e-12)


@pytest.mark.journey
def test_a_model_that_memorised_the_validation_set_raises_the_alert(lab: Any, memoriser: int) -> None:
    answer = lab.meter(memoriser)
    read = report(lab)
    assert read["validation_loss"] == 0
    assert read["gap"] > 0.4  # right on all validation rows, wrong on most others
    signal = 1 + sum(read["gap"] > boundary for boundary in (0.2, 0.6))
    assert (answer.signal, answer.refused) == (signal, False)
    assert answer.alert.startswith(f"full: overfitting signal {signal} of 3 ")
    assert "validation set" in answer.alert.split(";")[1]  # and what to do
    (alert,) = open_alerts(lab.worker, study="full")
    assert (alert.message, alert.signal, alert.model_id) == (answer.alert, signal, memoriser)
    entry = next(e for e in overview(lab.worker).tenants if e.study == "full")
    assert (entry.signal, entry.open_alerts) == (signal, 1)
    assert (entry.alert_kind, entry.next.startswith("read the alert: ")) == ("overfitting", True)
    assert live_sets(lab.worker, study="full") == ["gate", "meter"]  # an alert ends no set


def test_a_sensor_finds_each_alert_once_and_loses_none_that_was_cleared(
    lab: Any, flattered: int, also_flattered: int
) -> None:
    assert next_alert(lab.worker, study="full") is None
    for model in (flattered, also_flattered):
        lab.meter(model)
    first, second = open_alerts(lab.worker, study=None)
    assert open_alerts(lab.worker, study="full") == [first, second]
    assert next_alert(lab.worker, study="full") == next_alert(lab.worker, study=None) == first
    assert next_alert(lab.worker, study="full", after_id=first.alert_id) == second
    assert next_alert(lab.worker, study="full", after_id=second.alert_id) is None
    assert next_alert(lab.worker, study="first") is None
    one, two = first.alert_id, second.alert_id
    with pytest.raises(NotFoundError):
        clear_alert(lab.worker, study="first", alert_id=one)
    assert clear_alert(lab.worker, study="full", alert_id=two) == ClearedAlert(two, cleared=True)
    assert [a.alert_id for a in open_alerts(lab.worker, study="full")] == [one]
    late = next_alert(lab.worker, study="full", after_id=one)
    assert late.alert_id == two  # clearing it early hides it from no listener
    assert late.cleared_at is not None
    with pytest.raises(NotFoundError) as refused:
        clear_alert(lab.worker, study="full", alert_id=two)
    assert (refused.value.name, refused.value.known) == (two, [str(one)])


def test_an_answer_shows_the_alert_of_its_own_reading_alone(lab: Any, flattered: int, tmp_path: Any) -> None:
    right = constant(lab, tmp_path, int(np.bincount(lab.open_parts().train_labels).argmin()), blanks=2)
    alert = lab.meter(flattered, request_key="over").alert
    assert lab.meter(right, request_key="within").alert is None
    with lab.worker.begin() as tx:
        filed = requests.filed_requests(tx, ["over", "within"])
    assert {request.request_key: request.alert for request in filed} == {"over": alert, "within": None}


def test_the_same_artifact_raises_no_second_alert(lab: Any, flattered: int) -> None:
    answers = [lab.meter(flattered, request_key=f"night/{night}") for night in (1, 2)]
    (alert,) = open_alerts(lab.worker, study=None)
    assert [answer.alert for answer in answers] == [alert.message] * 2  # in every answer, and filed once
    assert [answer.cached for answer in answers] == [False, True]
    clear_alert(lab.worker, study="full", alert_id=alert.alert_id)
    lab.meter(flattered, request_key="night/3")
    assert open_alerts(lab.worker, study=None) == []


def test_a_larger_budget_raises_no_alert(lab: Any, flattered: int) -> None:
    lab.as_superuser("UPDATE work.test_sets SET plan = plan || '{\"overfitting_budget\": 3}' WHERE id = 2")
    answer = lab.meter(flattered)
    assert (answer.signal > 1, answer.alert) == (True, None)
    assert open_alerts(lab.worker, study="full") == []


def test_the_same_artifact_is_answered_from_the_ledger(lab: Any, tmp_path: Any) -> None:
    first = lab.meter(constant(lab, tmp_path, 0, blanks=1))
    file = lab.artifacts.path(lab.one("SELECT artifact FROM work.models WHERE id = :id", id=first.model_id))
    twin = lab.hand_in("full", "twin", file, kind="constant", loss=0.1)
    for model in (first.model_id, twin):
        again = lab.meter(model)
        assert (again.signal, again.submissions_left, again.cached) == (first.signal, 3, True)
    assert len(ledger(lab)) == 1
    equal = lab.meter(constant(lab, tmp_path, 0, blanks=2))  # equal predictions of another artifact
    assert (equal.submissions_left, equal.cached, len(ledger(lab))) == (2, False, 2)


def test_every_ambiguous_answer_is_paid_for_by_the_next_level(lab: Any, tmp_path: Any) -> None:
    for blanks in (1, 2, 3):
        lab.meter(constant(lab, tmp_path, 0, blanks=blanks))
    entries, paid = ledger(lab), 0.0
    for _, answer, log_level, log_cost, tolerance in entries:
        assert answer == "1"
        assert log_level == pytest.approx(math.log(0.1 / 4) - paid, rel=1e-12)
        assert log_cost == pytest.approx(math.log(2), rel=1e-12)  # close to the boundary 0.2: one of two ranges
        assert tolerance <= 0.2
        paid += log_cost


def test_a_set_that_has_served_is_retired(lab: Any, tmp_path: Any) -> None:
    left = [lab.meter(constant(lab, tmp_path, 0, blanks=b)).submissions_left for b in range(1, 5)]
    assert left == [3, 2, 1, 0]
    assert live_sets(lab.worker, study="full") == ["gate"]
    answer = lab.meter(constant(lab, tmp_path, 0, blanks=5))
    assert (answer.refused, answer.message) == (True, NO_SET)
    assert not hasattr(answer, "signal")


def test_a_set_retires_before_an_answer_would_need_more_than_its_tolerance(lab: Any, tmp_path: Any) -> None:
    # Planned for no ambiguous answer, and each answer of these models is: they lie beside the boundary.
    meter = {"ranges": (0.1, 0.9), "tolerance": 0.19, "reliability": 0.9, "steps": 4, "ambiguous": 0}
    lab.register("tight", meter=meter)
    answers = []
    while not answers or answers[-1].signal is not None:
        answers.append(lab.meter(constant(lab, tmp_path, 0, blanks=len(answers), study="tight"), "tight"))
    last = answers[-1]
    assert len(answers) < 4  # before the steps were used up
    assert (last.retired, last.signal) == (True, None)
    assert last.message == RETIRED
    assert last.alert is None  # no budget is broken; what is needed is a new set
    (alert,) = open_alerts(lab.worker, study="tight")
    assert (alert.kind, alert.over_budget, alert.purpose) == ("new-test-set", None, "meter")
    assert "its promise would" in alert.message
    assert live_sets(lab.worker, study="tight") == ["gate"]
    assert ledger(lab)[-1][1] == "retired"
    assert ledger(lab)[-1][4] > 0.19  # what it would have needed; for the referee
    entry = next(e for e in overview(lab.worker).tenants if e.study == "tight")
    assert (entry.meter_retired, "new meter set" in entry.next) == (True, True)


def test_a_model_that_cannot_be_run_on_open_data_is_refused_and_spends_nothing(lab: Any, tmp_path: Any) -> None:
    (tmp_path / "broken").write_text("no model at all")
    broken = lab.hand_in("full", "broken", tmp_path / "broken", kind="constant", loss=0.0)
    answer = lab.meter(broken)
    assert answer.refused
    assert f"model {broken} cannot be run" in answer.message
    assert ledger(lab) == []


@pytest.mark.parametrize("method", ["path-adaptive", "pruned", "dithered"])
def test_a_model_that_fails_on_sealed_inputs_alone_ends_the_set(lab: Any, crash: Any, method: str) -> None:
    """Whether it runs may be any function of the sealed inputs: free of charge, 32 such submissions would fool it."""
    crash("good", method=method)
    answer = lab.meter("good")
    assert (answer.signal, answer.retired, answer.message) == (None, True, RETIRED)
    read = report(lab)
    assert (read["errors"], read["failure"], read["why"]) == (56, "it crashed", "failure")
    assert lab.one("SELECT retired_why FROM work.test_sets WHERE id = :id", id=METER_SET) == "failure"
    (alert,) = open_alerts(lab.worker, study="full")
    assert (alert.kind, "could not be" in alert.message) == ("new-test-set", True)


def test_a_meter_that_counts_all_histories_takes_it_to_be_wrong_everywhere(lab: Any, crash: Any) -> None:
    crash("good", method="full")
    assert lab.meter("good").signal == 3
    read = report(lab)
    assert (read["errors"], read["failure"]) == (56, "it crashed")


def test_the_meter_spends_nothing_of_the_gates_set(lab: Any, tmp_path: Any) -> None:
    lab.meter(constant(lab, tmp_path, 0, blanks=1))
    assert lab.gate("good").step == 1
    assert lab.rows("SELECT test_set_id, count(*) FROM sealed.ledger GROUP BY 1 ORDER BY 1") == [(1, 1), (2, 1)]


def test_a_repeated_request_is_the_same_reading(lab: Any, tmp_path: Any) -> None:
    model = constant(lab, tmp_path, 0, blanks=1)
    assert lab.meter(model, request_key="night/1") == lab.meter(model, request_key="night/1")
    assert lab.one("SELECT count(*) FROM work.meter_readings") == 1


def test_bad_input_is_refused_before_it_is_filed(lab: Any, bare: Any) -> None:
    with pytest.raises(NotFoundError, match="study 'fool'"):
        file_meter_request(lab.worker, study="fool", request_key="k")
    with pytest.raises(NotFoundError, match="with id 99"):
        file_meter_request(lab.worker, study="full", model_id=99, request_key="k")
    register_study(bare.worker, tenant="lab", study="iris", source="sklearn:iris", request_key="k")
    with pytest.raises(StateError, match="'iris' has no"):
        file_meter_request(bare.worker, study="iris", request_key="m")
