"""Attacks on sets of a plan: they keep to what is promised, show what counting is for, and never take long."""

from __future__ import annotations

import pytest
from property_sizes import at_night

from easeml_core.errors import ConfigError
from easeml_core.gate import attack
from easeml_core.gate.attack import MOST_EXAMPLES, Attack, attack_plan, bounded_size
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.planner import plan_gate

PLAN = {"reliability": 0.95, "steps": 32, "mode": "fp-free"}


@pytest.mark.parametrize("mode", ["fp-free", "fn-free"])
@pytest.mark.parametrize("adaptivity", ["full", "upTo:3", "recycle", "firstChange"])
def test_a_plan_of_any_adaptivity_keeps_its_promise_and_uncounted_answers_would_break_it(
    adaptivity: str, mode: str
) -> None:
    plan = PLAN | {"adaptivity": adaptivity, "mode": mode}
    sized = plan_gate(parse_condition("n > 0.5 +/- 0.05"), power=0.9, **plan)
    found = attack_plan(examples=sized.examples, **plan)
    # Of 200 sets with a wrong answer in at most 5 % each, 29 or more have a chance below 1e-6.
    assert found.fooled <= 28
    assert found.holds
    # Seen: 96 to 146 of 200. If it were 5 % it would be at most 28.
    assert found.naive > 2 * 28


@pytest.mark.parametrize("adaptivity", ["full", "upTo:3", "recycle", "firstChange", "none"])
def test_the_same_plan_gives_the_same_attack(adaptivity: str) -> None:
    first, second = (attack_plan(examples=100, **PLAN | {"adaptivity": adaptivity, "steps": 3}) for _ in range(2))
    assert first == second


def test_a_developer_without_answers_learns_nothing() -> None:
    found = attack_plan(examples=1000, adaptivity="none", **PLAN)
    assert found.fooled <= 28
    assert found.naive > 2 * 28


@pytest.mark.parametrize(
    ("examples", "steps", "size", "runs"),
    [
        (1, 1, 1, 200),
        (1999, 50, 1999, 200),
        (2000, 51, 2000, 196),
        (2001, 499, 2000, 20),
        (10**9, 1024, 2000, 20),
    ],
)
def test_an_attack_takes_so_many_examples_and_sets(examples: int, steps: int, size: int, runs: int) -> None:
    assert bounded_size(examples, steps) == (size, runs)


@pytest.mark.parametrize(("examples", "least", "most"), [(1, 0.9, 0.9), (10**9, 0.15, 0.89)])
def test_so_much_is_known_that_a_question_can_be_made_to_pass(
    monkeypatch: pytest.MonkeyPatch, examples: int, least: float, most: float
) -> None:
    known = []
    monkeypatch.setattr(attack, "Attack", lambda **given: known.append(given["known"]) or Attack(**given))
    attack_plan(examples=examples, adaptivity="full", **PLAN | {"steps": 4})
    assert all(least <= share <= most for share in known)
    assert known


@pytest.mark.parametrize(
    ("examples", "steps"),
    [(1, 32), (9, 3), (10**9, 1), at_night(10**9, 1024)],
)
def test_any_plan_is_attacked_at_a_bounded_size(examples: int, steps: int) -> None:
    found = attack_plan(examples=examples, adaptivity="full", **PLAN | {"steps": steps})
    assert found.examples <= MOST_EXAMPLES
    assert 20 <= found.runs <= 200
    assert found.runs * steps <= 20 * 1024
    assert found.fooled / found.runs <= 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples": 0}, "examples must be a whole number >= 1"),
        ({"steps": 1025}, "steps must be a whole number from 1 to 1,024"),
        ({"reliability": 1.0}, "reliability must be > 0 and < 1"),
        ({"reliability": float("nan")}, "reliability must be"),
        ({"adaptivity": "some"}, "adaptivity"),
        ({"mode": "none"}, "mode"),
    ],
)
def test_a_plan_that_is_none_is_refused(change: dict[str, object], message: str) -> None:
    asked: dict[str, object] = {"examples": 100, "adaptivity": "full"} | PLAN | change
    with pytest.raises(ConfigError, match=message):
        attack_plan(**asked)
