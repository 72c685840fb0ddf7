"""Levels of the tests of one set: published counts, whole trees enumerated, and what is refused."""

from __future__ import annotations

import itertools
import math

import pytest

from easeml_core.entities import Adaptivity
from easeml_core.errors import ConfigError
from easeml_core.stats.adaptivity import Allocation, allocate, level_of_test


def published(adaptivity: str, steps: int) -> Allocation:
    """As the paper counts, which pays for every answer of ``full``."""
    return allocate(adaptivity, steps, mode="fp-free", estimator="paper")


@pytest.mark.parametrize("steps", [1, 2, 32, 5000])
def test_published_counts(steps: int) -> None:
    assert published("full", steps).log_multiplicity() == pytest.approx(steps * math.log(2), rel=1e-15)
    for name in ("none", "firstChange", "hybrid"):
        assert published(name, steps).log_multiplicity() == math.log(steps)


@pytest.mark.parametrize(("cap", "nodes"), [(1, 32), (2, 528), (3, 5488), (4, 41448), (5, 242824), (6, 1149016)])
def test_nodes_below_a_cap_on_passes(cap: int, nodes: int) -> None:
    assert math.exp(published(f"upTo:{cap}", 32).log_multiplicity()) == pytest.approx(nodes, rel=1e-12)


@pytest.mark.parametrize("steps", range(1, 11))
def test_the_levels_of_a_whole_tree_add_up_to_delta(steps: int) -> None:
    """Every transcript of answers that the set can live to see is one node, and every node is one test."""
    for name in ("none", "full", "firstChange", *(f"upTo:{k}" for k in range(1, steps + 1))):
        plan = published(name, steps)
        nodes = [
            past
            for length in range(steps)
            for past in itertools.product((0, 1), repeat=length)
            if not plan.is_over(sum(past))
        ]
        spent = math.fsum(math.exp(-plan.log_multiplicity(sum(past))) for past in nodes)
        if name == "none":  # the models do not depend on the answers: one test a step
            spent = steps * math.exp(-plan.log_multiplicity())
        assert spent <= 1 + 1e-12
        if name != "full":
            assert spent == pytest.approx(1, rel=1e-12)


# What a claim may do before the data speak: it cannot be answered wrongly; it can; or it can, by a model that cannot be
# run on some of the sealed inputs, and fails there without breaking the promise of fn-free.
SAFE, ERRS, CRASHES = "safe", "errs", "crashes"


def worst_on(plan: Allocation, kinds: dict[tuple[bool, ...], str], past: tuple[bool, ...] = ()) -> float:
    """The largest chance, in units of delta, that an answer at or below a node is wrong, for given kinds of all claims.

    A wrong answer has at most its level, and then the promise is broken already. The data decide which answer a claim
    gets, with any dependence on what follows, so that the chances of the subtrees that it may lead to add up.

    Args:
        plan: The levels.
        kinds: Of the claim at every transcript of answers (True for a pass).
        past: The transcript so far.
    """
    changes = sum(plan.is_change(passed=passed) for passed in past)
    if len(past) == plan.steps or plan.is_over(changes):
        return 0.0
    after = {passed: worst_on(plan, kinds, (*past, passed)) for passed in (False, True)}
    level, right = math.exp(-plan.log_multiplicity(changes)), plan.mode == "fn-free"
    if plan.kind is Adaptivity.NONE:  # no answer is released, so all transcripts of one length have the same claim
        return (kinds[past] != SAFE) * level + max(after.values())
    if kinds[past] == SAFE:
        return sum(after.values())
    return level + (sum(after.values()) if kinds[past] == CRASHES else after[right])


def worst_of_all(plan: Allocation) -> float:
    """The largest of ``worst_on`` over all assignments of kinds to the claims of the tree."""
    nodes = [past for length in range(plan.steps) for past in itertools.product((False, True), repeat=length)]
    kinds = (SAFE, ERRS, CRASHES) if plan.mode == "fn-free" else (SAFE, ERRS)
    return max(
        worst_on(plan, dict(zip(nodes, given, strict=True))) for given in itertools.product(kinds, repeat=len(nodes))
    )


@pytest.mark.parametrize("steps", range(1, 4))
@pytest.mark.parametrize("mode", ["fp-free", "fn-free"])
@pytest.mark.parametrize("adaptivity", ["none", "full", "firstChange", "upTo:1", "upTo:2", "recycle"])
def test_delta_is_kept_on_every_assignment_of_truths_and_crashes(adaptivity: str, mode: str, steps: int) -> None:
    """Up to 3^7 assignments. ``upTo``, and ``full`` under fn-free, leave a part of delta unused."""
    if adaptivity == "upTo:2" and steps < 2:
        return
    worst = worst_of_all(allocate(adaptivity, steps, mode=mode, estimator="exact"))
    assert worst <= 1 + 1e-12
    uses_all = adaptivity in ("none", "firstChange", "recycle") or (adaptivity, mode) == ("full", "fp-free")
    assert not uses_all or worst == pytest.approx(1, rel=1e-12)


@pytest.mark.nightly  # up to three steps: test_recycling and test_levels above, in this set
def test_full_keeps_delta_on_every_assignment_of_truths_to_four_steps() -> None:
    """All 2^15 of them."""
    worst = worst_of_all(allocate("full", 4, mode="fp-free", estimator="exact"))
    assert worst == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("adaptivity", ["full", "recycle"])
