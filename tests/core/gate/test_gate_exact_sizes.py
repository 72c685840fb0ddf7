"""The planner's exact sizes: the figures, and whether the judge keeps what the plan says, by direct sums."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import at_night, examples
from scipy.stats import binom, multinomial

from easeml_core.entities import Verdict
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import decide_counts
from easeml_core.gate.outcomes import Outcomes
from easeml_core.gate.planner import plan_gate
from easeml_core.stats import binomial_bounds

PATTERN = "n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01"


def plan(source, *, reliability=0.9999, steps=32, adaptivity="none", mode="fp-free", **more):
    condition = parse_condition(source)
    return plan_gate(condition, reliability=reliability, steps=steps, adaptivity=adaptivity, mode=mode, **more)


# From the first size that meets the requirement to the first from which all do; power as for the level, and 0.9. Those
# of ``full`` are made by golden_full_sizes.py beside this file.
TABLE = [
    ("n > 0.9 +/- 0.01", {"adaptivity": "none"}, (16_669, 16_743), (7_003, 7_079)),
    ("n > 0.9 +/- 0.01", {"adaptivity": "full"}, (45_309, 45_394), (15_943, 16_031)),
    (PATTERN, {"adaptivity": "none"}, (20_173, 20_258), (8_409, 8_488)),
    (PATTERN, {"adaptivity": "firstChange"}, (20_173, 20_258), (8_409, 8_488)),
    (PATTERN, {"adaptivity": "full"}, (54_861, 54_918), (19_101, 19_179)),
    (PATTERN, {"adaptivity": "upTo:3"}, (29_983, 30_069), (11_542, 11_621)),
    (PATTERN, {"adaptivity": "upTo:3", "changes": 2}, (29_983, 30_069), (11_542, 11_621)),
    (PATTERN, {"adaptivity": "recycle"}, (20_173, 20_258), (8_409, 8_488)),
    (PATTERN, {"adaptivity": "recycle", "changes": 1}, (26_759, 26_844), (10_518, 10_597)),
]


@pytest.mark.parametrize(("source", "asked", "same", "nine"), TABLE)
def test_sizes_lie_where_they_must(source, asked, same, nine):
    assert same[0] <= plan(source, **asked).labels <= same[1]
    assert nine[0] <= plan(source, **asked, power=0.9).labels <= nine[1]


@pytest.mark.parametrize("order", [1, -1])
def test_a_clause_on_d_needs_no_label_and_lends_its_bound(order):
    found = plan(" /\\ ".join(PATTERN.split(" /\\ ")[::order]))
    assert (found.method, found.estimator) == ("trinomial", "exact")
    assert 16_600 < found.unlabelled < 16_800
    assert found.labels_per_submission == math.ceil(found.labels / 10)
    assert found.examples == found.labels
    alone = plan("d < 0.1 +/- 0.01")
    assert (alone.labels, alone.labels_per_submission, alone.unlabelled) == (0, 0, found.unlabelled)


@pytest.mark.parametrize("estimator", ["exact", "paper"])
def test_a_clause_on_one_model_needs_every_label(estimator):
    for source in ("n > 0.9 +/- 0.05 /\\ d < 0.1 +/- 0.05", "n - 1.1 * o > 0 +/- 0.05 /\\ d < 0.1 +/- 0.05"):
        found = plan(source, estimator=estimator)
        assert found.labels_per_submission == found.labels


def test_every_clause_has_the_whole_level_for_a_pass_and_a_part_for_a_fail():
    alone, both = plan("n > 0.9 +/- 0.01"), plan("n > 0.9 +/- 0.01 /\\ o > 0.5 +/- 0.1 /\\ d < 0.5 +/- 0.1")
    assert both.labels == alone.labels
    fails = plan("n > 0.9 +/- 0.01 /\\ o > 0.5 +/- 0.1 /\\ d < 0.5 +/- 0.1", mode="fn-free", power=0.9)
    third = plan("n > 0.9 +/- 0.01", mode="fn-free", power=0.9, slices=3)
    assert fails.labels == third.labels > plan("n > 0.9 +/- 0.01", mode="fn-free", power=0.9).labels
    # Slices are further members of the conjunction; the paper's union bound divides in either mode.
    assert plan("n > 0.9 +/- 0.01", slices=3).labels == alone.labels
    assert (
        plan("n > 0.9 +/- 0.01", slices=3, estimator="paper").labels
        > plan("n > 0.9 +/- 0.01", estimator="paper").labels
    )


def test_estimates_have_their_sizes():
    assert plan("n > 0.9 +/- 0.05", target="estimate").labels == 2_060
    assert plan("n > 0.3 +/- 0.05", target="estimate", adaptivity="full", mode="fn-free").labels == 5_704
    assert plan("d < 0.9 +/- 0.025", target="estimate", reliability=0.99).unlabelled == 4_720
    paired = plan(PATTERN, target="estimate")
    # One-sided Bennett at the whole level: ln(M / delta) / (p h(eps / p)).
    u = 0.1
    assert paired.labels == math.ceil(math.log(32e4) / (0.1 * ((1 + u) * math.log1p(u) - u)))
    assert plan("n - o > 0.02 +/- 0.01", target="estimate").labels == math.ceil(2 * math.log(32e4) / 1e-4)
    assert plan("n - 1.1 * o > 0.02 +/- 0.01", target="estimate").labels == math.ceil(2.1**2 * math.log(32e4) / 2e-4)


def test_without_a_clause_on_d_the_bound_is_one_and_the_judge_pays_for_finding_it():
    found = plan("n - o > 0.02 +/- 0.05", power=0.9)
    assert math.exp(binomial_bounds.LOG_REST) == pytest.approx(1 - math.exp(binomial_bounds.LOG_SHARE))
    assert found.labels_per_submission == found.labels
    assert "d at most 1" in found.reasons[1]
    assumed = plan("n - o > 0.02 +/- 0.05", power=0.9, assume_disagreement=0.2)
    assert assumed.labels < found.labels / 3
    assert "assumed and nothing tests it" in assumed.reasons[2]


@pytest.mark.parametrize("source", ["n > -0.5 +/- 0.1", "n < 1.5 +/- 0.1", "n - o > -0.3 +/- 0.1 /\\ d < 0.2 +/- 0.5"])
def test_where_arithmetic_answers_one_example_will_do(source):
    found = plan(source)
    assert (found.labels, found.method) == (1, "arithmetic")


def test_at_threshold_zero_the_judge_uses_the_sign_test_and_so_does_the_plan():
    found = plan("n - o > 0 +/- 0.1 /\\ d < 0.2 +/- 0.1")
    # All decided examples are wins then: with m of them, 2^-m is at most the level from m = 19 on, and fewer than
    # 19 of N come up with probability at most the level.
    assert found.method == "sign test"
    assert binom.cdf(18, found.labels, 0.2) <= 1e-4 / 32 < binom.cdf(18, found.labels - 1, 0.2)


def test_one_success_shows_that_a_share_is_above_zero():
    assert plan("n > 0 +/- 0.1", power=0.9).labels == math.ceil(math.log(0.1) / math.log(0.8))


@pytest.mark.parametrize(
    ("steps", "adaptivity", "level", "missed"),
    [(4, "none", "0.025", "0.1"), (1100, "full", "e^-764.1", "0.1")],  # ln .1 - 1,099 ln 2 has no double
)
def test_a_size_says_for_which_level_and_which_miss_it_is(steps, adaptivity, level, missed):
    found = plan("n > 0 +/- 0.1", reliability=0.9, steps=steps, adaptivity=adaptivity, power=0.9)
    assert f"at level {level}; " in found.reasons[1]
    assert f" is missed with probability {missed} at most" in found.reasons[1]


@pytest.mark.parametrize("mode", ["fp-free", "fn-free"])
@pytest.mark.parametrize(
    "source",
    [
        *("n > 0 +/- 0.1", "n < 1 +/- 0.1", "d > 0 +/- 0.1", "n - o > -1 +/- 0.1", "n - o < 1 +/- 0.2"),
        *("n - o > -0.1 +/- 0.05 /\\ d < 0.1 +/- 0.05", "n - o < 0.1 +/- 0.05 /\\ d < 0.1 +/- 0.05"),
        *("n - 0.5 * o > -0.5 +/- 0.1", "n - 0.5 * o < 1 +/- 0.1", "n > 0.99999 +/- 0.1"),
    ],
)
def test_thresholds_at_the_ends_have_a_plan(source, mode):
    found = plan(source, mode=mode, steps=4, reliability=0.9)
    assert 1 <= found.examples < 2_000_000


@pytest.mark.parametrize("tolerance", [0.05, 0.3])
def test_a_weighted_side_can_be_planned_up_to_the_farthest_there_is(tolerance):
    """At n = 1 and o = 0 every example is worth 1 and only the level counts."""
    source = f"n - 1.1 * o > 0.9 +/- {tolerance}"
    found = plan(source)

    def verdict(n):
        perfect = Outcomes(examples=n, wins=n, losses=0, new_correct=n, old_correct=0, disagreements=n)
        return decide_counts(parse_condition(source), perfect, log_level=found.log_level, mode="fp-free").verdict

    assert verdict(found.labels) is Verdict.PASS
    assert verdict(found.labels - 2) is Verdict.UNKNOWN


def test_where_no_truth_is_so_far_beyond_the_farthest_counts():
    # n = 1 must pass: 0.9^N <= delta / M.
    assert plan("n > 0.9 +/- 0.3").labels == math.ceil(math.log(1e-4 / 32) / math.log(0.9))
    assert "the farthest possible truth" in plan("n > 0.9 +/- 0.3").reasons[1]
    assert "twice the tolerance" in plan("n > 0.8 +/- 0.1").reasons[1]


def outcomes_of(wins, losses, both, n):
    return Outcomes(
        examples=n,
        wins=wins,
        losses=losses,
        new_correct=both + wins,
        old_correct=both + losses,
        disagreements=wins + losses,
    )


@pytest.mark.parametrize(
    ("source", "mode", "gain", "shares"),
    [
        ("n - o > 0.1 +/- 0.2 /\\ d < 0.6 +/- 1", "fp-free", 0.5, (0.5, 0.55, 0.6)),
        ("n - o > 0 +/- 0.3", "fp-free", 0.6, (0.6, 0.8, 1.0)),
        ("n - o < 0.1 +/- 0.3", "fn-free", 0.7, (0.7, 0.85, 1.0)),
    ],
)
def test_the_judge_keeps_what_the_plan_says(source, mode, gain, shares):
    condition = parse_condition(source)
    found = plan(source, reliability=0.8, steps=2, mode=mode, power=0.8)
    promised = Verdict.PASS if mode == "fp-free" else Verdict.FAIL
    is_promised = functools.cache(
        lambda wins, losses: (
            decide_counts(condition, outcomes_of(wins, losses, 0, found.labels), log_level=found.log_level, mode=mode)
            .clauses[0]
            .verdict
            is promised
        )
    )
    for q in shares:
        law = np.array([(q + gain) / 2, max(0.0, (q - gain) / 2), 1 - q])
        assert chance_of(is_promised, found.labels, law) >= 0.8


def chance_of(happens, n, law):
    """The chance of what happens at given wins and losses: all outcomes are added up, but for very rare ones."""
    seen = np.array([(w, k, n - w - k) for w in range(n + 1) for k in range(n + 1 - w)])
    weights = multinomial.pmf(seen, n, law)
    likely = weights > 1e-7
    found = [happens(wins, losses) for wins, losses, _ in seen[likely].tolist()]
    return float(weights[likely] @ found)


@pytest.mark.parametrize(
    ("source", "mode", "truth"),
    [
        ("n > 0.7 +/- 0.1", "fp-free", 0.9),
        ("n > 0.7 +/- 0.1", "fn-free", 0.5),
        ("o < 0.35 +/- 0.1", "fp-free", 0.15),
        ("d < 0.35 +/- 0.1", "fn-free", 0.55),
    ],
)
def test_the_judge_keeps_what_the_plan_says_of_a_proportion(source, mode, truth):
    found = plan(source, reliability=0.99, steps=8, adaptivity="full", mode=mode, power=0.9)
    n, condition = found.examples, parse_condition(source)
    counts = np.arange(n + 1)
    promised = Verdict.PASS if mode == "fp-free" else Verdict.FAIL

    def reached(size):
        total = 0.0
        for k in range(size + 1):
            seen = (
                Outcomes(examples=size, wins=k, losses=0, new_correct=k, old_correct=0, disagreements=k)
                if source[0] != "o"
                else Outcomes(examples=size, wins=0, losses=k, new_correct=0, old_correct=k, disagreements=k)
            )
            verdict = decide_counts(condition, seen, log_level=found.log_level, mode=mode).verdict
            total += float(binom.pmf(k, size, truth)) * (verdict is promised)
        return total

    assert counts.size == n + 1
    assert reached(n) >= 0.9
    assert reached(n - 1) < 0.9


def test_the_judge_keeps_what_the_plan_says_of_a_weighted_side():
    # Laws on the truth c + 2 eps = 0.5 of n - 0.5 o: the judge's chance to pass, simulated. With 200 draws a chance of
    # 0.9 gives a share of 0.8 or less with probability below 1e-4, for all three laws together.
    source = "n - 0.5 * o > 0.1 +/- 0.2"
    condition, found = parse_condition(source), plan(source, reliability=0.9, steps=2, power=0.9)
    rng = np.random.default_rng(7)

    @functools.cache
    def passes(wins, both):
        counts = outcomes_of(wins, 0, both, found.labels)
        return decide_counts(condition, counts, log_level=found.log_level, mode="fp-free").passed

    for win, both in ((0.5, 0.0), (0.0, 1.0), (0.25, 0.5)):
        drawn = rng.multinomial(found.labels, [win, both, 1 - win - both], size=200)
        assert np.mean([passes(int(w), int(b)) for w, b, _ in drawn]) > 0.8


SOURCES = st.sampled_from(
    [
        "n > .8 +/- {t}",
        "n - o > .01 +/- {t}",
        "n - o > 0 +/- {t}",
        "d < .2 +/- {t}",
        "n + d > 0.3 +/- {t}",
        "d < .2 +/- .1 /\\ n - o > .1 +/- {t}",
    ]
)


@settings(deadline=None, max_examples=examples(40, least=10))
@given(SOURCES, st.floats(0.05, 0.4), st.floats(0.5, 0.99999), st.integers(1, 60), st.sampled_from(["none", "full"]))
def test_more_promise_never_needs_fewer_examples(source, tolerance, reliability, steps, adaptivity):
    def size(*, t=tolerance, r=reliability, h=steps, a=adaptivity, **more):
        found = plan(source.format(t=t), reliability=r, steps=h, adaptivity=a, **more)
        return max(found.labels, found.unlabelled)

    here = size()
    slack = 1.02 * here + 8  # counts are whole: a size may lie anywhere between the first and the last that will do
    more = [size(t=tolerance / 1.2), size(r=(1 + reliability) / 2), size(h=steps + 1), size(a="full")]
    assert all(1.02 * other + 8 >= here for other in more)
    assert size(power=0.5 * reliability) <= slack
    assert size(t=tolerance * 1.2) <= slack


@settings(deadline=None, max_examples=examples(40))
@given(
    st.sampled_from(["n", "o", "d", "n - o"]),
    st.integers(-40, 90),
    st.integers(4, 20),
    st.sampled_from([2.0, 0.5, -1.0, -4.0]),
    st.sampled_from(["fp-free", "fn-free"]),
)
def test_a_scaled_clause_is_the_same_clause(variable, threshold, tolerance, scale, mode):
    threshold, tolerance = threshold / 128, tolerance / 128
    left = " + ".join(
        f"{scale} * {v}" if v != "- o" else f"{-scale} * o"
        for v in ([variable] if variable != "n - o" else ["n", "- o"])
    )
    sign = ">" if scale > 0 else "<"
    plain = plan(f"{variable} > {threshold!r} +/- {tolerance!r}", mode=mode, steps=4)
    scaled = plan(
        f"{left.replace('+ -', '- ')} {sign} {threshold * scale!r} +/- {tolerance * abs(scale)!r}", mode=mode, steps=4
    )
    assert (plain.labels, plain.unlabelled, plain.method) == (scaled.labels, scaled.unlabelled, scaled.method)


@settings(deadline=None, max_examples=examples(40))
@given(st.sampled_from(["n", "o", "d", "n - o"]), st.integers(1, 127), st.integers(4, 20))
def test_the_modes_mirror_each_other(variable, threshold, tolerance):
    # To show n > c under fp-free is to show n < c under fn-free's FAIL of n < c.
    threshold, tolerance = threshold / 128, tolerance / 128
    for_it = plan(f"{variable} > {threshold!r} +/- {tolerance!r}", steps=4)
    against = plan(f"{variable} < {threshold!r} +/- {tolerance!r}", steps=4, mode="fn-free")
    assert (for_it.labels, for_it.unlabelled) == (against.labels, against.unlabelled)
    if variable != "n - o":
        mirrored = plan(f"{variable} < {1 - threshold!r} +/- {tolerance!r}", steps=4)
        assert (for_it.labels, for_it.unlabelled) == (mirrored.labels, mirrored.unlabelled)


@pytest.mark.parametrize(
    "source", ["n > 0.9 +/- {t}", "n - o > 0.02 +/- {t}", "n - o > 0 +/- {t}", "n - 1.1 * o > 0 +/- {t}"]
)
@pytest.mark.parametrize(("tolerance", "steps"), [(1e-9, 32), (0.05, 5000), (0.01, 1_000_000)])
def test_no_request_is_too_large(source, tolerance, steps):
    found = plan(source.format(t=tolerance), steps=steps, adaptivity="full")
    assert found.labels > 10_000
    paper = plan(source.format(t=tolerance), steps=steps, adaptivity="full", estimator="paper")
    assert found.labels <= paper.labels * 1.001


@pytest.mark.parametrize("d", [0.05, at_night(0.15)])
def test_where_d_is_assumed_the_plan_pays_for_the_bound_that_the_judge_finds(d):
    """At the assumed d the judge, which is not told it, has the planned power: 150 sets at .9 show .8 by 4 errors."""
    source = "n - o > 0.02 +/- 0.01"
    found = plan(source, power=0.9, assume_disagreement=d)
    known = plan(f"{source} /\\ d < {d} +/- 0.01", power=0.9)
    assert known.labels < found.labels < 1.4 * known.labels < plan(source, power=0.9).labels / 4
    assert "a tenth of the level pays for" in found.reasons[-2]
    n, won, lost = found.labels, (d + 0.04) / 2, (d - 0.04) / 2
    rows = np.random.default_rng(9).multinomial(n, [won, lost, 1 - won - lost], size=150)
    passed = [
        decide_counts(
            parse_condition(source), outcomes_of(int(w), int(k), 0, n), log_level=found.log_level, mode="fp-free"
        ).passed
        for w, k, _ in rows
    ]
    assert np.mean(passed) >= 0.8
