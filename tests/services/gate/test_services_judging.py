"""The gate: verdicts on real models, what a step costs, what is refused for nothing, when a set retires."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from registering import register_study
from scipy.stats import binomtest
from sklearn.naive_bayes import GaussianNB

from easeml_core.errors import ConditionSyntaxError, ConfigError, InvalidInputError, NotFoundError, StateError
from easeml_core.formats.encoding import to_json
from easeml_core.models.formats import load_predictor
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.services.reports.overview import live_sets
from easeml_core.store.tables import sealed

NO_SET = "study 'full' has no live gate set; the referee must seal a new one"


def ledger(lab: Any, study: str = "full") -> list[tuple[int, str, str]]:
    """Step, released answer and true symbol of the study's entries."""
    return lab.rows(
        "SELECT l.step, l.answer, l.report ->> 'symbol' FROM sealed.ledger l JOIN work.test_sets t ON "
        "t.id = l.test_set_id JOIN work.studies s ON s.id = t.study_id WHERE s.name = :study ORDER BY l.step",
        study=study,
    )


def report(lab: Any) -> dict[str, Any]:
    """The referee's report on the last answer."""
    return lab.one("SELECT report FROM sealed.ledger ORDER BY id DESC LIMIT 1")


def predictions(lab: Any, model_id: int) -> np.ndarray:
    """The model's predictions on the sealed gate set of the study ``full``, computed here."""
    ((artifact, kind),) = lab.rows("SELECT artifact, format FROM work.models WHERE id = :id", id=model_id)
    with lab.referee.begin() as tx:
        inputs = sealed.sealed_inputs(tx, 1)
    return load_predictor(lab.artifacts.path(artifact), kind).predict(inputs)


def constant(lab: Any, path: Any, text: str, study: str = "full") -> int:
    """Hand in a file as a model of the format ``constant``."""
    path.write_text(text)
    return lab.hand_in(study, path.name, path, kind="constant", loss=0.4)


def test_a_better_model_passes_and_the_developer_learns_one_symbol(lab: Any) -> None:
    answer = lab.gate("good", condition=None)
    assert to_json(answer) == {
        "request_id": answer.request_id,
        "kind": "gate",
        "study": "full",
        "model_id": lab.models["full"]["good"],
        "refused": False,
        "message": "step 1 of 3: pass",
        "symbol": "pass",
        "planned": True,
        "step": 1,
        "steps": 3,
        "cached": False,
    }
    assert ledger(lab) == [(1, "pass", "pass")]
    assert lab.rows("SELECT model_id, incumbent_id, step, symbol, cached FROM work.gate_verdicts") == [
        (lab.models["full"]["good"], 1, 1, "pass", False)
    ]


def test_a_worse_model_fails(lab: Any) -> None:
    answer = lab.gate("rare")
    assert (answer.symbol, answer.message) == ("fail", "step 1 of 3: fail")
    assert report(lab)["verdict"] == "FAIL"


def test_the_verdict_is_the_exact_sign_test_at_the_planned_level(lab: Any) -> None:
    lab.gate("good")
    new, old = predictions(lab, lab.models["full"]["good"]), predictions(lab, 1)
    with lab.referee.begin() as tx:
        labels = sealed.sealed_labels(tx, 1)
    wins, losses = int(np.sum((new == labels) & (old != labels))), int(np.sum((new != labels) & (old == labels)))
    (clause,) = report(lab)["clauses"]
    golden = binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue
    assert clause["log_p_pass"] == pytest.approx(math.log(golden), rel=1e-9)
    assert clause["estimate"] == pytest.approx((wins - losses) / len(labels), rel=1e-12)
    assert clause["log_level_pass"] == pytest.approx(math.log(0.1) - 3 * math.log(2), rel=1e-12)  # delta / 2^H


@pytest.mark.parametrize("study", ["first", "hidden"])
def test_without_feedback_of_passes_the_level_is_divided_by_the_steps(study: str, lab: Any) -> None:
    lab.gate("rare", study)
    assert report(lab)["log_level"] == pytest.approx(math.log(0.1 / 3), rel=1e-12)
    assert lab.one("SELECT log_cost FROM sealed.ledger") == 0


