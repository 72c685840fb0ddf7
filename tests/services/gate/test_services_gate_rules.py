"""What a verdict may cost and when a set ends, by adaptivity; what it is compared with under ``none``."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from easeml_core.errors import InvalidInputError
from easeml_core.services.gate import judge
from easeml_core.services.meter.alerts import open_alerts
from easeml_core.services.referee.requests import file_gate_request
from easeml_core.services.reports.overview import live_sets
from easeml_core.services.test_sets.lifecycle import list_test_sets
from easeml_core.store.rows import pack
from easeml_core.store.tables import chained_rows

STATE = "SELECT state, retired_why FROM work.test_sets WHERE id = :id"


def plan_otherwise(lab: Any, set_id: int = 1, **changes: Any) -> None:
    """Let a sealed gate set have been planned with other settings."""
    lab.as_superuser("UPDATE work.test_sets SET plan = plan || %s WHERE id = %s", json.dumps(changes), set_id)


def levels(lab: Any) -> list[float]:
    return [math.exp(level) for (level,) in lab.rows("SELECT log_level FROM sealed.ledger ORDER BY id")]


def changes(lab: Any) -> list[bool]:
    return [change for (change,) in lab.rows("SELECT is_change FROM sealed.ledger ORDER BY id")]


def test_recycle_divides_by_the_steps_once_more_after_every_pass(lab: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(judge, "examples_for_gate", lambda config, changes=0: 1)
    plan_otherwise(lab, adaptivity="recycle")
    assert [lab.gate(model).symbol for model in ("rare", "worse", "good")] == ["fail", "pass", "pass"]
    # delta = 0.1, H = 3; after k passes delta / H^(k + 1)
    assert levels(lab) == pytest.approx([0.1 / 3, 0.1 / 3, 0.1 / 9], rel=1e-12)
    assert changes(lab) == [False, True, True]


def test_under_fn_free_recycle_counts_the_fails(lab: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(judge, "examples_for_gate", lambda config, changes=0: 1)
    plan_otherwise(lab, adaptivity="recycle", mode="fn-free")
    assert [lab.gate(model).symbol for model in ("worse", "rare", "good")] == ["pass", "fail", "pass"]
    # delta = 0.1, H = 3; after k fails delta (2^(1 / H) - 1)^(k + 1), which models that cannot be run do not exceed
    each = 2 ** (1 / 3) - 1
    assert levels(lab) == pytest.approx([0.1 * each, 0.1 * each, 0.1 * each**2], rel=1e-12)
    assert changes(lab) == [False, True, False]


def test_a_cap_has_one_level_and_ends_the_set_at_its_last_pass(lab: Any) -> None:
    plan_otherwise(lab, adaptivity="upTo:2")
    assert lab.gate("worse").symbol == "pass"
    assert lab.rows(STATE, id=1) == [("live", None)]
    assert lab.gate("good").symbol == "pass"
    assert lab.rows(STATE, id=1) == [("retired", "changes")]
    # sum of C(3, j) for j = 1, 2 is 6
    assert levels(lab) == pytest.approx([0.1 / 6, 0.1 / 6], rel=1e-12)


@pytest.mark.parametrize(
    ("adaptivity", "models", "why"),
    [("firstChange", ("rare", "good"), "changes"), ("upTo:3", ("rare", "worse", "good"), "steps")],
)
def test_a_set_says_why_it_ended(adaptivity: str, models: tuple[str, ...], why: str, lab: Any) -> None:
    plan_otherwise(lab, adaptivity=adaptivity)
    for model in models:
        assert not lab.gate(model).refused
    assert lab.rows(STATE, id=1) == [("retired", why)]


def test_a_set_that_is_too_small_for_the_next_level_ends_before_the_test(lab: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(judge, "examples_for_gate", lambda config, changes=0: 254 + changes)
    plan_otherwise(lab, adaptivity="recycle")
    assert lab.gate("rare").symbol == "fail"  # costs nothing: the next test is as large
    assert lab.rows(STATE, id=1) == [("live", None)]
    assert lab.gate("worse").symbol == "pass"
    assert lab.rows(STATE, id=1) == [("retired", "tolerance")]
    (alert,) = open_alerts(lab.worker, study="full")
    assert alert.kind == "new-test-set"
    assert "too few examples for another test" in alert.message


def test_a_withheld_pass_does_not_show_in_the_life_of_the_set(lab: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(judge, "examples_for_gate", lambda config, changes=0: 254 + changes)
    plan_otherwise(lab, adaptivity="none")
    assert lab.gate("worse").symbol == "withheld"
    assert changes(lab) == [True]
    assert lab.rows(STATE, id=1) == [("live", None)]


@pytest.mark.parametrize(
    ("tolerance", "lives_for"),
    [(0.13, 1), (0.15, 2)],  # the plans need 206 and 310, or 152, 230 and 317 examples; the set has 254
)
def test_a_recycled_set_lives_as_long_as_its_exact_plan_fits(tolerance: float, lives_for: int, lab: Any) -> None:
    plan_otherwise(lab, adaptivity="recycle", estimator="exact", condition=f"n - o > 0 +/- {tolerance}")
    for passes, model in enumerate(("worse", "good")[:lives_for], 1):
        assert lab.gate(model).symbol == "pass"
        assert lab.rows(STATE, id=1) == [("live", None) if passes < lives_for else ("retired", "tolerance")]


def test_what_was_answered_stays_answered_though_the_level_has_fallen(lab: Any, monkeypatch: Any) -> None:
    plan_otherwise(lab, adaptivity="recycle")
    monkeypatch.setattr(judge, "examples_for_gate", lambda config, changes=0: 254)
    first = lab.gate("rare")
    monkeypatch.setattr(judge, "examples_for_gate", lambda config, changes=0: 999)
    again = lab.gate("rare")
    assert (again.symbol, again.step, again.cached) == (first.symbol, 1, True)
    assert "needs at least 999 examples" in lab.gate("worse").message


def test_a_retired_set_raises_one_alarm_without_figures(lab: Any) -> None:
    for model in ("rare", "worse", "good"):
        lab.gate(model)
    (alert,) = open_alerts(lab.worker, study="full")
    assert {k: getattr(alert, k) for k in ("kind", "study", "test_set_id", "signal", "model_id")} == {
        "kind": "new-test-set",
        "study": "full",
        "test_set_id": 1,
        "signal": None,
        "model_id": None,
    }
    assert alert.message == (
        "full: gate set 1 is retired, all its steps are used; the gate gives no verdict until a new set is sealed "
        "(`easeml test-set plan`, `easeml test-set seal`)"
    )


def test_the_next_sealed_set_goes_live_by_itself(lab: Any) -> None:
    lab.as_superuser("ALTER TABLE work.test_sets DISABLE TRIGGER test_sets_forward")  # take the set of another study
    lab.as_superuser("UPDATE work.test_sets SET study_id = 1, data_version_id = 1, state = 'sealed' WHERE id = 3")
    for model in ("rare", "worse", "good"):
        lab.gate(model)
    assert lab.rows(STATE, id=1) == [("retired", "steps")]
    assert live_sets(lab.worker, study="full") == ["gate", "meter"]
    (alert,) = open_alerts(lab.worker, study="full")
    assert "set 3 is live now; seal another one in time" in alert.message


# What is compared under adaptivity none.


def incumbents(lab: Any) -> list[tuple[int, int]]:
    return lab.rows(
        "SELECT model_id, incumbent_id FROM work.gate_verdicts v JOIN work.studies s ON s.id = v.study_id "
        "WHERE s.name = 'hidden' ORDER BY request_id"
    )


def test_under_none_the_old_model_is_the_last_one_that_was_judged(lab: Any) -> None:
    good, worse, rare = (lab.models["hidden"][name] for name in ("good", "worse", "rare"))
    for model in ("rare", "good", "worse"):
        assert lab.gate(model, "hidden").symbol == "withheld"
    baseline = lab.one(
        "SELECT min(m.id) FROM work.models m JOIN work.studies s ON s.id = m.study_id WHERE s.name = 'hidden'"
    )
    assert incumbents(lab) == [(rare, baseline), (good, rare), (worse, good)]
    assert levels(lab) == pytest.approx([0.1 / 3] * 3, rel=1e-12)


def test_under_none_the_last_one_handed_in_again_gets_its_answer_back(lab: Any) -> None:
    lab.allow_other_conditions()
    lab.gate("good", "hidden")
    again = lab.gate("good", "hidden")
    assert (again.refused, again.symbol, again.step, again.cached) == (False, "withheld", 1, True)
    assert lab.one("SELECT count(*) FROM sealed.ledger") == 1
    other = lab.gate("good", "hidden", condition="n - o > 0.1 +/- 0.2")  # another question about the same two models
    assert (other.step, other.planned) == (1, False)
    assert len(set(incumbents(lab))) == 1


def test_under_none_a_model_that_cannot_be_run_is_no_commit_to_compare_with(lab: Any, tmp_path: Any) -> None:
    (tmp_path / "broken").write_text("no model at all")
    broken = lab.hand_in("hidden", "broken", tmp_path / "broken", kind="constant", loss=0.4)
    assert lab.gate(broken, "hidden").message == "step 1 of 3: withheld"
    assert lab.gate("good", "hidden").message == "step 2 of 3: withheld"
    (baseline, named), good = incumbents(lab)[0][::-1], lab.models["hidden"]["good"]
    assert (named, incumbents(lab)[1]) == (
        broken,
        (good, broken),
    )  # public, and must not show that it broke
    compared = "SELECT (report ->> 'incumbent_id')::bigint FROM sealed.ledger ORDER BY step"
    assert lab.rows(compared) == [(baseline,), (baseline,)]


BREAK = """
UPDATE sealed.predictions SET labels = NULL, failure = 'no model at all' WHERE test_set_id = 5
AND model = (SELECT format || ' ' || artifact FROM work.models WHERE id = %s)
"""


def test_under_none_nobody_sees_whether_a_model_could_be_run(make_lab: Any) -> None:
    """Otherwise a model could tell by its failure what its sealed inputs are, one sign a step."""
    whole, broken = make_lab(), make_lab()
    broken.as_superuser(BREAK, broken.models["hidden"]["rare"])
    for lab in (whole, broken):
        for model in ("good", "rare", "rare", "good"):
            lab.gate(model, "hidden")
    failures = "SELECT count(*) FROM sealed.ledger WHERE report ->> 'failure' IS NOT NULL"
    assert (whole.one(failures), broken.one(failures)) == (0, 1)
    released = "SELECT model_id, incumbent_id, step, symbol, cached FROM work.gate_verdicts ORDER BY request_id"
    assert whole.rows(released) == broken.rows(released)
    assert [step for _, _, step, _, _ in whole.rows(released)] == [1, 2, 2, 3]


def test_a_task_that_would_show_a_withheld_verdict_is_refused(lab: Any) -> None:
    asked = {"study": "hidden", "model_id": lab.models["hidden"]["good"], "blocking": True}
    with pytest.raises(InvalidInputError, match=r"withholds its verdicts \(adaptivity none\): a task that fails"):
        file_gate_request(lab.worker, **asked, request_key="k")
    assert lab.one("SELECT count(*) FROM work.requests WHERE kind = 'gate'") == 0
    shown = file_gate_request(lab.worker, **asked | {"study": "full", "model_id": 2}, request_key="k")
    assert lab.answer(shown).symbol == "pass"


def test_the_referee_looks_again_at_the_set_that_judges(lab: Any) -> None:
    filed = file_gate_request(lab.worker, study="full", model_id=2, blocking=True, request_key="k")
    plan_otherwise(lab, adaptivity="none")
    answer = lab.answer(filed)
    assert answer.refused
    assert "withholds its verdicts" in answer.message
    assert lab.one("SELECT count(*) FROM sealed.ledger") == 0


# Slices.


@pytest.mark.parametrize(("claim", "symbol"), [("n - o > -0.9 +/- 0.2", "pass"), ("n - o > 0.9 +/- 0.2", "fail")])
def test_a_condition_on_a_slice_must_hold_too_and_shares_the_level(claim: str, symbol: str, lab: Any) -> None:
    plan_otherwise(lab, estimator="exact", slices=[["odd", claim]])
    codes = np.where(np.arange(254) % 2 == 1, 0, -1)
    lab.as_superuser("UPDATE sealed.test_sets SET slices = %s WHERE id = 1", pack(codes))
    assert lab.gate("good").symbol == symbol
    report = lab.one("SELECT report FROM sealed.ledger")
    (clause,) = report["slices"]["odd"]["clauses"]
    assert clause["examples"] == 127
    assert clause["log_level_pass"] == pytest.approx(math.log(0.1 / 2**2), rel=1e-12)  # not shared


# Other conditions than the one sealed with the set.

OTHER = "n - o > 0.1 +/- 0.2"


def test_a_set_answers_about_no_other_condition_unless_that_was_planned(lab: Any) -> None:
    """One question with another condition used to end a set of firstChange."""
    answer = lab.gate("good", "first", condition="n > 0.01 +/- 0.4")
    assert answer.refused
    assert "the live set of study 'first' was sealed for the condition n - o > 0 +/- 0.2" in answer.message
    assert "it answers about no other condition, got n > 0.01 +/- 0.4" in answer.message
    assert lab.rows("SELECT 1 FROM sealed.ledger") == lab.rows("SELECT 1 FROM work.gate_verdicts") == []
    assert lab.gate("good", "first", condition="n - o > 0.0 +/- 0.20").symbol == "pass"  # the set's own


@pytest.mark.parametrize(("study", "released"), [("first", "pass"), ("full", "pass"), ("hidden", "withheld")])
def test_a_planned_answer_about_another_condition_costs_no_step_and_ends_nothing(
    study: str, released: str, lab: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(judge, "examples_for_gate", lambda config, changes=0: 1)
    set_id = lab.one("SELECT t.id FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id "
                     "WHERE s.name = :name AND purpose = 'gate'", name=study)  # fmt: skip
    plan_otherwise(lab, set_id, other_conditions=3)
    first, again = (lab.gate("good", study, condition=OTHER) for _ in range(2))
    assert (first.symbol, first.planned, first.step, first.steps) == (released, False, 1, 3)
    assert again.cached
    assert lab.rows(STATE, id=set_id) == [("live", None)]
    assert [s.steps_used for s in list_test_sets(lab.worker) if s.test_set_id == set_id] == [0]
    assert [lab.gate(name, study, condition=OTHER).step for name in ("worse", "rare")] == [2, 3]
    assert lab.rows(STATE, id=set_id) == [("live", None)]  # the set's own steps are as many
    more = OTHER.replace("0.2", "0.25")
    assert "its 3 answers about other conditions are used" in lab.gate("rare", study, condition=more).message
    own = lab.gate("good", study)
    assert (own.symbol, own.planned, own.step, own.steps) == (released, True, 1, 3)
    tests = {"first": 3, "full": 2**3, "hidden": 3}[study]
    assert levels(lab) == pytest.approx([0.1 / tests / 8] * 4, rel=1e-12)  # three answers beside: each halves the level
    assert changes(lab) == [False, False, False, True]
    found = lab.rows("SELECT system, step, system_step, system_steps FROM sealed.ledger ORDER BY id")
    assert found == [("other", 4, 1, 3), ("other", 5, 2, 3), ("other", 6, 3, 3), ("gate", 1, 1, 3)]
    assert lab.promote(first.request_id, study=study).refused
    with lab.referee.begin() as tx:
        assert chained_rows.contradictions(tx, chained_rows.of_set(set_id)) == []


def test_a_tenant_cannot_plan_them_with_a_study(bare: Any) -> None:
    gate = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "other_conditions": 3}
    with pytest.raises(InvalidInputError, match="a study's gate plans no answers about other conditions, got other_co"):
        bare.register("mine", gate=gate)