def test_levels_of_fp_free_do_not_pay_for_models_that_cannot_be_run(adaptivity: str, steps: int) -> None:
    """2^(H - 1) or H^(c + 1) under fn-free: the sum is (2^H - 1) / 2^(H - 1) or (1 + 1 / H)^H - 1."""

    class Unpaid(Allocation):
        def log_multiplicity(self, changes: int = 0) -> float:
            return allocate(adaptivity, steps, mode="fp-free", estimator="exact").log_multiplicity(changes)

    paid = allocate(adaptivity, steps, mode="fn-free", estimator="exact")
    worst = worst_of_all(Unpaid(paid.kind, steps, paid.mode, "exact"))
    expected = (2**steps - 1) / 2 ** (steps - 1) if adaptivity == "full" else (1 + 1 / steps) ** steps - 1
    assert worst == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mode", ["fp-free", "fn-free"])
@pytest.mark.parametrize("steps", [1, 4, 10, 32, 1000])
def test_recycling_spends_delta_exactly_on_trees_of_any_depth(steps: int, mode: str) -> None:
    """The same recursion over steps left and changes so far; after c changes all levels are smaller by one factor."""
    plan = allocate("recycle", steps, mode=mode, estimator="exact")
    level = math.exp(-plan.log_multiplicity())
    left = 0.0
    for _ in range(steps):
        after_change, after_other = level * left, left
        crash = after_change if mode == "fn-free" else 0.0
        left = max(after_change + after_other, level + after_other + crash)
    assert left == pytest.approx(1, rel=1e-10)
    assert plan.log_multiplicity(3) == pytest.approx(4 * plan.log_multiplicity(), rel=1e-15)


FORMULAS = {
    ("none", "fp-free"): math.log(8),
    ("none", "fn-free"): math.log(8),
    ("firstChange", "fp-free"): math.log(8),
    ("firstChange", "fn-free"): math.log(8),
    ("upTo:3", "fp-free"): math.log(8 + 28 + 56),
    ("upTo:3", "fn-free"): math.log(8 + 28 + 56),
    ("recycle", "fp-free"): math.log(8),
    ("recycle", "fn-free"): -math.log(2 ** (1 / 8) - 1),
    ("full", "fp-free"): 7 * math.log(2),
    ("full", "fn-free"): 8 * math.log(2),
}


@pytest.mark.parametrize(("others", "halved"), [(0, {"fp-free": 0, "fn-free": 0}), (3, {"fp-free": 3, "fn-free": 4})])
@pytest.mark.parametrize("estimator", ["exact", "paper"])
@pytest.mark.parametrize("mode", ["fp-free", "fn-free"])
@pytest.mark.parametrize("adaptivity", ["none", "full", "firstChange", "upTo:3", "recycle"])
def test_the_level_by_mode_estimator_and_other_conditions(
    adaptivity: str, mode: str, estimator: str, others: int, halved: dict[str, int]
) -> None:
    nats = FORMULAS[adaptivity, mode] if (adaptivity, estimator) != ("full", "paper") else 8 * math.log(2)
    nats += halved[mode] * math.log(2)
    asked = {"adaptivity": adaptivity, "mode": mode, "estimator": estimator, "other_conditions": others}
    found = level_of_test(reliability=0.9, steps=8, log_weight=0.25, **asked)
    assert found.log_tests == pytest.approx(nats + 0.25, rel=1e-12)
    assert found.log_level == pytest.approx(math.log(0.1) - nats - 0.25, rel=1e-12)


def test_recycling_costs_what_the_specification_says() -> None:
    nats = [round(published("recycle", 32).log_multiplicity(k), 2) for k in range(6)]
    assert nats == [3.47, 6.93, 10.4, 13.86, 17.33, 20.79]


@pytest.mark.parametrize(("cap", "steps"), [(101, 150), (150, 150), (300, 1000)])
def test_very_large_caps_are_counted_in_logarithms_and_never_too_low(cap: int, steps: int) -> None:
    exact = math.log(sum(math.comb(steps, j) for j in range(1, cap + 1)))
    assert exact < published(f"upTo:{cap}", steps).log_multiplicity() < exact + 2e-6
    assert 6.9e5 < published("upTo:500000", 10**6).log_multiplicity() < 10**6 * math.log(2)


def test_a_cap_ends_the_set() -> None:
    assert [published("upTo:2", 8).is_over(k) for k in range(4)] == [False, False, True, True]
    assert published("firstChange", 8).is_over(1)
    assert not any(published(name, 8).is_over(8) for name in ("none", "full", "recycle"))
    with pytest.raises(ConfigError, match="retired"):
        published("upTo:2", 8).log_multiplicity(2)


@pytest.mark.parametrize(
    "name", ["Full", "", "upTo", "upTo:", "upTo:0", "upTo:-1", "upTo:1.5", "upTo:9", "full:1", "upTo:²"]
)
def test_what_is_not_understood_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="adaptivity"):
        published(name, 8)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, 10**7])
def test_steps_are_counted(steps: int) -> None:
    with pytest.raises(ConfigError, match="steps"):
        published("full", steps)


@pytest.mark.parametrize(
    "wrong",
    [{"mode": "fp"}, {"estimator": "bentkus"}, {"reliability": 0.0}, {"reliability": 1.0}, {"log_weight": -1.0}],
)
def test_a_level_is_refused_what_it_does_not_know(wrong: dict[str, object]) -> None:
    asked = {"reliability": 0.9, "adaptivity": "none", "steps": 8, "mode": "fp-free", "estimator": "exact"}
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        level_of_test(**(asked | wrong))