@pytest.mark.journey
def test_a_model_that_nobody_ran_yet_is_run_by_the_referee(lab: Any, tmp_path: Any) -> None:
    new = lab.hand_in("full", "new", lab.fit(GaussianNB(), tmp_path / "new"), kind="skops", loss=0.0)
    assert lab.gate(new).symbol == "pass"
    with lab.referee.begin() as tx:
        identity = lab.one("SELECT format || ' ' || artifact FROM work.models WHERE id = :id", id=new)
        kept = sealed.known_predictions(tx, 1, identity)[identity]
    assert kept.failure is None
    assert np.array_equal(kept.labels, predictions(lab, new))


def test_the_same_question_is_answered_from_the_ledger_and_costs_nothing(lab: Any, tmp_path: Any) -> None:
    first = lab.gate("good")
    file = lab.artifacts.path(lab.one("SELECT artifact FROM work.models WHERE id = :id", id=first.model_id))
    twin = lab.hand_in("full", "twin", file, kind="skops", loss=0.5)
    asked = [lab.gate("good"), lab.gate("good", condition="n-o>0+/-0.2", reliability=0.9), lab.gate(twin)]
    assert [(a.symbol, a.step, a.cached) for a in asked] == [("pass", 1, True)] * 3
    assert ledger(lab) == [(1, "pass", "pass")]


def test_another_question_has_an_answer_of_its_own(lab: Any) -> None:
    lab.allow_other_conditions()
    lab.gate("good")
    other = lab.gate("good", condition="n - o > 0.1 +/- 0.2")
    assert (other.step, other.cached) == (1, False)
    assert len(ledger(lab)) == 2


def test_the_same_request_key_is_the_same_request(lab: Any, tmp_path: Any) -> None:
    asked = {"study": "full", "request_key": "night/1"}
    first = file_gate_request(lab.worker, **asked)
    assert lab.answer(first).model_id == lab.models["full"]["good"]  # the best one
    (tmp_path / "better").write_text('{"label": 0}')
    lab.hand_in("full", "better", tmp_path / "better", kind="constant", loss=0.0)
    assert file_gate_request(lab.worker, **asked) == first  # though another model is the best by now
    assert lab.answer_all() == 0
    assert len(ledger(lab)) == 1


def test_a_request_key_asks_about_one_model_only(lab: Any) -> None:
    asked = {"study": "full", "request_key": "night/1"}
    file_gate_request(lab.worker, **asked, model_id=2)
    with pytest.raises(InvalidInputError, match="request key 'night/1' was used for model 2, not 3; use a new key"):
        file_gate_request(lab.worker, **asked, model_id=3)
    with pytest.raises(InvalidInputError, match="request key 'night/1' was used for another request; use a new key"):
        file_gate_request(lab.worker, study="first", request_key="night/1")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"reliability": 0.95}, "reliability must be 0.9, which the sealed set was planned for, got 0.95"),
        ({"adaptivity": "none"}, "adaptivity must be full, which the sealed set was planned for, got 'none'"),
        ({"condition": "n - o > 0 +/- 0.1"}, "the sealed gate set needs at least 1,154 examples, it has 254"),
        ({"condition": "n > 0.9 +/- 0.05"}, "the sealed gate set needs at least 1,016 examples, it has 254"),
        ({"model": 1}, "model 1 is the one that stands now; hand in another one"),
    ],
)
def test_what_was_not_planned_is_refused_and_spends_nothing(asked: Any, words: str, lab: Any) -> None:
    lab.allow_other_conditions(estimator="paper")
    answer = lab.gate(**asked)
    assert answer.refused
    assert words in answer.message
    assert not hasattr(answer, "symbol")
    assert ledger(lab) == lab.rows("SELECT * FROM work.gate_verdicts") == []


