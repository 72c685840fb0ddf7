"""Planning a sealed meter set: exact sizes against scipy, how sizes move, and what is refused."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meter_oracles import deviations_automaton, ratchet_automaton
from property_sizes import at_night, examples
from scipy import stats

from easeml_core.errors import ConfigError
from easeml_core.formats.encoding import to_json
from easeml_core.meter.meter import read_submission
from easeml_core.meter.planner import MeterPlan, plan_meter, validation_minimum
from easeml_core.meter.tree_size import METHODS
from easeml_core.settings.config import MeterConfig

WIDE = {2: (0.5,), 3: (0.3, 0.6), 5: (0.2, 0.4, 0.6, 0.8), 10: tuple(i / 10 for i in range(1, 10))}
"""Boundaries per number of signals; all inner ranges at least two tolerances of 0.05 wide."""

moderate = settings(deadline=None, max_examples=examples(150))


def plan(method: str = "path-adaptive", *, eps: float = 0.05, steps: int = 32, m: int = 5, **rest) -> MeterPlan:
    return plan_meter(ranges=WIDE[m], tolerance=eps, reliability=0.99, steps=steps, method=method, **rest)


@pytest.mark.parametrize("method", ["path-adaptive", "pruned", "dithered"])
def test_one_side_is_not_enough_to_know_which_ranges_can_be_answered(method):
    with pytest.raises(ConfigError, match="one_sided must be false with the method"):
        plan_meter(ranges=(0.1, 0.3, 0.5), tolerance=0.05, reliability=0.99, steps=8, method=method, one_sided=True)


def test_an_automaton_counts_its_walks():
    """Against counting every history one by one, and against the closed forms of two rules."""
    for signals, steps in ((2, 7), (3, 6), (4, 5)):
        edges = tuple(i / 10 for i in range(1, signals))
        for name, automaton, more in (
            ("ratchet", ratchet_automaton(signals), {}),
            ("deviations", deviations_automaton(signals, 2), {"deviations": 2}),
        ):
            by_table = plan_meter(
                ranges=edges, tolerance=0.02, reliability=0.9, steps=steps, method="automaton", automaton=automaton.rows
            )
            closed = plan_meter(ranges=edges, tolerance=0.02, reliability=0.9, steps=steps, method=name, **more)
            assert by_table.log_nodes == pytest.approx(closed.log_nodes, rel=1e-12)
            assert by_table.labels == closed.labels
            histories = [()]
            level = [()]
            for _ in range(steps - 1):
                level = [
                    (*history, answer)
                    for history in level
                    for answer in {a for a, n in automaton.rows[automaton.state_after(history)] if n is not None}
                ]
                histories += level
            assert math.exp(by_table.log_nodes) == pytest.approx(len(histories), rel=1e-9)


@pytest.mark.parametrize(
    ("method", "more", "paid"),
    [
        ("path-adaptive", {"ambiguous": 5}, 32),
        ("pruned", {}, 2**31),
        ("exact-tree", {}, 5**31),
        ("first-change", {}, 1),
        ("ratchet", {}, math.comb(31 + 4, 4)),
        ("deviations", {}, sum(math.comb(31, j) * 4**j for j in range(4))),
        ("dithered", {}, 1.5**31),
        ("automaton", {"automaton": ratchet_automaton(5).rows}, math.comb(31 + 4, 4)),
    ],
)
def test_an_open_end_pays_by_the_level_of_the_last_planned_step(method, more, paid):
    found = plan(method, open_ended=True, **more)
    assert found.log_nodes == pytest.approx(math.log(math.pi**2 / 6 * 32**2 * paid), rel=1e-12)


def test_teams_with_an_open_end_share_delta_and_plan_for_their_own_steps():
    found = plan(open_ended=True, teams=4, ambiguous=5)
    assert found.log_nodes == pytest.approx(math.log(4 * math.pi**2 / 6 * 8**2 * 2**5), rel=1e-12)


@pytest.mark.parametrize("method", ["fresh", "score", "non-adaptive", "nonuniform", "multitenant"])
def test_an_open_end_is_refused_where_steps_are_counted(method):
    more = {"tolerances": (0.05,) * 5} if method == "nonuniform" else {}
    with pytest.raises(ConfigError, match="open_ended must be false with the method"):
        plan(method, open_ended=True, **more)


def test_ten_thousand_steps_are_planned_without_loss_of_digits():
    """Against whole numbers of thousands of digits."""
    exact_counts = {
        "exact-tree": (5**10_000 - 1) // 4,
        "pruned": 2**10_000 - 1,
        "ratchet": math.comb(10_004, 5),
        "deviations": sum(math.comb(10_000, j + 1) * 4**j for j in range(4)),
        "automaton": math.comb(10_004, 5),
        "multitenant": 4 * (5**2_500 - 1) // 4,
        "nonuniform": 10_000 + sum((j**10_000 - 1) // (j - 1) for j in (2, 3, 4, 5)),
    }
    more = {
        "automaton": {"automaton": ratchet_automaton(5).rows},
        "multitenant": {"teams": 4},
        "nonuniform": {"tolerances": (0.02, 0.04, 0.05, 0.06, 0.08)},
    }
    for method, count in exact_counts.items():
        found = plan(method, steps=10_000, **more.get(method, {}))
        assert found.log_nodes == pytest.approx(math.log(count), rel=1e-12)
        assert plan(method, steps=10_000, tail="clopper-pearson", error_rate=0.1, **more.get(method, {})).labels > 0


@pytest.mark.parametrize(("eps", "labels"), [(0.1, 265), (0.05, 1_060), (0.02, 6_623)])
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"full", "automaton", "nonuniform"}))
def test_one_use_costs_the_same_with_every_method(method, eps, labels):
    # ``full`` counts m^1 where one node would do, and ``nonuniform`` one for each tolerance.
    assert plan(method, eps=eps, steps=1).labels == labels


@pytest.mark.parametrize("rate", [0.5, 0.2, 0.1, 0.05])
@pytest.mark.parametrize("method", ["non-adaptive", "exact-tree", "pruned", "path-adaptive"])
def test_exact_size_is_just_enough_by_scipys_beta_quantiles(method, rate):
    found = plan(method, ambiguous=5, tail="clopper-pearson", error_rate=rate)
    side = 0.01 / 2 * math.exp(-found.log_nodes)

    def reach(n: int) -> float:
        k = round(n * rate)
        return max(k / n - stats.beta.ppf(side, k, n - k + 1), stats.beta.isf(side, k + 1, n - k) - k / n)

    assert reach(found.labels) <= 0.05 < reach(found.labels - 1)
    assert min(reach(n) for n in range(found.labels * 9 // 10, found.labels * 98 // 100)) > 0.05


def test_deep_trees_do_not_fall_into_the_underflow_of_the_tail():
    """T = 1000, m = 5: each side has level e^-1613; tails that underflow at e^-745 lead to 147,200 labels."""
    found = plan("exact-tree", steps=1_000, tail="clopper-pearson", error_rate=0.5)
    assert found.labels == pytest.approx(320_160, rel=1e-3)
    assert found.log_nodes == pytest.approx(1_000 * math.log(5) - math.log(4), rel=1e-12)
    assert stats.binom.logcdf(147_200 // 2, 147_200, 0.55) == -math.inf


@pytest.mark.parametrize("rate", [0.0, 0.0001, 0.001, 0.02, 0.999, 1.0])
def test_rare_errors_need_fewer_labels_than_hoeffding(rate):
    found = plan(tail="clopper-pearson", error_rate=rate)
    assert 1 <= found.labels < plan().labels
    mirrored = plan(tail="clopper-pearson", error_rate=1 - rate)
    # Rounding n p to the even number is not symmetric; one example either way.
    assert found.labels == pytest.approx(mirrored.labels, abs=1)


def test_no_errors_at_all_has_a_closed_form():
    found = plan("non-adaptive", tail="clopper-pearson", error_rate=0.0)
    assert found.labels == math.ceil(math.log(0.01 / 2 / 32) / math.log(0.95))


@pytest.mark.parametrize(
    ("eps", "steps", "b"), [(0.05, 1, 0), at_night(0.05, 8, 2), (0.1, 12, 3), (0.3, 5, 2), (0.9, 7, 1)]
)
def test_planned_without_an_error_rate_no_count_of_errors_is_too_uncertain(eps, steps, b):
    config = MeterConfig(ranges=(0.5,), tolerance=eps, reliability=0.99, steps=steps, tail="clopper-pearson")

    def retired(n: int) -> list[int]:
        log_weight = b * math.log(2)
        return [
            k
            for k in range(n + 1)
            if read_submission(errors=k, examples=n, validation_loss=0.5, config=config, log_weight=log_weight).retired
        ]

    n = plan(eps=eps, steps=steps, m=2, ambiguous=b, tail="clopper-pearson").labels
    assert retired(n) == []
    assert retired(n - 1) != []
    assert retired(plan(eps=eps, steps=steps, m=2, ambiguous=b, tail="clopper-pearson", error_rate=0.5).labels) != []


def test_number_of_signals_is_free_where_branches_are_pruned():
    for method in ("pruned", "path-adaptive"):
        assert plan(method, m=3).labels == plan(method, m=10).labels
    assert plan("exact-tree", m=3).labels < plan("exact-tree", m=10).labels


def test_answers_after_the_last_submission_cost_nothing():
    assert plan(steps=4, ambiguous=3) == plan(steps=4, ambiguous=1_000)


def test_pruned_compares_widths_as_decimals():
    """.3 - .2 < .1 in floats, yet two tolerances of .05 fit."""
    assert 0.3 - 0.2 < 2 * 0.05
    ranges = (0.1, 0.2, 0.3)
    kept = plan_meter(ranges=ranges, tolerance=0.05, reliability=0.99, steps=32, method="pruned")
    assert kept.labels == 5_496
    with pytest.raises(ConfigError, match="at least 2 tolerances wide between boundaries"):
        plan_meter(ranges=(0.1, 0.2, 0.2999), tolerance=0.05, reliability=0.99, steps=32, method="pruned")


def test_warnings_compare_widths_as_decimals():
    def warned(ranges, tolerance) -> str:
        return " ".join(plan_meter(ranges=ranges, tolerance=tolerance, reliability=0.9, steps=8).warnings)

    assert warned((0.1, 0.2, 0.3), 0.025) == ""
    assert "narrower than 4 tolerances (0.1)" in warned((0.1, 0.2, 0.2999), 0.025)
    assert warned((0.06,), 0.03) == ""
    assert "first boundary 0.05 is below 2 tolerances (0.06)" in warned((0.05,), 0.03)


@pytest.mark.parametrize("method", ["non-adaptive", "first-change", "fresh"])
def test_methods_with_a_condition_name_it(method):
    assert plan(method).warnings[0].startswith(method + ": ")


def test_a_plan_of_an_automaton_names_what_it_promises():
    (warning,) = plan("automaton", automaton=ratchet_automaton(5).rows).warnings
    assert warning.startswith("automaton: it promises that the true gap is not above the range")


@pytest.mark.parametrize(("b_1", "minimum"), [(0.05, 1_060), (0.02, 6_623), (0.0, None), (-0.1, None)])
def test_least_validation_set(b_1, minimum):
    assert validation_minimum(ranges=(b_1, 0.9), reliability=0.99) == minimum
    found = plan_meter(ranges=(b_1, 0.9), tolerance=0.05, reliability=0.99, steps=3)
    assert found.validation_minimum == minimum


def test_plan_is_plain_json():
    text = json.dumps(to_json(plan("fresh")))
    assert json.loads(text)["labels"] == 56_096
    assert json.loads(text)["warnings"] == list(plan("fresh").warnings)


@moderate
@given(
    st.sampled_from(sorted(set(METHODS) - {"automaton", "nonuniform"})),
    st.floats(0.01, 0.09),
    st.floats(0.5, 0.9999),
    st.integers(1, 300),
    st.integers(0, 20),
    st.integers(0, 10),
)
def test_more_of_anything_never_needs_fewer_labels(method, eps, reliability, steps, ambiguous, more):
    def labels(*, eps=eps, reliability=reliability, steps=steps, ambiguous=ambiguous) -> int:
        return plan_meter(
            ranges=WIDE[5], tolerance=eps, reliability=reliability, steps=steps, method=method, ambiguous=ambiguous
        ).labels

    here = labels()
    assert labels(steps=steps + more) >= here
    assert labels(reliability=reliability + (1 - reliability) * more / 11) >= here
    assert labels(eps=eps * (1 - more / 20)) >= here
    assert labels(ambiguous=ambiguous + more) >= here


@moderate
@given(st.integers(1, 3_000), st.sampled_from(sorted(WIDE)))
def test_methods_keep_their_order_of_price(steps, m):
    if m == 10:
        return
    if m == 2:
        return  # nothing to shift
    methods = set(METHODS) - {"automaton", "nonuniform"}
    price = {method: plan(method, steps=steps, m=m, ambiguous=5).log_nodes for method in methods}
    assert price["first-change"] <= price["deviations"] + 1e-9
    assert price["ratchet"] <= price["exact-tree"] + 1e-9
    assert price["deviations"] <= price["exact-tree"] + 1e-9
    assert price["dithered"] <= price["pruned"] + 1e-9
    assert price["multitenant"] == price["exact-tree"]
    assert price["non-adaptive"] == price["first-change"] <= price["path-adaptive"] + 1e-12
    assert price["non-adaptive"] <= price["pruned"] + 1e-12
    assert price["pruned"] <= price["exact-tree"] + 1e-9
    assert price["exact-tree"] <= price["full"] + 1e-9
    assert price["exact-tree"] <= price["score"] + 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "guess"}, "method must be one of path-adaptive, pruned"),
        ({"tail": "normal"}, "tail must be one of hoeffding, clopper-pearson"),
        ({"ranges": ()}, "ranges must be rising"),
        ({"ranges": (0.2, 0.1)}, "ranges must be rising"),
        ({"ranges": (math.nan,)}, "ranges must be rising"),
        ({"tolerance": 0.0}, "tolerance must be >= 1e-9 and < 1"),
        ({"tolerance": math.nan}, "tolerance must be"),
        ({"reliability": 1.0}, "reliability must be > 0 and < 1"),
        ({"steps": 0}, "steps must be a whole number, 1 to 1000000"),
        ({"steps": 2.5}, "steps must be a whole number, 1 to 1000000"),
        ({"ambiguous": -1}, "ambiguous must be >= 0"),
        ({"error_rate": 1.2}, r"error_rate must be in \[0, 1\]"),
        ({"error_rate": math.nan}, "error_rate must be"),
        ({"method": "dithered"}, "at least two boundaries, all the same distance apart"),
        ({"method": "dithered", "ranges": (0.1,)}, "at least two boundaries, all the same distance apart"),
        ({"method": "nonuniform"}, "tolerances must be 3 numbers between 0 and 1 that never fall"),
        ({"method": "nonuniform", "tolerances": (0.2, 0.1, 0.3)}, "tolerances must be 3 numbers"),
        ({"tolerances": (0.1, 0.1, 0.1)}, "tolerances must be left out, except with the method 'nonuniform'"),
        ({"method": "multitenant", "teams": 9}, "teams must be a whole number, 1 to the 8 steps"),
        ({"method": "ratchet", "teams": 2}, "teams must be 1 with the method 'ratchet'"),
        ({"method": "deviations", "deviations": -1}, "deviations must be a whole number, 0 to 100000"),
        ({"method": "automaton"}, "automaton must be a table of states"),
        ({"method": "automaton", "automaton": (((1, 0), (2, 0)),)}, "rows of 3 arrows"),
        ({"method": "automaton", "automaton": (((1, 0), (2, 5), (3, 0)),)}, "pairs of an answer 1..3 and a state"),
        ({"method": "automaton", "automaton": (((1, 0), (2, -1), (3, 0)),)}, "pairs of an answer 1..3 and a state"),
        ({"method": "automaton", "automaton": (((2, 0), (1, 0), (3, 0)),)}, "answers never below, or never above"),
        ({"method": "automaton", "automaton": (((1, 0), (1, None), (3, 0)),)}, "lead to the same state"),
        ({"method": "automaton", "automaton": (((1, 0), (2, 0)), ((1, 0), (2, 0), (3, 0)))}, "rows of the same length"),
        (
            {"method": "automaton", "automaton": (((1, 0), (1, 0), (3, 0)),), "one_sided": True},
            "never below the signal",
        ),
        ({"method": "full", "developer": "kt"}, "developer must be 'any'"),
        ({"open_ended": 1}, "open_ended must be true or false"),
    ],
)
def test_wrong_plans_are_refused(change, message):
    right = {"ranges": (0.1, 0.3), "tolerance": 0.05, "reliability": 0.99, "steps": 8}
    if change.get("method") == "dithered" and "ranges" not in change:
        right |= {"ranges": (0.1, 0.3, 0.6)}
    with pytest.raises(ConfigError, match=message):
        plan_meter(**{**right, **change})


@pytest.mark.parametrize("change", [{"ranges": ()}, {"reliability": 1.0}, {"reliability": 0.0}])
def test_wrong_validation_plans_are_refused(change):
    with pytest.raises(ConfigError):
        validation_minimum(**{"ranges": (0.1,), "reliability": 0.9, **change})
