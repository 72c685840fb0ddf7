"""The alert: when it is raised, what it says, and that it tells nothing but the signal."""

from __future__ import annotations

import pytest
from attrs import evolve
from meter_oracles import capped_rise_automaton, combine_signals, ratchet_automaton

from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.meter.overfitting_budget import budget_breach
from easeml_core.meter.sentences import advice
from easeml_core.settings.config import MeterConfig


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 9])
def test_only_signals_above_the_budget_raise_an_alert(budget):
    config = MeterConfig(ranges=(0.1, 0.2, 0.3), overfitting_budget=budget)
    assert [signal for signal in (1, 2, 3, 4) if budget_breach([signal], config)] == list(range(budget + 1, 5))


def test_alert_says_what_where_and_what_to_do():
    config = MeterConfig(ranges=(0.1, 0.3), tolerance=0.05)
    middle, top = budget_breach([2], config), budget_breach([3], config)
    assert middle is not None
    assert "signal 2 of 3 exceeds the budget of 1" in middle
    assert "above 0.1 and at most 0.3 (+/- 0.05)" in middle
    assert "get new validation data" in middle
    assert top is not None
    assert "above 0.3 (+/- 0.05)" in top
    assert "replace the validation set" in top


def test_advice_follows_the_range():
    assert [advice(signal, 4).split()[0] for signal in (1, 2, 3, 4)] == ["go", "get", "get", "replace"]
    assert [advice(signal, 2).split()[0] for signal in (1, 2)] == ["go", "replace"]


@pytest.mark.parametrize("signal", [0, 4, -1])
def test_a_signal_that_does_not_exist_is_refused(signal):
    with pytest.raises(ConfigError, match="signal must be from 1 to 3"):
        budget_breach([signal], MeterConfig(ranges=(0.1, 0.3)))
    with pytest.raises(ConfigError, match="signal must be from 1 to 3"):
        advice(signal, 3)


THREE = MeterConfig(ranges=(0.1, 0.3))


@pytest.mark.parametrize(
    ("rule", "broken", "kept"),
    [
        ("signal above range 2", [[3], [1, 3]], [[2], [3, 2], [None], [3, None]]),
        ("signal above 1", [[2], [3]], [[1], [2, 1]]),
        ("two yellow in a row", [[2, 2], [3, 2], [1, 2, 3]], [[2], [2, 1], [1, 2], [2, 1, 2], [2, None]]),
        ("3 in a row at range 2 or above", [[2, 2, 2], [1, 3, 2, 3]], [[2, 2], [2, 1, 2], [2, 2, 1]]),
        ("Two  RED in a row", [[3, 3]], [[3], [2, 3], [3, 2]]),
        ("1 in a row at 3 or above", [[3]], [[2], [1]]),
        ("retire within 3 submissions", [[None], [1, None], [1, 1, None]], [[1], [1, 1, 1, None], [1, 1, 1]]),
        ("retired within one submission", [[None]], [[1, None]]),
    ],
)
def test_rules_are_broken_by_the_last_answer(rule, broken, kept):
    config = evolve(THREE, budget=(rule,))
    for answers in broken:
        sentence = budget_breach(answers, config)
        assert sentence is not None
        assert " ".join(rule.lower().split()) in sentence
    for answers in [[], *kept]:
        assert budget_breach(answers, config) is None


def test_any_rule_of_several_is_enough_and_the_sentence_names_it():
    config = evolve(THREE, budget=("two yellow in a row", "retire within 9 submissions"))
    assert budget_breach([2, 1], config) is None
    assert "two yellow" in (budget_breach([2, 2], config) or "")
    assert "get new validation data" in (budget_breach([2, 2], config) or "")
    retired = budget_breach([1, 1, None], config) or ""
    assert "retired at submission 3" in retired
    assert "seal a new and larger set" in retired