def test_the_figure_of_a_refusal_is_the_papers(lab: Any) -> None:
    # Two variables at tolerance 0.1, full adaptivity, one answer about others: 2 (ln 2^(3 + 1) + ln(2 / 0.1)) / 0.1^2;
    # one variable at 0.05.
    assert math.ceil(2 * (4 * math.log(2) + math.log(20)) / 0.1**2) == 1154
    assert math.ceil((4 * math.log(2) + math.log(10)) / (2 * 0.05**2)) == 1016


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"study": "fool"}, NotFoundError, "there is no study 'fool'; known: 'first', 'full', 'hidden'"),
        ({"model_id": 6}, NotFoundError, "there is no model of this study with id 6; known: '1', '2', '3', '4'"),
        ({"reliability": 1.0}, ConfigError, "reliability must be > 0 and < 1, got 1.0"),
        (
            {"adaptivity": "some"},
            ConfigError,
            "adaptivity must be none, full, firstChange, recycle, or upTo:K with a whole number K >= 1, got 'some'",
        ),
        ({"condition": "n - o > 0.1"}, ConditionSyntaxError, "expected a tolerance"),
        ({"condition": ""}, ConditionSyntaxError, "condition"),
    ],
)
def test_bad_input_is_refused_before_it_is_filed(asked: Any, error: Any, words: str, lab: Any) -> None:
    with pytest.raises(error) as caught:
        file_gate_request(lab.worker, **{"study": "full", "request_key": "k"} | asked)
    assert words in str(caught.value)
    assert lab.one("SELECT count(*) FROM work.requests WHERE kind = 'gate'") == 0


def test_a_study_without_a_model_is_asked_to_train_first(bare: Any) -> None:
    register_study(bare.worker, tenant="lab", study="iris", source="sklearn:iris", request_key="k")
    with pytest.raises(StateError, match="study 'iris' has no trained model yet; train one first"):
        file_gate_request(bare.worker, study="iris", request_key="g")


def test_a_set_that_has_served_is_retired(lab: Any) -> None:
    assert [lab.gate(m).step for m in ("rare", "worse", "good")] == [1, 2, 3]
    assert live_sets(lab.worker, study="full") == ["meter"]
    answer = lab.gate("good", condition="n - o > 0.1 +/- 0.2")
    assert (answer.refused, answer.message) == (True, NO_SET)
    assert len(ledger(lab)) == 3


def test_first_change_retires_the_set_at_its_first_pass(lab: Any) -> None:
    assert lab.gate("rare", "first").symbol == "fail"
    assert live_sets(lab.worker, study="first") == ["gate", "meter"]
    assert lab.gate("good", "first").symbol == "pass"
    assert live_sets(lab.worker, study="first") == ["meter"]
    assert lab.gate("worse", "first").message == NO_SET.replace("full", "first")
    assert ledger(lab, "first") == [(1, "fail", "fail"), (2, "pass", "pass")]


def test_none_withholds_every_verdict_but_from_the_referee(lab: Any) -> None:
    answers = [lab.gate(model, "hidden") for model in ("good", "rare")]
    assert [(a.symbol, a.message) for a in answers] == [
        ("withheld", "step 1 of 3: withheld"),
        ("withheld", "step 2 of 3: withheld"),
    ]
    assert ledger(lab, "hidden") == [(1, "withheld", "pass"), (2, "withheld", "fail")]
    assert live_sets(lab.worker, study="hidden") == ["gate", "meter"]  # a pass does not show by its retirement


def test_the_model_in_production_is_what_the_next_one_is_compared_with(lab: Any) -> None:
    passed = lab.gate("good")
    assert lab.promote(passed.request_id).promoted
    assert (
        lab.gate("good").message
        == f"model {lab.models['full']['good']} is the one that stands now; hand in another one"
    )
    assert lab.gate("worse").symbol == "fail"  # it beats the baseline, but not this one
    assert report(lab)["incumbent_id"] == lab.models["full"]["good"]


