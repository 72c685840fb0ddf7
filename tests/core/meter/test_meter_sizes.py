"""Sizes of sealed meter sets: the specification's tables (sections 4.4, 4.7, 5.1 to 5.4, 8 and 8.1)."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from easeml_core.meter.meter import next_signal_probabilities
from easeml_core.meter.planner import MeterPlan, plan_meter
from easeml_core.meter.reading import interval_size
from easeml_core.meter.tree_size import log_sides

WIDE = {2: (0.5,), 3: (0.3, 0.6), 5: (0.2, 0.4, 0.6, 0.8)}
"""Boundaries per number of signals; all inner ranges at least two tolerances of 0.05 wide."""


def plan(method: str = "path-adaptive", *, eps: float = 0.05, steps: int = 32, m: int = 5, **rest) -> MeterPlan:
    return plan_meter(ranges=WIDE[m], tolerance=eps, reliability=0.99, steps=steps, method=method, **rest)


# Section 5.1, delta = 0.01, m = 5. Columns: eps .05 at T = 32, 100, 1000; eps .02 at T = 100, 32 (where given).
COLUMNS = ((0.05, 32), (0.05, 100), (0.05, 1000), (0.02, 100), (0.02, 32))
TABLE_5_1 = {
    ("fresh", 0): (56_096, 198_100, 2_442_000, 1_238_000, 350_592),
    ("score", 0): (70_251, 246_913, 2_979_534, 1_788_219, 516_363),
    ("full", 0): (11_361, 33_249, 322_948, 207_803, None),
    ("exact-tree", 0): (11_083, 32_972, 322_670, 206_070, None),
    ("pruned", 0): (5_496, 14_923, 139_690, 93_267, None),
    ("path-adaptive", 5): (2_446, 2_674, 3_135, 16_712, 15_288),
    ("path-adaptive", 10): (3_140, 3_367, 3_828, 21_044, 19_620),
    ("non-adaptive", 0): (1_753, 1_981, 2_442, 12_380, 10_956),
    ("first-change", 0): (1_753, 1_981, 2_442, 12_380, 10_956),
    ("ratchet", 0): (3_628, 4_728, 7_012, 29_545, 22_673),
    ("deviations", 0): (3_997, 4_930, 6_782, 30_812, 24_978),
}
CELLS_5_1 = [
    pytest.param(method, b, eps, steps, labels, id=f"{method}-b{b}-eps{eps}-T{steps}")
    for (method, b), row in TABLE_5_1.items()
    for (eps, steps), labels in zip(COLUMNS, row, strict=True)
    if labels is not None
]


@pytest.mark.parametrize(("method", "b", "eps", "steps", "labels"), CELLS_5_1)
def test_table_5_1(method, b, eps, steps, labels):
    assert plan(method, eps=eps, steps=steps, ambiguous=b).labels == labels


@pytest.mark.parametrize(("steps", "labels"), [(32, 923), (100, 1_023), (1_000, 1_225)])
def test_table_5_1_with_exact_intervals(steps, labels):
    assert plan(steps=steps, ambiguous=5, tail="clopper-pearson", error_rate=0.1).labels == labels


@pytest.mark.parametrize(
    ("eps", "steps", "labels"),
    [(0.05, 32, 2_548), (0.05, 100, 5_028), (0.05, 1_000, 37_846), (0.02, 100, 31_425), (0.02, 32, 15_924)],
)
def test_table_5_1_with_shifted_boundaries_ten_tolerances_apart(eps, steps, labels):
    ranges = (0.1, 0.6) if eps == 0.05 else (0.1, 0.3, 0.5, 0.7)
    found = plan_meter(ranges=ranges, tolerance=eps, reliability=0.99, steps=steps, method="dithered")
    assert found.labels == labels


@pytest.mark.parametrize(
    ("eps", "steps", "labels"),
    [(0.05, 32, 3_635), (0.05, 96, 8_785), (0.05, 1_000, 81_532), (0.02, 96, 54_907), (0.02, 32, 22_718)],
)
def test_table_5_1_with_four_teams(eps, steps, labels):
    assert plan("multitenant", eps=eps, steps=steps, teams=4).labels == labels


@pytest.mark.parametrize(
    ("teams", "labels"), [(1, 11_083), (2, 6_072), (4, 3_635), (8, 2_486), (16, 1_973), (32, 1_753)]
)
def test_table_5_4(teams, labels):
    assert plan("multitenant", teams=teams).labels == labels


@pytest.mark.parametrize(
    ("tolerances", "steps", "labels"),
    [
        ((0.02, 0.04, 0.05, 0.06, 0.08), 16, 10_089),
        ((0.02, 0.04, 0.05, 0.06, 0.08), 32, 10_956),
        ((0.02, 0.04, 0.05, 0.06, 0.08), 100, 23_351),
        ((0.02, 0.05, 0.07, 0.09, 0.1), 100, 14_950),
    ],
)
def test_section_4_4_with_tolerances_by_the_worst_signal(tolerances, steps, labels):
    assert plan("nonuniform", steps=steps, tolerances=tolerances).labels == labels


def test_exact_intervals_are_long_enough_at_every_tolerance():
    """Of levels that need equally many examples by Hoeffding's inequality, exact intervals need different numbers."""
    tolerances, rate = (0.02, 0.04, 0.05, 0.06, 0.08), 0.1
    levels = log_sides(tolerances, 32, math.log(0.01), 2)
    sizes = [
        interval_size(tail="clopper-pearson", log_side=level, tolerance=tolerance, error_rate=rate, one_sided=False)
        for level, tolerance in zip(levels, tolerances, strict=True)
    ]
    found = plan("nonuniform", steps=32, tolerances=tolerances, tail="clopper-pearson", error_rate=rate)
    assert (found.labels, min(sizes) < max(sizes)) == (max(sizes), True)