@pytest.mark.parametrize("answers", [[1], [2], [3], [1, 2, 3], [3, 1]])
def test_without_rules_the_highest_signal_decides(answers):
    for budget in (1, 2):
        config = evolve(THREE, overfitting_budget=budget)
        assert budget_breach(answers, config) == budget_breach([answers[-1]], config)
    assert budget_breach([1, None], THREE) is None


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("signal above range 3", "must have a range from 1 to 2"),
        ("signal above range 0", "must have a range from 1 to 2"),
        ("2 in a row at range 1 or above", "must have a range from 2 to 3"),
        ("two blue in a row", "the colour yellow .range 2 or above. or red"),
        ("0 yellow in a row", "a count of 1 or more"),
        ("retire within 0 submissions", "a count of 1 or more"),
        ("not too bad", "'signal above range R', 'K in a row at range S or above'"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(rule, message):
    with pytest.raises(InvalidInputError, match=message):
        budget_breach([1], evolve(THREE, budget=(rule,)))


def test_settings_refuse_what_is_no_list_of_words():
    for wrong in ("signal above range 2", (1,), ("",)):
        with pytest.raises(ConfigError, match="budget must be a list of rules in words"):
            evolve(THREE, budget=wrong)
    with pytest.raises(ConfigError, match="signal must be from 1 to 3"):
        budget_breach([4], THREE)


GAP = "between the loss on unseen data and the validation loss"
BOTH_ENDS = "is above 0.1 and at most 0.3 (+/- 0.05)"
UPPER = "promised is only that it is at most 0.3 (+ 0.05)"
LOWER = "promised is only that it is above 0.1 (- 0.05)"
MIDDLE, NOTHING = "as above 0.1 and at most 0.3", "nothing of this is promised"


@pytest.mark.parametrize(
    ("settings", "middle", "top"),
    [
        ({"method": "path-adaptive"}, f"the gap {GAP} {BOTH_ENDS}", "is above 0.3 (+/- 0.05)"),
        ({"method": "first-change"}, f"the gap {GAP} {BOTH_ENDS}", "is above 0.3 (+/- 0.05)"),
        ({"method": "ratchet"}, f"the largest gap so far {GAP} {BOTH_ENDS}", "is above 0.3 (+/- 0.05)"),
        (
            {"method": "ratchet", "one_sided": True},
            f"the largest gap so far {GAP} was measured {MIDDLE}; {UPPER}",
            f"was measured as above 0.3; {NOTHING}",
        ),
        (
            {"method": "full", "one_sided": True},
            f"the gap {GAP} was measured {MIDDLE}; {UPPER}",
            f"was measured as above 0.3; {NOTHING}",
        ),
        (  # never below the signal: the gap may lie far below the answer
            {"method": "automaton", "automaton": ratchet_automaton(3).rows},
            f"the gap {GAP} was answered {MIDDLE}; {UPPER}",
            f"was answered as above 0.3; {NOTHING}",
        ),
        (  # never above the signal
            {"method": "automaton", "automaton": capped_rise_automaton(3, 1).rows},
            f"the gap {GAP} was answered {MIDDLE}; {LOWER}",
            "was answered as above 0.3; promised is only that it is above 0.3 (- 0.05)",
        ),
    ],
)
def test_an_alert_claims_no_more_than_its_method_promises(settings, middle, top):
    config = MeterConfig(ranges=(0.1, 0.3), tolerance=0.05, **settings)
    assert middle in (budget_breach([2], config) or "")
    assert top in (budget_breach([3], config) or "")
    assert budget_breach([3, 2], config) == budget_breach([2], config)


def test_figures_of_an_alert_are_rounded_to_the_safe_side():
    config = MeterConfig(ranges=(0.1, 0.3), tolerance=0.05)
    reported = budget_breach([2], config, edges=(0.12345678, 0.32345612), tolerance=0.0500000001)
    assert "is above 0.123456 and at most 0.323457 (+/- 0.0500001)" in (reported or "")


def test_rules_in_a_row_begin_anew_on_another_validation_set():
    config = evolve(THREE, budget=("two yellow in a row", "retire within 4 submissions"))
    for answers, versions, broken in (
        ([2, 2], [1, 1], True),
        ([2, 2], [1, 2], False),
        ([2, 2, 2], [1, 2, 2], True),
        ([2, 1, 2], [1, 1, 2], False),
        ([2, 2, None], [1, 2, 2], True),  # the sealed set is the same one, whatever it is compared with
    ):
        assert (budget_breach(answers, config, versions=versions) is not None) is broken, answers
    assert "retired at submission 3" in (budget_breach([1, 1, None], config, versions=[1, 2, 3]) or "")


@pytest.mark.parametrize(("total", "direct"), [(3, 1), (3, 2), (2, 1), (3, 3), (2, 2), (2, 3)])
def test_where_test_data_are_harder_an_alert_does_not_ask_for_more_of_the_old_kind(total, direct):
    both = combine_signals(total=total, direct=direct, config=THREE)
    reported = budget_breach([total], THREE, both=both) or ""
    plain = budget_breach([total], THREE) or ""
    if total > direct:
        assert reported == plain.replace(advice(total, 3), both.sentence)
        assert reported.endswith(both.sentence)
    else:
        assert reported == plain