@pytest.mark.parametrize("content", ['{"label": -1}', '{"label": "benign"}', "no model at all"])
def test_a_model_that_cannot_be_run_on_sealed_inputs_fails_and_spends_a_step(
    content: str, lab: Any, tmp_path: Any
) -> None:
    answer = lab.gate(constant(lab, tmp_path / "broken", content))
    assert (answer.refused, answer.symbol, answer.message) == (False, "fail", "step 1 of 3: fail")
    assert ledger(lab) == [(1, "fail", "fail")]
    assert "no constant model" in report(lab)["failure"]  # for the referee


def test_a_model_for_other_features_fails_and_spends_a_step(lab: Any, tmp_path: Any) -> None:
    from sklearn.pipeline import make_pipeline

    from easeml_core.models.formats import save_model
    from easeml_core.models.skops_format import PipelinePredictor

    parts = lab.open_parts()
    narrow = make_pipeline(GaussianNB()).fit(parts.train_inputs[:, :3], parts.train_labels)
    save_model(PipelinePredictor(narrow), tmp_path / "narrow")
    answer = lab.gate(lab.hand_in("full", "narrow", tmp_path / "narrow", kind="skops", loss=0.0))
    assert answer.symbol == "fail"
    assert "30 features" in report(lab)["failure"]


@pytest.mark.parametrize("harm", ["changed", "removed"])
def test_a_file_that_is_not_what_was_stored_is_refused_and_spends_nothing(
    harm: str, lab: Any, tmp_path: Any, caplog: Any
) -> None:
    model_id = constant(lab, tmp_path / harm, {"changed": '{"label": 7}', "removed": '{"label": 8}'}[harm])
    file = lab.artifacts.path(lab.one("SELECT artifact FROM work.models WHERE id = :id", id=model_id))
    file.write_text('{"label": 1}') if harm == "changed" else file.unlink()
    answer = lab.gate(model_id)
    assert answer.refused
    assert answer.message.startswith("the referee could not answer this request; its log says why")
    assert "ArtifactError" in caplog.text
    assert ledger(lab) == []
    assert lab.gate("good").step == 1


def test_an_incumbent_that_cannot_be_run_blames_nobody_else(lab: Any) -> None:
    lab.as_superuser(
        "UPDATE sealed.predictions SET labels = NULL, failure = 'it crashed' WHERE model = "
        "(SELECT format || ' ' || artifact FROM work.models WHERE id = 1)"
    )
    answer = lab.gate("good")
    assert answer.refused
    assert answer.message == "the model that stands now (1) cannot be run on the sealed inputs; roll it back"
    assert ledger(lab) == []


@pytest.mark.parametrize(("mode", "symbol"), [("fp-free", "fail"), ("fn-free", "pass")])
def test_the_mode_settles_what_the_evidence_does_not(mode: str, symbol: str, lab: Any, tmp_path: Any) -> None:
    gate = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "mode": mode}
    lab.register("modal", gate=gate)
    ((baseline,),) = lab.rows(
        "SELECT m.artifact FROM work.models m JOIN work.studies s ON s.id = m.study_id WHERE s.name = 'modal'"
    )
    same = lab.artifacts.path(baseline).read_text() + " "  # another file with the very same answers
    answer = lab.gate(constant(lab, tmp_path / "same", same, "modal"), "modal")
    assert report(lab)["verdict"] == "UNKNOWN"
    assert answer.symbol == symbol


def test_an_answer_is_none_until_it_is_there(lab: Any) -> None:
    asked = file_gate_request(lab.worker, study="full", request_key="k")
    assert answer_of(lab.worker, asked) is None
    assert lab.answer(asked).symbol == "pass"
    with pytest.raises(NotFoundError, match="there is no request 99"):
        answer_of(lab.worker, 99)


def test_facts_that_somebody_deleted_are_missed(lab: Any) -> None:
    asked = lab.gate("good").request_id
    lab.as_superuser("DELETE FROM work.gate_verdicts")
    with pytest.raises(InvalidInputError, match=f"request {asked} is answered but its facts are missing"):
        answer_of(lab.worker, asked)
