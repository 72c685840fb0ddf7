"""The last pass of a shared set can be promoted however the set has ended, except by hand: it was claimed before."""

from __future__ import annotations

from typing import Any

from easeml_core.services.test_sets.lifecycle import retire_test_set


def passed(shared: Any) -> tuple[int, int]:
    """Gate request and model of a pass."""
    model = shared.model(0.0)
    answer = shared.gate(model)
    assert answer.symbol == "pass"
    return answer.request_id, model


def promoted(shared: Any, request_id: int, model: int) -> Any:
    return shared.lab.promote(request_id, model, shared.study)


def end_by_steps_of_the_meter(shared: Any) -> None:
    shared.lab.as_superuser("UPDATE work.test_sets SET plan = jsonb_set(plan, '{meter,steps}', '1')")
    shared.meter(shared.model(0.1))
    assert shared.state() == ("retired", "steps")


def test_the_pass_stands_where_the_meter_could_not_answer(shared: Any) -> None:
    ground = passed(shared)
    shared.lab.as_superuser(
        "UPDATE work.test_sets SET plan = jsonb_set(plan, '{meter,tolerance}', '0.05') WHERE purpose = 'joint'"
    )
    shared.meter(shared.model(0.5))
    assert shared.state() == ("retired", "signals")
    assert promoted(shared, *ground).promoted


def test_a_fail_after_it_takes_nothing_back(shared: Any) -> None:
    ground = passed(shared)
    for _ in range(2):
        assert shared.gate(shared.model(1.0)).symbol == "fail"
    assert shared.state() == ("retired", "steps")
    assert promoted(shared, *ground).promoted


def test_an_earlier_pass_of_a_set_that_has_ended_is_none(shared: Any) -> None:
    first, last = passed(shared), passed(shared)
    end_by_steps_of_the_meter(shared)
    answer = promoted(shared, *first)
    assert answer.refused
    assert "retired by now" in answer.message
    assert promoted(shared, *last).promoted


def test_after_an_end_by_hand_no_pass_is_promoted(shared: Any) -> None:
    ground = passed(shared)
    retire_test_set(shared.lab.referee, test_set=str(shared.set_id))
    answer = promoted(shared, *ground)
    assert answer.refused
    assert "retired by now" in answer.message


def test_a_pass_that_no_longer_stands_against_what_stands_is_stale_whatever_ended_the_set(shared: Any) -> None:
    first, last = passed(shared), passed(shared)
    assert promoted(shared, *first).promoted
    end_by_steps_of_the_meter(shared)
    assert " stands now" in promoted(shared, *last).message


def test_what_is_withheld_follows_the_same_rule(hidden: Any) -> None:
    first, last = hidden.model(0.0), hidden.model(0.02)
    asked = [hidden.gate(model).request_id for model in (first, last)]
    end_by_steps_of_the_meter(hidden)
    assert promoted(hidden, asked[0], first).refused
    assert promoted(hidden, asked[1], last).promoted
