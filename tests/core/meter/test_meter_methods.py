"""Every run-time method: the levels of the nodes that can be reached add up to at most delta, and rules are kept.

The trees are walked by brute force: what the meter itself answers, at every node, for every truth that can be there.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from attrs import evolve
from meter_oracles import capped_rise_automaton, deviations_automaton, ratchet_automaton

from easeml_core.errors import ConfigError
from easeml_core.meter.meter import Answered, next_signal_probabilities, read_submission
from easeml_core.meter.planner import plan_config
from easeml_core.meter.ranges import exact, late_shift, mean_branches
from easeml_core.meter.sentences import promise
from easeml_core.meter.tree_size import changes, team_steps
from easeml_core.settings.config import METER_METHODS, MeterConfig

if TYPE_CHECKING:
    from easeml_core.meter.reading import Reading

RANGES = (0.1, 0.3, 0.5)
BASE = MeterConfig(ranges=RANGES, tolerance=0.02, reliability=0.9, steps=5, tail="hoeffding")
SETTINGS = {
    "path-adaptive": {},
    "pruned": {},
    "exact-tree": {},
    "full": {},
    "first-change": {},
    "dithered": {},
    "ratchet": {},
    "deviations": {"deviations": 2},
    "automaton": {"automaton": capped_rise_automaton(4, 1).rows},
    "nonuniform": {"tolerances": (0.02, 0.03, 0.05, 0.08)},
    "multitenant": {"teams": 2},
}
LOSS = 0.25
BLIND = sorted(set(SETTINGS) - {"path-adaptive", "pruned", "dithered"})


def config_of(method: str, **more: object) -> MeterConfig:
    return evolve(BASE, method=method, **{**SETTINGS[method], **more})


def read(config: MeterConfig, gap: float | Fraction, earlier: list[Answered], n: int, **more) -> Reading:
    errors = round((exact(LOSS) + exact(gap)) * n)
    return read_submission(errors=errors, examples=n, validation_loss=LOSS, config=config, earlier=earlier, **more)


def test_every_method_of_the_settings_is_here():
    assert set(SETTINGS) == set(METER_METHODS)


def walk(config: MeterConfig, n: int, gaps: tuple[float, ...], earlier: list[Answered], team: int = 1) -> float:
    """The sum of the levels of a node and of all below it, where every one of the gaps can be measured at each."""
    readings = [read(config, gap, earlier, n, team=team) for gap in gaps]
    levels = {reading.log_level for reading in readings}
    assert len(levels) == 1, "a level may depend on earlier answers only"
    if all(reading.retired for reading in readings):
        return 0.0 if readings[0].why != "tolerance" else math.exp(levels.pop())
    total = math.exp(levels.pop())
    children = {reading.signal: reading for reading in readings if not reading.retired}
    for signal, reading in children.items():
        if not reading.ends:
            total += walk(config, n, gaps, [*earlier, Answered(signal, reading.log_cost, team)], team)
    return total


@pytest.mark.parametrize("method", BLIND)
@pytest.mark.parametrize("tail", ["hoeffding", "clopper-pearson"])
def test_levels_of_the_whole_tree_add_up_to_delta(method, tail):
    """Any signal at any node. A ratchet and a capped rise have fewer answers, an early end fewer nodes."""
    config = config_of(method, tail=tail, steps=5 if tail == "hoeffding" else 4)
    n = plan_config(config).labels + 10
    spent = sum(walk(config, n, (0.0, 0.2, 0.4, 0.6), [], team) for team in range(1, config.teams + 1))
    assert spent <= 0.1 * (1 + 1e-9)
    counted_twice = {
        "full": 0.3,
        "nonuniform": 0.4,
    }  # m^T for (m^T - 1) / (m - 1); histories of 1..j for those with a j
    assert spent >= 0.1 * counted_twice.get(method, 1 - 1e-9)


@pytest.mark.parametrize("method", sorted(set(BLIND) - {"nonuniform", "multitenant"}))
def test_levels_of_a_tree_with_an_open_end_never_exceed_delta(method):
    config = config_of(method, open_ended=True)
    spent = [0.0]

    def level_sum(earlier: list[Answered], depth: int) -> None:
        if depth == 0:
            return
        readings = [read(config, gap, earlier, 10**6) for gap in (0.0, 0.2, 0.4, 0.6)]
        spent[0] += math.exp(readings[0].log_level)
        for reading in {r.signal: r for r in readings}.values():
            if not reading.ends:
                level_sum([*earlier, Answered(reading.signal)], depth - 1)

    level_sum([], 5)
    assert spent[0] <= 0.1
    assert spent[0] == pytest.approx(0.1 * sum(6 / math.pi**2 / t**2 for t in range(1, 6)), rel=1e-9)


@pytest.mark.parametrize(
    ("method", "developer"),
    [("pruned", "any"), ("path-adaptive", "any"), ("path-adaptive", "kt"), ("path-adaptive", "sticky")],
)
@pytest.mark.parametrize("tail", ["hoeffding", "clopper-pearson"])
def test_levels_of_the_reachable_nodes_add_up_to_delta(method, developer, tail):
    """At each node the truth sits on a boundary or away from all; measured gaps lie within the radius of it."""
    config = config_of(method, developer=developer, tail=tail, tolerance=0.05, ambiguous=5)
    n = plan_config(config).labels + 10
    rng = np.random.default_rng(3)

    def spend(earlier: list[Answered]) -> float:
        truth = float(rng.choice((0.0, 0.1, 0.2, 0.3, 0.5)))
        here = read(config, truth, earlier, n)
        total = math.exp(here.log_level)
        inside = 0.9 * here.tolerance_now
        near = [read(config, Fraction(truth) + Fraction(step) * Fraction(inside), earlier, n) for step in (-1, 0, 1)]
        # The costliest reading that shows a signal is the one that spends least below; take the cheapest instead.
        children: dict[int, Reading] = {}
        for reading in near:
            if reading.signal is not None and not reading.ends:
                kept = children.get(reading.signal)
                if kept is None or reading.log_cost < kept.log_cost:
                    children[reading.signal] = reading
        return total + sum(spend([*earlier, Answered(s, r.log_cost)]) for s, r in children.items())

    spent = [spend([]) for _ in range(8)]
    assert max(spent) <= 0.1 * (1 + 1e-9)
    assert max(spent) > 0.001


def test_a_dithered_meter_reaches_as_many_ranges_in_the_mean_as_is_paid_for():
    """For a truth anywhere. The mean of 1,500 numbers in 0..1 is off by .08 with chance below 1e-8 (Hoeffding)."""
    config = config_of("dithered", tolerance=0.05)
    rng = np.random.default_rng(4)
    for truth in (0.1, 0.17, 0.3, 0.42):
        more = []
        for _ in range(1_500):
            shift = Fraction(late_shift(RANGES, rng))
            low, high = (exact(truth) + side * exact(0.05) for side in (-1, 1))
            more.append(sum(low <= exact(b) + shift < high for b in RANGES))
        assert np.mean(more) <= mean_branches(RANGES, config.tolerance) - 1 + 0.08


@pytest.mark.parametrize("method", sorted(METER_METHODS))
@pytest.mark.parametrize("tail", ["hoeffding", "clopper-pearson"])
def test_a_planned_set_gives_every_planned_answer_and_no_more(method, tail):
    """A developer in the clear gets T answers (per team T / K); the next one is refused."""
    config = config_of(method, tail=tail)
    n = plan_config(config).labels
    earlier: list[Answered] = []
    allowed = team_steps(config.steps, config.teams)[0]
    for t in range(allowed):
        reading = read(config, 0.0, earlier, n, **shift_of(config))
        assert reading.signal == 1
        assert reading.ends == (t == allowed - 1)
        assert reading.tolerance_now <= config.tolerance
        earlier.append(Answered(reading.signal, reading.log_cost))
    over = read(config, 0.0, earlier, n, **shift_of(config))
    assert (over.signal, over.why, over.log_cost, over.reachable) == (None, "steps", 0.0, 1)


def shift_of(config: MeterConfig, shift: float = 0.15) -> dict[str, float]:
    return {"shift": shift} if config.method == "dithered" else {}


@pytest.mark.parametrize("method", sorted(set(METER_METHODS) - {"path-adaptive"}))
def test_one_label_less_is_too_few_with_a_level_fixed_before(method):
    config = config_of(method)
    n = plan_config(config).labels
    assert not read(config, 0.0, [], n, **shift_of(config)).retired
    short = read(config, 0.0, [], n - 1, **shift_of(config))
    deep = read(config, 0.0, [Answered(4)], n - 1) if method == "nonuniform" else short
    assert "tolerance" in {short.why, deep.why}


def test_a_path_adaptive_meter_needs_only_the_sum_of_what_was_paid():
    rng = np.random.default_rng(5)
    for tail in ("hoeffding", "clopper-pearson"):
        config = evolve(BASE, tail=tail, tolerance=0.3, steps=20)
        earlier: list[Answered] = []
        for _ in range(15):
            errors = int(rng.integers(0, 400))
            log_weight = math.fsum(entry.log_cost for entry in earlier)
            one = read_submission(
                errors=errors, examples=800, validation_loss=0.2, config=config, log_weight=log_weight
            )
            other = read_submission(errors=errors, examples=800, validation_loss=0.2, config=config, earlier=earlier)
            assert one == other
            earlier.append(Answered(one.signal, one.log_cost))


def signals_of(config: MeterConfig, gaps: list[float], n: int = 10**6) -> list[int | None]:
    earlier: list[Answered] = []
    for gap in gaps:
        reading = read(config, gap, earlier, n)
        earlier.append(Answered(reading.signal, reading.log_cost))
        if reading.retired:
            break
    return [entry.signal for entry in earlier]


def test_a_ratchet_only_rises():
    assert signals_of(config_of("ratchet"), [0.0, 0.2, 0.0, 0.6, 0.4]) == [1, 2, 2, 4, 4]


def test_first_change_ends_with_the_first_answer_other_than_range_one():
    assert signals_of(config_of("first-change"), [0.0, 0.0, 0.4, 0.0]) == [1, 1, 3, None]


def test_deviations_end_the_set_with_one_more_than_planned():
    config = config_of("deviations", steps=20)
    assert signals_of(config, [0.0, 0.2, 0.2, 0.0, 0.0, 0.4, 0.4]) == [1, 2, 2, 1, 1, 3, None]
    assert changes([1, 2, 2, 1, 1, 3]) == 3


@pytest.mark.parametrize(
    ("method", "automaton", "more"),
    [
        ("ratchet", ratchet_automaton(4), {}),
        ("deviations", deviations_automaton(4, 2), {"deviations": 2}),
        ("first-change", deviations_automaton(4, 0), {}),
    ],
)
def test_rules_and_their_automata_answer_alike(method, automaton, more):
    rng = np.random.default_rng(6)
    for _ in range(20):
        gaps = [float(gap) for gap in rng.choice((0.0, 0.0, 0.0, 0.2, 0.4, 0.6), size=8)]
        rule = config_of(method, steps=8, **more)
        table = evolve(BASE, method="automaton", automaton=automaton.rows, steps=8)
        assert signals_of(rule, gaps) == signals_of(table, gaps)
        assert read(rule, 0.0, [], 10**5).log_level == pytest.approx(read(table, 0.0, [], 10**5).log_level, rel=1e-12)


def test_a_capped_rise_lags_behind_and_says_so():
    config = config_of("automaton", steps=8)
    assert signals_of(config, [0.6, 0.6, 0.6, 0.6, 0.0]) == [2, 3, 4, 4, 1]
    assert promise(config).startswith("the true gap is not below the range")
    assert "upper" in ratchet_automaton(3).promised_sides


@pytest.mark.parametrize("one_sided", [False, True])
def test_a_ratchet_promises_the_lower_end_of_the_worst_gap_unless_one_sided(one_sided):
    said = promise(config_of("ratchet", one_sided=one_sided))
    assert said.startswith("the true gap is not above the range")
    assert ("the largest true gap so far is not below it" in said) is not one_sided


def test_answers_that_an_automaton_cannot_have_given_are_refused():
    with pytest.raises(ConfigError, match="answers that this automaton gives"):
        read(config_of("automaton"), 0.0, [Answered(4)], 10**5)


def test_nonuniform_tolerance_follows_the_worst_signal():
    config = config_of("nonuniform")
    n = plan_config(config).labels
    for answers, tolerance in (([], 0.02), ([1], 0.02), ([2, 1], 0.03), ([3, 4, 1], 0.08)):
        reading = read(config, 0.0, [Answered(answer) for answer in answers], n)
        assert reading.tolerance_now == pytest.approx(tolerance, rel=1e-3)
        assert reading.tolerance_now <= tolerance


def test_teams_neither_pay_for_nor_hear_of_each_other():
    for method in ("path-adaptive", "multitenant"):
        config = config_of(method, teams=2, steps=10, tolerance=0.1, tail="hoeffding")
        earlier = [Answered(2, math.log(2), 1), Answered(2, math.log(2), 1), Answered(None, 0.0, 1)]
        mine, other = read(config, 0.0, earlier, 5_000, team=1), read(config, 0.0, earlier, 5_000, team=2)
        assert (mine.signal, mine.why) == (None, "retired")
        assert other == read(config, 0.0, [], 5_000, team=2)
        assert other.signal == 1
    with pytest.raises(ConfigError, match="team must be a whole number, 1 to 2"):
        read(config, 0.0, [], 5_000, team=3)


def test_dithered_edges_are_shown_and_used():
    config = config_of("dithered")
    reading = read(config, 0.12, [], 10**6, shift=0.05)
    assert reading.signal == 1
    assert reading.edges == pytest.approx((0.15, 0.35, 0.55))
    assert read(config, 0.12, [], 10**6, shift=0.01).signal == 2
    for wrong in (None, 0.2, -0.01, math.nan):
        with pytest.raises(ConfigError, match="shift must be"):
            read(config, 0.12, [], 10**6, shift=wrong)
    with pytest.raises(ConfigError, match="shift must be given with 'dithered', and only then"):
        read(BASE, 0.12, [], 10**6, shift=0.01)
    assert {round(late_shift(RANGES, np.random.default_rng(seed)), 3) < 0.2 for seed in range(50)} == {True}


@pytest.mark.parametrize("developer", ["any", "kt", "sticky"])
def test_guessed_chances_of_all_histories_add_up_to_one(developer):
    def total(answers: list[int], depth: int) -> float:
        if depth == 0:
            return 1.0
        chances = next_signal_probabilities(developer, 3, answers)
        return sum(chance * total([*answers, i], depth - 1) for i, chance in enumerate(chances, start=1))

    assert total([], 6) == pytest.approx(1, rel=1e-12)
    assert min(next_signal_probabilities(developer, 3, [1, 1, 2])) > 0


def test_a_guess_that_comes_true_is_cheaper_and_a_wrong_one_dearer():
    ambiguous = {}
    for developer in ("any", "kt", "sticky"):
        config = config_of("path-adaptive", developer=developer, steps=40, tolerance=0.3)
        earlier: list[Answered] = []
        for _ in range(20):  # always just below the first boundary
            reading = read(config, 0.0999, earlier, 20_000)
            assert reading.reachable == 2
            earlier.append(Answered(reading.signal, reading.log_cost))
        change = read(config, 0.1001, earlier, 20_000)
        ambiguous[developer] = math.fsum(entry.log_cost for entry in earlier), change.log_cost
    assert ambiguous["any"] == (pytest.approx(20 * math.log(2)), pytest.approx(math.log(2)))
    for developer in ("kt", "sticky"):
        assert ambiguous[developer][0] < 0.5 * ambiguous["any"][0]
        assert ambiguous[developer][1] > 3 * ambiguous["any"][1]


def test_one_sided_readings_use_the_whole_level_above():
    for tail in ("hoeffding", "clopper-pearson"):
        config = config_of("exact-tree", one_sided=True, tail=tail)
        twice = evolve(config, one_sided=False, reliability=0.8)
        one, two = read(config, 0.0, [], 10**5), read(twice, 0.0, [], 10**5)
        assert one.high == pytest.approx(two.high, rel=1e-9)
        assert (one.low, one.reachable) == (0.0, 4)
        assert promise(config).startswith("the true gap is not above")


@pytest.mark.parametrize("open_ended", [False, True])
def test_pruned_ranges_are_checked_at_run_time_too(open_ended):
    with pytest.raises(ConfigError, match="at least 2 tolerances wide"):
        read(config_of("pruned", ranges=(0.1, 0.13, 0.5), open_ended=open_ended), 0.0, [], 1_000)


def test_teams_share_all_steps_as_evenly_as_can_be():
    for steps in range(1, 40):
        for teams in range(1, steps + 1):
            shares = team_steps(steps, teams)
            assert (len(shares), sum(shares)) == (teams, steps)
            assert max(shares) - min(shares) <= 1


def test_an_old_plan_keeps_its_meaning():
    """Settings stored before there were methods."""
    old = {
        "ranges": [0.2, 0.6],
        "tolerance": 0.1,
        "reliability": 0.95,
        "steps": 8,
        "ambiguous": 2,
        "tail": "clopper-pearson",
        "overfitting_budget": 1,
    }
    config = MeterConfig.from_json(old)
    assert config == MeterConfig()
    assert config.method == "path-adaptive"
    assert MeterConfig.from_json(config.to_json()) == config
    table = config_of("automaton")
    again = MeterConfig.from_json({**table.to_json(), "automaton": [[list(a) for a in row] for row in table.automaton]})
    assert again == table
    assert hash(again) == hash(table)
