"""Sizes for the exact tests that judge a condition (``clause_tests``), or for exact intervals.

A condition becomes questions, levels and tests here; ``stats`` counts the examples of each test (``paired``,
``sign_test_sizes``, ``bound_sizes``, ...). A question is what a clause asks, turned so that large values speak for the
answer that the mode promises to be right.

``target="test"``: the promised answer has its level alpha whatever the size is. The size sees to the other side: a
truth beyond the threshold by twice the tolerance is missed with probability at most beta, clause by clause. Under
fp-free the promised answer is PASS, for a value above c that is c + 2 eps; under fn-free it is FAIL, for c - 2 eps.

``target="estimate"``: whatever the truth is, the value seen is off by the tolerance, to the side that would break the
promise, with probability at most alpha.

Several clauses, of one condition or of the set's and its slices': for a PASS all must be shown, and a wrong one needs
one fixed false clause to err, so each has the whole level (intersection-union). For a FAIL any one suffices, so the
level is divided by the number of conditions and of clauses.

Where labels are asked for when a verdict needs them, one submission needs labels of some disagreements. A set without a
clause ``d < A`` is sized for d = 1. A submission whose predictions differ on fewer examples needs the labels of some of
these only: as many as the test on them (``stats.paired_differing``) needs for the planned power. How many follows from
the predictions, the condition and the level, never from a label (docs/gate.md, "Labels").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from easeml_core.entities import Mode
from easeml_core.errors import counted
from easeml_core.gate.clause_tests import reach
from easeml_core.gate.condition import DIFFERENCE, DIFFERING, LINEAR, claim_of, usable_disagreement_bound, values_of
from easeml_core.gate.paper_sizes import ClauseSize, Sizes, labels_on_disagreements, largest
from easeml_core.stats import binomial_sizes, paired, sign_test_sizes, weighted
from easeml_core.stats.binomial_bounds import LOG_REST, LOG_SHARE, upper_bound
from easeml_core.stats.bound_sizes import (
    bennett_deviation_size,
    bennett_test_size,
    chernoff_test_size,
    hoeffding_test_size,
    sign_test_bound_size,
)
from easeml_core.stats.concentration import hoeffding_sample_size
from easeml_core.stats.paired_differing import Differing, differing_labels

if TYPE_CHECKING:
    from easeml_core.gate.condition import Clause, Condition


@dataclass(frozen=True, slots=True)
class Question:
    """One test, turned so that large values speak for the promised answer.

    Attributes:
        quantity: As in ``condition``.
        null: The threshold; its side is what the test has to reject.
        alternative: The truth that must not be missed; where none is so far beyond, the farthest there is.
        reach: Lowest and highest value of the quantity.
        capped: Whether the alternative is the farthest there is.
    """

    quantity: str
    null: float
    alternative: float
    reach: tuple[float, float]
    capped: bool

    @property
    def is_settled(self) -> bool:
        """Whether arithmetic answers, or no truth lies beyond the threshold."""
        return not self.reach[0] <= self.null < self.reach[1]


def question_of(clause: Clause, mode: str, bound: float) -> Question:
    """Turn a clause into the test that its mode promises something about.

    Args:
        clause: The clause.
        mode: ``fp-free``: the test for it; ``fn-free``: the test against it.
        bound: What d is at most, in (0, 1].

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> asked = question_of(parse_condition("n - o > 0.02 +/- 0.01").clauses[0], "fn-free", 1.0)
        >>> asked.null, asked.alternative
        (-0.02, 0.0)
    """
    claim = claim_of(clause)
    low, high = (-bound, bound) if claim.quantity == DIFFERENCE else reach(clause)
    # As the decimals that were written: 0.8 + 2 * 0.1 is 1, and 1 - 0.9 is 0.1.
    null, tolerance = Fraction(repr(claim.threshold)), Fraction(repr(claim.tolerance))
    if claim.above != (mode == Mode.FP_FREE):
        # A share turned round is the share of the others; everything else changes its sign.
        total = 0 if claim.quantity in (DIFFERENCE, LINEAR) else 1
        low, high, null = total - high, total - low, total - null
    wanted = float(null + 2 * tolerance)
    return Question(claim.quantity, float(null), min(wanted, high), (low, high), wanted > high)


def promised_levels(
    condition: Condition, *, log_level: float, mode: str, power: float | None, conditions: int
) -> tuple[float, float]:
    """Give ln of the level of the promised test of each clause, and ln of the chance with which it may miss.

    Args:
        condition: The condition.
        log_level: Ln alpha of the whole answer.
        mode: ``fp-free``: every clause has the whole level. ``fn-free``: conditions and clauses share it.
        power: 1 - beta in (0, 1); None for beta = alpha of the condition.
        conditions: How many conditions the answer rests on, those of slices included, >= 1.
    """
    promised = log_level - (math.log(conditions) if mode == Mode.FN_FREE else 0.0)
    of_clause = promised - (math.log(len(condition.clauses)) if mode == Mode.FN_FREE else 0.0)
    return of_clause, promised if power is None else math.log1p(-power)


TARGETS = ("test", "estimate")
_BOUND_ROUNDS = 3


def exact_sizes(
    condition: Condition,
    *,
    log_level: float,
    mode: str,
    target: str = "test",
    power: float | None = None,
    assume_disagreement: float | None = None,
    conditions: int = 1,
) -> Sizes:
    """Size a condition for the exact tests.

    Args:
        condition: The parsed condition.
        log_level: ln alpha of one answer.
        mode: ``fp-free`` or ``fn-free``.
        target: ``test`` or ``estimate``.
        power: 1 - beta in (0, 1); None for beta = alpha. Only with ``test``.
        assume_disagreement: A bound on d in (0, 1] that nothing tests, for a condition without a clause ``d < A``.
        conditions: How many conditions the answer rests on, those of slices included, >= 1.
    """
    clauses = condition.clauses
    clause_level, log_miss = promised_levels(
        condition, log_level=log_level, mode=mode, power=power, conditions=conditions
    )
    tested = usable_disagreement_bound(condition)
    sizes, reasons = [], []
    for clause in clauses:
        if target == "estimate":
            size = _estimate_size(clause, clause_level, tested or assume_disagreement or 1.0)
        else:
            size = _test_size(clause, clause_level, log_miss, mode, tested, assume_disagreement)
        sizes.append(size)
        kind = "labelled" if size.needs_labels else "unlabelled"
        reasons.append(f"'{clause}': {size.examples:,} {kind} examples {size.how}")
    labels, unlabelled, method = largest(sizes)
    each, why = labels_on_disagreements(condition, labels, tested or assume_disagreement or 1.0)
    if tested is None and assume_disagreement is not None:
        reasons.append(_assumed(assume_disagreement))
    if tested is None and target == "test" and any(size.method == "trinomial" for size in sizes):
        reasons.append(_BOUNDED_LATER)
    return Sizes(labels, unlabelled, each, method, (*reasons, why))


_BOUNDED_LATER = (
    "no clause bounds d: each verdict uses an upper confidence bound of the share of differing predictions on its own "
    "examples, which a tenth of the level pays for, and never the share seen"
)


def _assumed(bound: float) -> str:
    return (
        f"d < {bound:g} is assumed and nothing tests it: no promise rests on it, but if d is larger, verdicts are more "
        f"often UNKNOWN; "
        f"'/\\ d < {bound:g} +/- ...' in the condition would let them use it"
    )


def _test_size(
    clause: Clause, log_level: float, log_miss: float, mode: str, tested: float | None, assumed: float | None
) -> ClauseSize:
    """Size the test of one clause."""
    bound = tested or assumed or 1.0
    question = question_of(clause, mode, bound)
    if question.is_settled:
        return ClauseSize(1, "arithmetic", "(arithmetic answers, nothing is to be tested)", clause.needs_labels)
    if question.quantity == LINEAR:
        examples, method = _weighted_size(clause, question, mode, tested, assumed, log_level, log_miss)
    elif question.quantity != DIFFERENCE:
        examples, method = _proportion_size(question, log_level, log_miss)
    elif question.null == 0:
        examples, method = _sign_size(question, bound, log_level, log_miss)
    else:
        examples, method = _trinomial_size(question, bound, log_level, log_miss, is_tested=tested is not None)
    return ClauseSize(examples, method, _how(question, method, bound, log_level, log_miss), clause.needs_labels)


def _proportion_size(question: Question, log_level: float, log_miss: float) -> tuple[int, str]:
    truths = {"null": question.null, "alternative": question.alternative}
    size = binomial_sizes.binomial_test_size(**truths, log_level=log_level, log_miss=log_miss)
    if size <= binomial_sizes.MOST_EXAMPLES:
        return size, "binomial"
    return chernoff_test_size(**truths, log_level=log_level, log_miss=log_miss), "chernoff"


def _weighted_size(
    clause: Clause,
    question: Question,
    mode: str,
    tested: float | None,
    assumed: float | None,
    log_level: float,
    log_miss: float,
) -> tuple[int, str]:
    """Size the test that judges any other left side, for the law that spreads its value most."""
    sign = 1.0 if claim_of(clause).above == (mode == Mode.FP_FREE) else -1.0
    size = weighted.weighted_test_size(
        tuple(sign * value for value in values_of(clause)),
        threshold=question.null,
        alternative=question.alternative,
        differing=DIFFERING,
        disagreement_bound=tested or assumed or 1.0,
        tested=tested is not None,
        log_level=log_level,
        log_miss=log_miss,
    )
    return size, "weighted"


def _sign_size(question: Question, bound: float, log_level: float, log_miss: float) -> tuple[int, str]:
    levels = {"log_level": log_level, "log_miss": log_miss}
    size = sign_test_sizes.sign_test_size(alternative=question.alternative, decided_bound=bound, **levels)
    if size > sign_test_sizes.MOST_EXAMPLES:
        size = sign_test_bound_size(gap=question.alternative, second_moment=bound, **levels)
    return size, "sign test"


def _trinomial_size(
    question: Question, bound: float, log_level: float, log_miss: float, *, is_tested: bool
) -> tuple[int, str]:
    """Size the trinomial test; without a clause on d for the bound that the judge then finds from the same examples.

    A tenth of the level pays for that bound. Where d is what is assumed, the bound lies above it, the less the more
    examples there are: a few rounds find the size that fits its own bound, for a count one standard deviation high.
    """
    if is_tested:
        return _trinomial_size_at(question, bound, log_level, log_miss)
    found = _trinomial_size_at(question, bound, log_level + LOG_REST, log_miss)
    for _ in range(_BOUND_ROUNDS if bound < 1 else 0):
        count = math.ceil(found[0] * bound + math.sqrt(found[0] * bound * (1 - bound)))
        above = upper_bound(min(count, found[0]), found[0], log_level=log_level + LOG_SHARE)
        found = _trinomial_size_at(question, above, log_level + LOG_REST, log_miss)
    return found


def _trinomial_size_at(question: Question, bound: float, log_level: float, log_miss: float) -> tuple[int, str]:
    size = paired.paired_test_size(
        threshold=question.null,
        alternative=question.alternative,
        decided_bound=bound,
        log_level=log_level,
        log_miss=log_miss,
    )
    if size <= paired.MOST_EXAMPLES:
        return size, "trinomial"
    gap, levels = question.alternative - question.null, {"log_level": log_level, "log_miss": log_miss}
    bennett = bennett_test_size(gap=gap, second_moment=bound, **levels)
    hoeffding = hoeffding_test_size(gap=gap, value_range=2.0, **levels)
    return min((bennett, "bennett"), (hoeffding, "hoeffding"))


def _estimate_size(clause: Clause, log_level: float, bound: float) -> ClauseSize:
    """Size the estimate of one clause's quantity: off by the tolerance to one side with probability at most alpha."""
    claim = claim_of(clause)
    levels = {"tolerance": claim.tolerance, "log_level": log_level}
    low, high = reach(clause)
    hoeffding = hoeffding_sample_size(value_range=high - low, **levels), "hoeffding"
    if claim.quantity == DIFFERENCE:
        examples, method = min(hoeffding, (bennett_deviation_size(second_moment=bound, **levels), "bennett"))
    elif claim.quantity == LINEAR:
        examples, method = hoeffding
    else:
        found = binomial_sizes.binomial_deviation_size(**levels)
        examples, method = (found, "binomial") if found <= binomial_sizes.MOST_EXAMPLES else hoeffding
    off = f"off by {claim.tolerance:g} to one side with probability {_probability(log_level)} at most"
    how = f"by {_NAMES[method]}: whatever the truth, {off}"
    if method == "bennett":
        how += f", d at most {bound:g}"
    return ClauseSize(examples, method, how, clause.needs_labels)


