"""The verdict on a condition from counts: three-valued, exact, at a given level; the mode makes a bit of it.

Each clause is tested for and against. For a PASS every clause must be shown to hold, so a false PASS needs one fixed
false clause to pass its own test: each clause may use the whole level on the same examples (intersection-union), and a
clause ``d < A`` may lend its A to the test of n - o. A false FAIL needs any one of k true clauses to be shown not to
hold, so each gets the level divided by k. Hence a PASS is wrong with probability at most alpha, and so is a FAIL.
The counts, intervals and p-values are for the referee alone; a developer sees one symbol.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.config import choice, require
from easeml_core.entities import Mode, Verdict
from easeml_core.errors import InvalidInputError
from easeml_core.gate.claims import claim_of, disagreement_bound
from easeml_core.gate.evidence import gather_evidence

if TYPE_CHECKING:
    from easeml_core.gate.clauses import Clause, Condition
    from easeml_core.gate.outcomes import Outcomes


@dataclass(frozen=True, slots=True)
class ClauseDecision:
    """The verdict on one clause, as a part of its condition.

    Attributes:
        clause: Canonical source of the clause.
        verdict: PASS: shown to hold. FAIL: shown not to hold. UNKNOWN: neither.
        quantity: What ``estimate``, ``interval`` and ``threshold`` are about: n, o, d, n - o, or linear.
        threshold: Of the quantity.
        estimate: The quantity as observed.
        interval: (low, high); either end holds by itself, with the level of the test on its side. At threshold 0 the
            verdict on n - o comes from the sign test, which may know more than the interval.
        log_p_pass: ln of the p-value against "the clause does not hold"; PASS if at most ``log_level_pass``.
        log_p_fail: ln of the p-value against "the clause holds"; FAIL if at most ``log_level_fail``.
        log_level_pass: ln of the level of the test for the clause.
        log_level_fail: ln of the level of the test against it.
        method: Name of the test.
    """

    clause: str
    verdict: Verdict
    quantity: str
    threshold: float
    estimate: float
    interval: tuple[float, float]
    log_p_pass: float
    log_p_fail: float
    log_level_pass: float
    log_level_fail: float
    method: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for the referee's report; a p-value of exactly 0 has the logarithm None."""
        return {
            "clause": self.clause,
            "verdict": self.verdict.value,
            "quantity": self.quantity,
            "threshold": self.threshold,
            "estimate": self.estimate,
            "interval": list(self.interval),
            "log_p_pass": _finite(self.log_p_pass),
            "log_p_fail": _finite(self.log_p_fail),
            "log_level_pass": self.log_level_pass,
            "log_level_fail": self.log_level_fail,
            "method": self.method,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict on a condition.

    Attributes:
        verdict: What the evidence says.
        passed: The bit: UNKNOWN settled by the mode.
        mode: ``fp-free`` or ``fn-free``.
        log_level: ln alpha of this one test.
        examples: N.
        clauses: One decision per clause, in the order of the condition.
    """

    verdict: Verdict
    passed: bool
    mode: Mode
    log_level: float
    examples: int
    clauses: tuple[ClauseDecision, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for the referee's report. Never for a developer: it holds more than one symbol."""
        return {
            "verdict": self.verdict.value,
            "passed": self.passed,
            "mode": self.mode.value,
            "log_level": self.log_level,
            "examples": self.examples,
            "clauses": [clause.to_json() for clause in self.clauses],
        }


def decide(condition: Condition, outcomes: Outcomes, *, log_level: float, mode: str) -> Decision:
    """Judge a condition on counts.

    Args:
        condition: The parsed condition.
        outcomes: Counts on the sealed set.
        log_level: ln alpha, finite and < 0, as the plan allots it; -700 and far below work.
        mode: ``fp-free`` (UNKNOWN does not pass) or ``fn-free`` (UNKNOWN passes).

    Returns:
        The decision. Whatever the truth is, PASS is wrong with probability at most alpha, and so is FAIL.

    Raises:
        InvalidInputError: If there are no examples.
        ConfigError: If level or mode is outside its range.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> from easeml_core.gate.outcomes import Outcomes
        >>> counts = Outcomes(examples=1000, wins=90, losses=20, new_correct=900, old_correct=830, disagreements=110)
        >>> decide(parse_condition("n - o > 0.02 +/- 0.02"), counts, log_level=-6.0, mode="fp-free").passed
        True
    """
    kind = choice(Mode, "mode", mode)
    require(-math.inf < log_level < 0, "log_level", log_level, "finite and < 0")
    if outcomes.examples < 1:
        message = "a condition cannot be judged on no examples; the sealed set must have at least one"
        raise InvalidInputError(message)
    fail_level = log_level - math.log(len(condition.clauses))
    bound = disagreement_bound(condition)
    # Outside (0, 1] the clause on d bounds nothing, or can never hold; the test of n - o then finds its own bound.
    bound = min(bound, 1.0) if bound is not None and bound > 0 else None
    clauses = tuple(_judge(clause, outcomes, log_level, fail_level, bound) for clause in condition.clauses)
    verdict = conjunction([clause.verdict for clause in clauses])
    passed = verdict is Verdict.PASS or (verdict is Verdict.UNKNOWN and kind is Mode.FN_FREE)
    return Decision(verdict, passed, kind, log_level, outcomes.examples, clauses)


def conjunction(verdicts: list[Verdict]) -> Verdict:
    """Give Kleene's conjunction: FAIL if any fails, PASS if all pass, else UNKNOWN.

    Example:
        >>> conjunction([Verdict.PASS, Verdict.UNKNOWN]).value
        'UNKNOWN'
    """
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.UNKNOWN if Verdict.UNKNOWN in verdicts else Verdict.PASS


def _judge(
    clause: Clause, outcomes: Outcomes, pass_level: float, fail_level: float, bound: float | None
) -> ClauseDecision:
    """Test one clause for and against."""
    claim = claim_of(clause)
    evidence = gather_evidence(
        clause, outcomes, log_level_for=pass_level, log_level_against=fail_level, disagreement_bound=bound
    )
    sides = (evidence.above, evidence.below) if claim.above else (evidence.below, evidence.above)
    log_p_pass, log_p_fail = sides[0].log_p, sides[1].log_p
    return ClauseDecision(
        clause=str(clause),
        verdict=_verdict(log_p_pass <= pass_level, log_p_fail <= fail_level),
        quantity=claim.quantity,
        threshold=claim.threshold,
        estimate=evidence.estimate,
        interval=(evidence.above.bound, evidence.below.bound),
        log_p_pass=log_p_pass,
        log_p_fail=log_p_fail,
        log_level_pass=pass_level,
        log_level_fail=fail_level,
        method=evidence.method,
    )


def _verdict(holds: bool, fails: bool) -> Verdict:
    """Both can be "shown" only at levels of one half and more; then nothing is."""
    if holds == fails:
        return Verdict.UNKNOWN
    return Verdict.PASS if holds else Verdict.FAIL


def _finite(logarithm: float) -> float | None:
    return logarithm if math.isfinite(logarithm) else None
