"""The verdict on a condition from counts: three-valued, exact, at a given level; the mode makes a bit of it.

Each clause is tested for and against. For a PASS every clause must be shown to hold, so a false PASS needs one fixed
false clause to pass its own test: each clause may use the whole level on the same examples (intersection-union). A
false FAIL needs any one of k true clauses to be shown not to hold, so each gets the level divided by k. Conditions on
slices are members of the same conjunction: each has the whole level for its PASS, and for its FAIL the level divided by
the number of conditions.

A clause ``d < A`` lends its A to the tests of n - o on both sides. A PASS: if d >= A, the clause on d has to err; if
d < A, the test with p = A has its level. A FAIL: it is wrong only if the whole condition is true, hence d < A, and then
the test against n - o with p = A has its level; if d >= A, the condition is false and FAIL is right. So a PASS of the
condition is wrong with probability at most alpha, and so is a FAIL; but the verdict and the interval of the clause on
n - o by themselves hold only where d < A does.

The counts, intervals and p-values are for the referee alone; a developer sees one symbol.

A part of the set is ``Judged`` when there is a decision, or when it is known which labels are needed for one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.entities import Mode, Verdict
from easeml_core.errors import InvalidInputError
from easeml_core.gate.clause_tests import Evidence, Side, gather_evidence, reach, settle_the_certain
from easeml_core.gate.condition import claim_of, usable_disagreement_bound
from easeml_core.gate.outcomes import first_of
from easeml_core.settings.config import choice, require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.gate.condition import Clause, Condition
    from easeml_core.gate.outcomes import Outcomes


@dataclass(frozen=True, slots=True)
class ClauseDecision:
    """The verdict on one clause, as a part of its condition.

    Attributes:
        clause: Canonical source of the clause.
        verdict: PASS: shown to hold. FAIL: shown not to hold. UNKNOWN: neither.
        quantity: What ``estimate``, ``interval`` and ``threshold`` are about: n, o, d, n - o, or linear.
        threshold: Of the quantity.
        examples: How many examples the clause was judged on; 0 where nothing was looked at.
        estimate: The quantity as observed; None where nothing was looked at.
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
    examples: int
    estimate: float | None
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
            "examples": self.examples,
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
    """The verdict on a condition, and on those of slices where there are any.

    Attributes:
        verdict: What the evidence says.
        passed: The bit: UNKNOWN settled by the mode.
        mode: ``fp-free`` or ``fn-free``.
        log_level: ln alpha of the test of one condition.
        outcomes: The counts; under early stopping those of the examples that were looked at.
        labels: How many labels the verdict used.
        clauses: One decision per clause, in the order of the condition.
        slices: Pairs (slice, decision on its condition).
    """

    verdict: Verdict
    passed: bool
    mode: Mode
    log_level: float
    outcomes: Outcomes
    labels: int
    clauses: tuple[ClauseDecision, ...]
    slices: tuple[tuple[str, Decision], ...] = ()

    @property
    def examples(self) -> int:
        """N, or the number looked at under early stopping."""
        return self.outcomes.examples

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for the referee's report. Never for a developer: it holds more than one symbol."""
        return {
            "verdict": self.verdict.value,
            "passed": self.passed,
            "mode": self.mode.value,
            "log_level": self.log_level,
            "examples": self.examples,
            "wins": self.outcomes.wins,
            "losses": self.outcomes.losses,
            "new_correct": self.outcomes.new_correct,
            "old_correct": self.outcomes.old_correct,
            "disagreements": self.outcomes.disagreements,
            "judged": self.outcomes.judged,
            "labels": self.labels,
            "clauses": [clause.to_json() for clause in self.clauses],
            "slices": {name: decision.to_json() for name, decision in self.slices},
        }


