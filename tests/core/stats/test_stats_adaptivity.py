"""Levels of the tests of one set: published counts, whole trees enumerated, and what is refused."""

from __future__ import annotations

import itertools
import math

import pytest

from easeml_core.errors import ConfigError
from easeml_core.stats.adaptivity import allocate, pays_first_errors


@pytest.mark.parametrize("steps", [1, 2, 32, 5000])
def test_published_counts(steps: int) -> None:
    assert allocate("full", steps).log_multiplicity() == pytest.approx(steps * math.log(2), rel=1e-15)
    for name in ("none", "firstChange", "hybrid"):
        assert allocate(name, steps).log_multiplicity() == math.log(steps)


@pytest.mark.parametrize(("cap", "nodes"), [(1, 32), (2, 528), (3, 5488), (4, 41448), (5, 242824), (6, 1149016)])
def test_nodes_below_a_cap_on_passes(cap: int, nodes: int) -> None:
    assert math.exp(allocate(f"upTo:{cap}", 32).log_multiplicity()) == pytest.approx(nodes, rel=1e-12)


@pytest.mark.parametrize("steps", range(1, 11))
def test_the_levels_of_a_whole_tree_add_up_to_delta(steps: int) -> None:
    """Every transcript of answers that the set can live to see is one node, and every node is one test."""
    for name in ("none", "full", "firstChange", *(f"upTo:{k}" for k in range(1, steps + 1))):
        plan = allocate(name, steps)
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


@pytest.mark.parametrize("steps", range(1, 7))
def test_recycling_on_every_truth_assignment(steps: int) -> None:
    """The chance of a false pass, with every false claim passing at its level and every true one whatever is worse.

    The claim at a node is true or false before the data speak. A false one passes with its level; then the promise is
    broken and nothing more can break it. Which answer a true one gets, the worst case decides.
    """
    plan = allocate("recycle", steps)

    def worst(step: int, passes: int) -> float:
        if step == steps:
            return 0.0
        level = math.exp(-plan.log_multiplicity(passes))
        after_fail, after_pass = worst(step + 1, passes), worst(step + 1, passes + 1)
        false_claim = level + after_fail
        true_claim = after_pass + after_fail  # the data may lead to either, and both errors may add up
        return max(false_claim, true_claim)

    assert worst(0, 0) <= 1 + 1e-12
    assert worst(0, 0) == pytest.approx(1, rel=1e-12)


def promise_broken(first_error: bool, truths: dict[tuple[int, ...], bool], past: tuple[int, ...], steps: int) -> float:
    """The largest chance of a false pass in the subtree of a node, for given truths of all claims.

    A false claim passes with its level, and then the promise is broken; a true one may get either answer with any
    dependence on the data, so that the chances of both subtrees may add up.
    """
    if len(past) == steps:
        return 0.0
    after_fail = promise_broken(first_error, truths, (*past, 0), steps)
    if truths[past]:
        return after_fail + promise_broken(first_error, truths, (*past, 1), steps)
    return math.exp(-allocate("full", steps, first_error=first_error).log_multiplicity()) + after_fail


@pytest.mark.parametrize("steps", range(1, 5))
def test_full_pays_for_first_errors_only_on_every_truth_assignment(steps: int) -> None:
    """All 2^(2^H - 1) assignments of true and false to the claims of the tree; at 2^(H - 2) one of them breaks it."""
    nodes = [past for length in range(steps) for past in itertools.product((0, 1), repeat=length)]
    worst = max(
        promise_broken(True, dict(zip(nodes, truths, strict=True)), (), steps)
        for truths in itertools.product((False, True), repeat=len(nodes))
    )
    assert worst == pytest.approx(1, rel=1e-12)
    assert allocate("full", steps, first_error=True).log_multiplicity() == (steps - 1) * math.log(2)


@pytest.mark.parametrize("steps", range(1, 5))
def test_a_model_that_cannot_be_run_needs_all_nodes_under_fn_free(steps: int) -> None:
    """There a FAIL without an error leads on from a true claim too: a(2^H - 1), which 2^(H - 1) does not pay for."""

    def worst(left: int, level: float) -> float:
        return level + 2 * worst(left - 1, level) if left else 0.0

    assert not pays_first_errors(mode="fn-free", estimator="exact")
    assert not pays_first_errors(mode="fp-free", estimator="paper")
    assert worst(steps, math.exp(-allocate("full", steps).log_multiplicity())) <= 1
    if steps > 1:
        assert worst(steps, math.exp(-allocate("full", steps, first_error=True).log_multiplicity())) > 1


def test_recycling_costs_what_the_specification_says() -> None:
    nats = [round(allocate("recycle", 32).log_multiplicity(k), 2) for k in range(6)]
    assert nats == [3.47, 6.93, 10.4, 13.86, 17.33, 20.79]


@pytest.mark.parametrize(("cap", "steps"), [(101, 150), (150, 150), (300, 1000)])
def test_very_large_caps_are_counted_in_logarithms_and_never_too_low(cap: int, steps: int) -> None:
    exact = math.log(sum(math.comb(steps, j) for j in range(1, cap + 1)))
    assert exact < allocate(f"upTo:{cap}", steps).log_multiplicity() < exact + 2e-6
    assert 6.9e5 < allocate("upTo:500000", 10**6).log_multiplicity() < 10**6 * math.log(2)


def test_a_cap_ends_the_set() -> None:
    assert [allocate("upTo:2", 8).is_over(k) for k in range(4)] == [False, False, True, True]
    assert allocate("firstChange", 8).is_over(1)
    assert not any(allocate(name, 8).is_over(8) for name in ("none", "full", "recycle"))
    with pytest.raises(ConfigError, match="retired"):
        allocate("upTo:2", 8).log_multiplicity(2)


@pytest.mark.parametrize(
    "name", ["Full", "", "upTo", "upTo:", "upTo:0", "upTo:-1", "upTo:1.5", "upTo:9", "full:1", "upTo:²"]
)
def test_what_is_not_understood_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="adaptivity"):
        allocate(name, 8)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, 10**7])
def test_steps_are_counted(steps: int) -> None:
    with pytest.raises(ConfigError, match="steps"):
        allocate("full", steps)