_NAMES = {
    "binomial": "the exact binomial law",
    "trinomial": "the exact trinomial test",
    "sign test": "the exact sign test",
    "bennett": "Bennett's inequality, one-sided",
    "hoeffding": "Hoeffding's inequality, one-sided",
    "chernoff": "the Chernoff bound for values in a known range",
    "weighted": "Bentkus' bound with a bound on the second moment",
}


def _how(question: Question, method: str, bound: float, log_level: float, log_miss: float) -> str:
    """Say what a size was computed from."""
    beyond = "the farthest possible truth" if question.capped else "a truth beyond the threshold by twice the tolerance"
    spread = f", d at most {bound:g}" if question.quantity in (DIFFERENCE, LINEAR) else ""
    missed = f"{beyond} is missed with probability {_probability(log_miss)} at most"
    return f"by {_NAMES[method]} at level {_probability(log_level)}{spread}; {missed}"


def _probability(log: float) -> str:
    """A probability for people, also where it is below the smallest double."""
    return f"{math.exp(log):.3g}" if log > -700 else f"e^{log:.1f}"


SHARES = (0.05, 0.1, 0.15, 0.3)
"""Values of d that the planner gives as examples."""


def can_sample(condition: Condition) -> bool:
    """Whether some of the disagreements can do: every clause that needs labels is about n - o, and none bounds d.

    With a clause ``d < A`` the set is sized for that d already, and the test uses A on all of its examples.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> [can_sample(parse_condition(c)) for c in ("n - o > 0 +/- 0.1", "n > 0.5 +/- 0.1", "d > 0.1 +/- 0.1")]
        [True, False, False]
    """
    labelled = [clause for clause in condition.clauses if clause.needs_labels]
    return (
        bool(labelled)
        and usable_disagreement_bound(condition) is None
        and all(claim_of(clause).quantity == DIFFERENCE for clause in labelled)
    )


