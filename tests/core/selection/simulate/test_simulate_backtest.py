"""The rule by which a backtest chooses: scores, spread, and what it never looks at."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from easeml_core.selection.problem import Past
from easeml_core.selection.simulate import repeats as backtested
from easeml_core.selection.simulate.backtest import (
    LOSSES,
    AgainstDefault,
    CostToLoss,
    compare,
    contestants_of,
    figures_of,
    log_scores,
    past_of,
    protocol_of,
    rule,
    telling,
    totals_of,
)
from easeml_core.selection.simulate.protocol import RIVALS, Contestant, Protocol, parse_contestants
from easeml_core.selection.simulate.repeats import chosen_by_backtest, outcome, table_of
from easeml_core.selection.simulate.report import Curve
from easeml_core.selection.simulate.tables import Table
from easeml_core.settings.config import SelectionConfig


def curve(*steps: tuple[float, float]) -> Curve:
    """Percent and loss of each step."""
    percent, loss = zip(*steps, strict=True)
    return Curve(np.array(percent), np.array(loss))


def at(price: float) -> Curve:
    """A curve that reaches every loss at one price."""
    return curve((0.0, 0.5), (price, 0.0))


def world(n_tenants: int, n_candidates: int = 5, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    good = rng.uniform(0.3, 0.9, n_candidates)
    quality = np.clip(good + rng.normal(0, 0.05, (n_tenants, n_candidates)), 0, 1)
    cost = np.exp(rng.normal(0, 1, (n_tenants, n_candidates)))
    return Table(tuple(f"t{i}" for i in range(n_tenants)), tuple(f"c{k}" for k in range(n_candidates)), quality, cost)


def test_the_score_is_the_geometric_mean_of_the_prices() -> None:
    """By hand: (1 * 4 * 16)^(1/3) = 4; a loss that never comes counts as 100; one that is there at once counts not."""
    first = curve((0.0, 0.5), (1.0, 0.05), (4.0, 0.02), (16.0, 0.01))
    never = curve((0.0, 0.5), (10.0, 0.015))
    there = curve((0.0, 0.03), (8.0, 0.01))
    found = np.exp(log_scores([first, never, there]))
    assert found == pytest.approx([4.0, (10 * 10 * 100) ** (1 / 3), (1 * 8 * 8) ** (1 / 3)])


def test_the_spread_is_that_of_the_paired_differences_with_the_overlap_of_draws() -> None:
    """Golden, by hand: d = 0, ln 4; mean ln 2; var = 2 (ln 2)^2; se^2 = (1/2 + 2/8) var, so se = 1.2247 ln 2."""
    protocol = Protocol(served=2, repeats=2, losses=LOSSES)
    found = compare(np.log([3.0, 28.0]), np.log([3.0, 7.0]), protocol, 10)
    assert found.ratio == pytest.approx(2.0)
    assert (found.low, found.high) == (
        pytest.approx(2 ** (1 - math.sqrt(1.5))),
        pytest.approx(2 ** (1 + math.sqrt(1.5))),
    )
    assert not found.better


def test_more_draws_do_not_make_the_past_longer() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for repeats in (30, 3000):
        protocol = Protocol(served=10, repeats=repeats, losses=LOSSES)
        found = compare(rng.normal(0, 1, repeats), np.zeros(repeats), protocol, 30)
        widths.append(math.log(found.high / found.ratio))
    assert widths[1] > 0.8 * widths[0]
    assert widths[1] == pytest.approx(math.sqrt(10 / 20), rel=0.1)  # without the overlap it would be 0.018


def test_default_stays_unless_another_is_better_by_more_than_the_error() -> None:
    protocol = protocol_of(30, cost_mode="unit", repeats=4)
    prices = np.array([1.0, 2.0, 4.0, 8.0])

    def ruled(**factors: list[float]) -> str:
        curves = {"default": [at(p) for p in prices]}
        curves |= {name: [at(p * f) for p, f in zip(prices, f4, strict=True)] for name, f4 in factors.items()}
        return rule(curves, protocol, 30).winner

    assert ruled(hybrid=[1.0] * 4) == "default"
    assert ruled(hybrid=[0.9] * 4) == "hybrid"  # always better: no spread, whatever the prices are
    assert ruled(hybrid=[0.9] * 4, roundrobin=[0.8] * 4) == "roundrobin"
    assert ruled(hybrid=[0.2, 2.5, 0.4, 1.9]) == "default"  # better on the average, and within the error
    assert ruled(hybrid=[0.2, 2.5, 0.4, 1.9], roundrobin=[0.99] * 4) == "roundrobin"
    assert ruled(hybrid=[1.2] * 4) == "default"


def test_equal_policies_are_rarely_distinguished() -> None:
    """False alarm per rival and past: P(N(0,1) < -1) = 0.16 by the rule; 400 pasts, so more than 0.23 has p < 1e-4.

    The model is the one of the correction: draws of a past are correlated by N / (N + K), here 1/3.
    """
    rng = np.random.default_rng(7)
    protocol = protocol_of(30, cost_mode="unit", repeats=30)
    share = protocol.served / 30
    switched = 0
    for _ in range(400):
        common, own = rng.normal() * math.sqrt(share), rng.normal(size=30) * math.sqrt(1 - share)
        switched += compare(common + own, np.zeros(30), protocol, 30).better
    assert switched / 400 < 0.23


def test_one_draw_or_no_history_tells_nothing() -> None:
    one = compare(np.array([-1.0]), np.array([0.0]), Protocol(served=2, repeats=1, losses=LOSSES), 10)
    assert (one.better, one.low, one.high) == (False, 0.0, math.inf)
    everybody = Protocol(served=10, repeats=3, losses=LOSSES)
    assert not compare(np.array([-1.0, -2.0, -1.5]), np.zeros(3), everybody, 10).better


def test_who_counts() -> None:
    quality = np.full((3, 4), np.nan)
    quality[0, :3], quality[1, :2], quality[2, [0, 2, 3]] = 0.5, 0.6, 0.7
    table = Table(("a", "b", "c"), ("w", "x", "y", "z"), quality, np.arange(1.0, 13).reshape(3, 4))
    found = telling(table)
    assert (found.tenants, found.candidates) == (("a", "c"), ("w", "x", "y", "z"))
    assert found.cost.tolist() == [[1, 2, 3, 4], [9, 10, 11, 12]]
    quality[2, 3] = np.nan
    assert telling(table).tenants == ("a",)
    assert telling(table).candidates == ("w", "x", "y")


def test_what_is_compared() -> None:
    base = SelectionConfig(policy="random", guard=0.3, price_per_second=5.0, beta_multiplier=7.0)
    found = {c.name: c.config for c in contestants_of(base)}
    assert tuple(found) == RIVALS
    assert found["default"] == SelectionConfig(guard=0.3)
    assert found["hybrid@0.01"] == SelectionConfig(policy="hybrid", guard=0.3, beta_multiplier=0.01)
    assert found["hybrid"] == SelectionConfig(policy="hybrid", guard=0.3)


def test_figures_are_percentages_and_costs() -> None:
    table, curves = world(9), [at(1.0), at(4.0), at(2.0)]
    protocol = protocol_of(9, cost_mode="known", repeats=3)
    totals = totals_of(table, protocol)
    for repeat, total in enumerate(totals):
        served, _ = protocol.draw(9, repeat)
        assert total == pytest.approx(table.cost[served].sum())
    ruling = rule({"default": curves, "hybrid": curves}, protocol, 9)
    reported = figures_of("hybrid", curves, ruling, np.array([100.0, 1000.0, 10.0]))
    assert reported.score == pytest.approx(2.0)
    assert reported.to_loss["0.05"] == CostToLoss(
        percent=2.0,
        p10=pytest.approx(1.2),
        p90=pytest.approx(3.6),
        cost=1.0,  # of 1, 40 and 0.2
        reached=1.0,
    )
    assert reported.against_default == AgainstDefault(1.0, 1.0, 1.0, better=False)
    assert figures_of("default", curves, ruling, totals).against_default is None


# The contestant that is chosen anew in each repeat.


def rivals(*names: str) -> Contestant:
    parsed = parse_contestants(names, base=SelectionConfig(), candidates=())
    return Contestant("backtested", None, parsed)


def test_it_is_parsed_with_its_rivals() -> None:
    (found,) = parse_contestants(["backtested"], base=SelectionConfig(guard=0.2), candidates=())
    assert found.config is None
    assert found.rivals == parse_contestants(RIVALS, base=SelectionConfig(guard=0.2), candidates=())


def test_the_better_rival_is_chosen_whatever_its_place() -> None:
    table, protocol = world(20), Protocol(served=4, repeats=2, losses=LOSSES)
    for names in (("random", "clairvoyant"), ("clairvoyant", "random")):
        chosen = chosen_by_backtest(table, protocol, rivals(*names), 0)
        assert chosen == Contestant("backtested", None)  # the clairvoyant, under the contestant's name


def test_the_first_stays_with_too_short_a_history() -> None:
    table, protocol = world(20), Protocol(served=4, repeats=2, losses=LOSSES, history=7)
    chosen = chosen_by_backtest(table, protocol, rivals("random", "clairvoyant"), 0)
    assert chosen.config == SelectionConfig(policy="random")


def test_the_tenants_served_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their results are replaced by nonsense: every curve of the inner replay stays as it is."""
    table, protocol = world(20), Protocol(served=4, repeats=2, losses=LOSSES)
    seen: list[list[float]] = []

    def look(curves: dict[str, list[Curve]], inner: Protocol, n_tenants: int) -> object:
        seen.append([loss for mine in curves.values() for c in mine for loss in c.loss.tolist()])
        return rule(curves, inner, n_tenants)

    monkeypatch.setattr(backtested, "rule", look)
    served, _ = protocol.draw(20, 1)
    nonsense = table.quality.copy()
    nonsense[served] = 1 - nonsense[served]
    for quality in (table.quality, nonsense):
        chosen_by_backtest(replace(table, quality=quality), protocol, rivals("random", "cheapest"), 1)
    assert seen[0] == seen[1]
    assert len(seen[0]) > 100


def test_it_runs_like_any_other() -> None:
    table, protocol = world(20), Protocol(served=4, repeats=2, losses=LOSSES)
    mine = outcome(table, protocol, rivals("random", "clairvoyant"), 1).curve
    theirs = outcome(table, protocol, Contestant("clairvoyant", None), 1).curve
    assert (mine.percent.tolist(), mine.loss.tolist()) == (theirs.percent.tolist(), theirs.loss.tolist())


def test_the_history_as_a_table() -> None:
    past = [Past(3, ("b", "a"), (0.5, 0.6), (7.0, None)), Past(4, ("a",), (None,), (1.0,))]
    found = table_of(past)
    assert (found.tenants, found.candidates) == (("3", "4"), ("a", "b"))
    assert np.array_equal(found.quality, [[np.nan, 0.5], [np.nan, np.nan]], equal_nan=True)
    assert found.cost[0, 1] == 7.0
    (only,) = past_of(telling(Table(("t",), ("a", "b", "c"), np.array([[0.1, 0.2, 0.3]]), np.ones((1, 3)))))
    assert only == Past(0, ("a", "b", "c"), (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    again = past_of(found)
    assert again[0] == Past(0, ("b",), (0.5,), (7.0,))