def test_section_4_7_with_guessed_histories():
    """Krichevsky and Trofimov's guess after 90 green and 9 yellow answers of T = 100."""
    answers = [1] * 90 + [2] * 9
    log_chance = sum(
        math.log(next_signal_probabilities("kt", 5, answers[:t])[answer - 1]) for t, answer in enumerate(answers)
    )
    assert math.ceil((math.log(2 * 100 / 0.01) - log_chance) / (2 * 0.05**2)) == 9_844


@pytest.mark.parametrize(("eps", "sizes"), [(0.05, (6_364, 7_801, 10_592)), (0.02, (39_775, 48_753, 66_194))])
def test_section_8_with_guess_and_check(eps, sizes):
    """ln N = ln C(T - 1, f) + f ln(m - 1) + ln T + ln(zeta(2) (f + 1)^2), f = 5 failed guesses, m = 5 signals."""
    for steps, labels in zip((32, 100, 1_000), sizes, strict=True):
        log_nodes = math.log(math.comb(steps - 1, 5) * 4**5 * steps * math.pi**2 / 6 * 6**2)
        assert math.ceil((log_nodes + math.log(200)) / (2 * eps**2)) == labels


@pytest.mark.parametrize(
    ("method", "eps", "labels"),
    [
        ("non-adaptive", 0.1, 404),
        ("non-adaptive", 0.05, 1_615),
        ("non-adaptive", 0.025, 6_457),
        ("non-adaptive", 0.01, 40_355),
        ("full", 0.1, 1_340),
        ("full", 0.05, 5_358),
        ("full", 0.025, 21_429),
        ("full", 0.01, 133_930),
    ],
)
def test_section_8_1_one_sided_with_two_signals_is_ease_ml_ci(method, eps, labels):
    """Renggli et al. (2019), Figure 2, one variable, H = 32, 1 - delta = .99."""
    assert plan(method, eps=eps, m=2, one_sided=True).labels == labels


@pytest.mark.parametrize("rate", [0.1, 0.8])
def test_one_sided_exact_intervals_are_just_narrow_enough_by_scipys_beta_quantiles(rate):
    found = plan("exact-tree", tail="clopper-pearson", error_rate=rate, one_sided=True)
    level = 0.01 * math.exp(-found.log_nodes)

    def reach(n: int) -> float:
        k = round(n * rate)
        return stats.beta.isf(level, k + 1, n - k) - k / n

    assert reach(found.labels) <= 0.05 < reach(found.labels - 1)
    assert found.labels < plan("exact-tree", tail="clopper-pearson", error_rate=rate).labels


def test_uniform_tolerance_of_section_4_4():
    assert plan("exact-tree", eps=0.02, steps=16).labels == 37_079


TABLE_5_2 = {
    (0.1, 8): ((543, 542), (705, 670), (909, 840)),
    (0.1, 32): ((1_374, 1_374), (2_023, 1_989), (2_841, 2_771)),
    (0.05, 8): ((2_169, 2_168), (2_818, 2_679), (3_635, 3_358)),
    (0.05, 16): ((3_278, 3_278), (4_576, 4_437), (6_210, 5_933)),
    (0.05, 32): ((5_496, 5_496), (8_091, 7_953), (11_361, 11_083)),
    (0.02, 8): ((13_555, 13_550), (17_610, 16_743), (22_718, 20_985)),
}


@pytest.mark.parametrize(("eps", "steps"), TABLE_5_2)
def test_table_5_2(eps, steps):
    for m, (full, tree) in zip((2, 3, 5), TABLE_5_2[eps, steps], strict=True):
        assert plan("full", eps=eps, steps=steps, m=m).labels == full
        assert plan("exact-tree", eps=eps, steps=steps, m=m).labels == tree


RATES = (0.5, 0.2, 0.1, 0.05)
TABLE_5_3 = {
    ("non-adaptive", 32): (1_753, 1_313, 952, 622, 418),
    ("exact-tree", 32): (11_083, 10_400, 7_475, 4_816, 3_154),
    ("pruned", 32): (5_496, 4_914, 3_536, 2_282, 1_500),
    ("path-adaptive", 32): (2_446, 1_966, 1_421, 923, 609),
    ("exact-tree", 1_000): (322_670, 320_160, 229_760, 147_640, 96_320),
}


@pytest.mark.parametrize(("method", "steps"), TABLE_5_3)
def test_table_5_3(method, steps):
    hoeffding, *exact_sizes = TABLE_5_3[method, steps]
    assert plan(method, steps=steps, ambiguous=5).labels == hoeffding
    for rate, labels in zip(RATES, exact_sizes, strict=True):
        found = plan(method, steps=steps, ambiguous=5, tail="clopper-pearson", error_rate=rate).labels
        assert found == pytest.approx(labels, rel=1e-3)