def labels_of_submission(
    condition: Condition,
    differing: Differing,
    *,
    log_level: float,
    mode: str,
    power: float | None = None,
    conditions: int = 1,
) -> int:
    """Give m, so that the labels of the first m disagreements in the set's order decide one submission.

    Args:
        condition: One that ``can_sample``.
        differing: On how many examples of how many the predictions differ.
        log_level: Ln alpha of the whole answer.
        mode: ``fp-free`` or ``fn-free``.
        power: As of ``exact_sizes``.
        conditions: How many conditions the answer rests on, >= 1.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> asked = {"log_level": -12.676, "mode": "fp-free", "power": 0.9}
        >>> labels_of_submission(parse_condition("n - o > 0.02 +/- 0.01"), Differing(4_239, 84_779), **asked)
        237
    """
    level, miss = promised_levels(condition, log_level=log_level, mode=mode, power=power, conditions=conditions)
    found = 0
    for clause in condition.clauses:
        if clause.needs_labels:
            question = question_of(clause, mode, 1.0)
            if not question.is_settled:
                truths = {"threshold": question.null, "alternative": question.alternative}
                found = max(found, differing_labels(differing, **truths, log_level=level, log_miss=miss))
    return found


def labels_in_words(
    condition: Condition, examples: int, *, log_level: float, mode: str, power: float | None = None, conditions: int = 1
) -> str | None:
    """Say what a plan reckons with where d is unknown, and what submissions need; None where it is not about that.

    Args:
        condition: The planned condition.
        examples: N of the set, >= 1.
        log_level: Ln alpha of one answer.
        mode: ``fp-free`` or ``fn-free``.
        power: As of ``exact_sizes``.
        conditions: As of ``labels_of_submission``.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> asked = {"log_level": -12.676, "mode": "fp-free", "power": 0.9}
        >>> words = labels_in_words(parse_condition("n - o > 0.02 +/- 0.01"), 84_779, **asked)
        >>> words[:41], words[-53:]
        ('d unknown: the set is reckoned with d = 1', '7 labels, on 10 % 1,101, on 15 % 2,395, on 30 % 8,930')
    """
    if not can_sample(condition):
        return None

    def needed(share: float) -> int:
        shown = Differing(math.floor(share * examples), examples)
        return labels_of_submission(
            condition, shown, log_level=log_level, mode=mode, power=power, conditions=conditions
        )

    thresholds = [claim_of(clause).threshold for clause in condition.clauses if clause.needs_labels]
    found = [(share, needed(share)) for share in SHARES if share > max(map(abs, thresholds))]
    found = [(share, count) for share, count in found if count]
    if not found:
        return "d unknown: the set is reckoned with d = 1"
    (first, fewest), *others = found
    words = ", ".join(f"on {100 * share:g} % {count:,}" for share, count in others)
    paid = ", for which a tenth of the level pays" if any(thresholds) else ""
    return (
        "d unknown: the set is reckoned with d = 1. Where labels are asked for on demand, a submission needs fewer, by "
        f"bounds on d from its predictions{paid}: one that differs on at most {100 * first:g} % of the examples needs "
        f"{counted(fewest, 'label')}{', ' if words else ''}{words}"
    )