def decide_counts(
    condition: Condition, outcomes: Outcomes, *, log_level: float, mode: str, labels: int = 0, conditions: int = 1
) -> Decision:
    """Judge a condition on counts.

    Args:
        condition: The parsed condition.
        outcomes: Counts on the sealed set. Clauses that need labels which it lacks stay UNKNOWN: ``judge`` sees to
            it that this happens only where they cannot change what is released.
        log_level: ln alpha, finite and < 0, as the plan allots it; -700 and far below work.
        mode: ``fp-free`` (UNKNOWN does not pass) or ``fn-free`` (UNKNOWN passes).
        labels: How many labels the counts rest on, for the report.
        conditions: How many conditions the verdict that this one belongs to is put together of, >= 1.

    Returns:
        The decision. Whatever the truth is, PASS is wrong with probability at most alpha, and so is FAIL; with further
        conditions FAIL with probability at most alpha divided by their number.

    Raises:
        InvalidInputError: If there are no examples.
        ConfigError: If level or mode is outside its range.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> from easeml_core.gate.outcomes import Outcomes
        >>> counts = Outcomes(examples=1000, wins=90, losses=20, new_correct=900, old_correct=830, disagreements=110)
        >>> decide_counts(parse_condition("n - o > 0.02 +/- 0.02"), counts, log_level=-6.0, mode="fp-free").passed
        True
    """
    kind = choice(Mode, "mode", mode)
    require(-math.inf < log_level < 0, "log_level", log_level, "finite and < 0")
    if outcomes.examples < 1:
        message = "a condition cannot be judged on no examples; the sealed set must have at least one"
        raise InvalidInputError(message)
    require(type(conditions) is int and conditions >= 1, "conditions", conditions, "a whole number >= 1")
    levels = Levels(log_level, log_level - math.log(conditions * len(condition.clauses)))
    # Outside (0, 1] the clause on d bounds nothing, or can never hold; the test of n - o then finds its own bound.
    bound = usable_disagreement_bound(condition)
    clauses = tuple(
        _judge(clause, outcomes, levels, bound) if is_measured(clause, outcomes) else unmeasured(clause, levels)
        for clause in condition.clauses
    )
    verdict = conjunction([clause.verdict for clause in clauses])
    return Decision(verdict, is_released(verdict, kind), kind, log_level, outcomes, labels, clauses)


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of the two tests of every clause.

    Attributes:
        log_pass: ln of the level of the test for it.
        log_fail: ln of the level of the test against it.
    """

    log_pass: float
    log_fail: float


def is_released(verdict: Verdict, mode: Mode) -> bool:
    """The bit that a verdict becomes: UNKNOWN fails under fp-free and passes under fn-free."""
    return verdict is Verdict.PASS or (verdict is Verdict.UNKNOWN and mode is Mode.FN_FREE)


def is_measured(clause: Clause, outcomes: Outcomes) -> bool:
    """Whether the counts hold what the clause is about."""
    if not clause.needs_labels:
        return True
    return outcomes.wins is not None and (not clause.needs_agreements or outcomes.new_correct is not None)


def conjunction(verdicts: list[Verdict]) -> Verdict:
    """Give Kleene's conjunction: FAIL if any fails, PASS if all pass, else UNKNOWN.

    Example:
        >>> conjunction([Verdict.PASS, Verdict.UNKNOWN]).value
        'UNKNOWN'
    """
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.UNKNOWN if Verdict.UNKNOWN in verdicts else Verdict.PASS


def clause_decision(
    clause: Clause, evidence: Evidence, levels: Levels, *, examples: int, verdict: Verdict | None = None
) -> ClauseDecision:
    """Turn what speaks for and against a clause into its decision."""
    claim = claim_of(clause)
    sides = (evidence.above, evidence.below) if claim.above else (evidence.below, evidence.above)
    log_p_pass, log_p_fail = sides[0].log_p, sides[1].log_p
    return ClauseDecision(
        clause=str(clause),
        verdict=verdict or _verdict(log_p_pass <= levels.log_pass, log_p_fail <= levels.log_fail),
        quantity=claim.quantity,
        threshold=claim.threshold,
        examples=examples,
        estimate=evidence.estimate if examples else None,
        interval=(evidence.above.bound, evidence.below.bound),
        log_p_pass=log_p_pass,
        log_p_fail=log_p_fail,
        log_level_pass=levels.log_pass,
        log_level_fail=levels.log_fail,
        method=evidence.method,
    )


def unmeasured(clause: Clause, levels: Levels) -> ClauseDecision:
    """The decision on a clause that nothing was looked at for: what arithmetic says, else UNKNOWN."""
    low, high = reach(clause)
    nothing = Evidence(0.0, above=Side(0.0, low), below=Side(0.0, high), method="no label was needed")
    evidence = settle_the_certain(claim_of(clause), (low, high), nothing)
    return clause_decision(clause, evidence, levels, examples=0)


def _judge(clause: Clause, outcomes: Outcomes, levels: Levels, bound: float | None) -> ClauseDecision:
    """Test one clause for and against."""
    evidence = gather_evidence(
        clause,
        outcomes,
        log_level_for=levels.log_pass,
        log_level_against=levels.log_fail,
        disagreement_bound=bound,
    )
    return clause_decision(clause, evidence, levels, examples=outcomes.examples)


def _verdict(holds: bool, fails: bool) -> Verdict:
    """Both can be "shown" only at levels of one half and more; then nothing is."""
    if holds == fails:
        return Verdict.UNKNOWN
    return Verdict.PASS if holds else Verdict.FAIL


def _finite(logarithm: float) -> float | None:
    return logarithm if math.isfinite(logarithm) else None


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """The labels that a verdict waits for.

    Attributes:
        positions: In the set's order, rising, at least one, shape ``(n_wanted,)``.
    """

    positions: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """How far one condition has come.

    Attributes:
        decision: What can be said now; final if nothing is wanted.
        used: Positions of the labels that it rests on.
        wanted: Positions of the labels that it waits for, rising.
        refuses: Whether it ends the judgement although others still want labels. Under ``fixed``: predictions alone
            refuse, whatever the labels are. Under ``early``: it was closed at a boundary, and does not pass.
    """

    decision: Decision
    used: NDArray[np.int64]
    wanted: NDArray[np.int64]
    refuses: bool = False


def wanted_of(
    condition: Condition, old: NDArray[np.int64], new: NDArray[np.int64], *, judged: int | None = None
) -> NDArray[np.bool_]:
    """Which examples' labels can matter to a condition, from predictions alone: shape ``(n_examples,)``.

    None for d alone; where the weights of n and o cancel, an example on which the models agree adds 0 whatever its
    label, so only disagreements, the first ``judged`` of them where so many do; else all.
    """
    if not condition.needs_labels:
        return np.zeros(old.shape, dtype=np.bool_)
    return np.ones(old.shape, dtype=np.bool_) if condition.needs_agreements else first_of(old != new, judged)
