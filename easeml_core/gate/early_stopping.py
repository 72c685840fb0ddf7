"""Early stopping: look at examples in the set's fixed order, a batch of labels at a time, until the verdict is clear.

Every clause that needs labels is tested by betting (``stats.betting``), which may be looked at after every batch:
whatever the law, it is ever shown to hold, or not to hold, wrongly with probability at most its level. A clause about
d alone is tested at once on all predictions. The clauses are put together as on all examples (``decision``): each may
use the whole level for a PASS and the k-th part for a FAIL. n - o needs no bound on d here.

Without a real gain betting never ends by itself. So a clause is also *given up*, as UNKNOWN, when the opposite bet has
shown at a level beta that the truth is not even ``threshold + 2 tolerance`` (where a gate of the planned size is sure
to pass; mirrored for fn-free). Giving up can only prevent the promised error. At the last example every clause that is
still open is UNKNOWN.

An agreement adds 0 to n - o whatever its label is, so it counts without one. When to look depends on predictions only:
after every ``batch``-th example whose label matters, and after the last example of all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.entities import JsonObject, Mode, Verdict
from easeml_core.errors import InvalidInputError
from easeml_core.gate.clause_tests import Evidence, Side
from easeml_core.gate.condition import claim_of, values_of
from easeml_core.gate.decision import (
    ClauseDecision,
    Judged,
    Levels,
    clause_decision,
    conjunction,
    decide_counts,
    is_released,
    wanted_of,
)
from easeml_core.gate.outcomes import Outcomes, count_outcomes
from easeml_core.stats.betting import bet_times, betting_lower_bound, log_plugin_wealth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.gate.condition import Clause, Condition
    from easeml_core.gate.decision import Decision

_BEFORE_ALL = -1


@dataclass(frozen=True, slots=True)
class _Course:
    """How a clause fares over the moments whose labels are known.

    Attributes:
        closed: The first moment at which it was decided or given up, -1 for before any label; None while open.
        verdict: From then on.
    """

    closed: int | None
    verdict: Verdict = Verdict.UNKNOWN


def decide_early(
    condition: Condition,
    labels: NDArray[np.int64],
    old: NDArray[np.int64],
    new: NDArray[np.int64],
    *,
    log_level: float,
    log_beta: float,
    mode: Mode,
    batch: int,
    conditions: int = 1,
) -> Judged:
    """Judge with as few labels as possible; the same labels give the same verdict, however they came.

    Args:
        condition: The parsed condition.
        labels: True classes in the set's fixed order, negative where not known, shape ``(n_examples,)``.
        old: Predictions of the old model, same shape.
        new: Predictions of the new model, same shape.
        log_level: ln alpha, finite and < 0.
        log_beta: ln of the chance with which a clause that is true by twice the tolerance may be given up.
        mode: Which bit UNKNOWN becomes, and so which error the giving up must not add to.
        batch: Labels between two looks, >= 1.
        conditions: As for ``decision.decide_counts``.
    """
    matters = wanted_of(condition, old, new)
    unlabelled = count_outcomes(np.full_like(labels, -1), old, new)
    moments = _moments(matters, batch)
    missing = np.flatnonzero(matters & (labels < 0))
    known = int(np.searchsorted(moments, missing[0], side="right")) if missing.size else len(moments)
    path = _path(condition, labels, old, new, moments[:known])
    rules = EarlyRules(log_level, log_beta, mode, conditions)
    at_once, courses, stop = _follow(condition, unlabelled, path, rules, last=known == len(moments))
    levels = Levels(at_once.clauses[0].log_level_pass, at_once.clauses[0].log_level_fail)
    if stop is None:
        return Judged(at_once, used=missing[:0], wanted=missing[missing < moments[known]])
    if stop == _BEFORE_ALL:
        return Judged(at_once, used=missing[:0], wanted=missing[:0], refuses=not at_once.passed)
    seen = int(moments[stop])
    used = np.flatnonzero(matters[:seen])
    clauses = tuple(
        decision if course.closed == _BEFORE_ALL else _report(clause, course, stop, path, levels)
        for clause, decision, course in zip(condition.clauses, at_once.clauses, courses, strict=True)
    )
    verdict = conjunction([clause.verdict for clause in clauses])
    outcomes = count_outcomes(np.where(matters, labels, -1)[:seen], old[:seen], new[:seen])
    decision = replace(
        at_once,
        verdict=verdict,
        passed=is_released(verdict, mode),
        outcomes=outcomes,
        labels=used.size,
        clauses=clauses,
    )
    return Judged(decision, used=used, wanted=missing[:0], refuses=not decision.passed)


@dataclass(frozen=True, slots=True)
class EarlyRules:
    """By what a condition is judged under early stopping; as the arguments of ``decide_early``."""

    log_level: float
    log_beta: float
    mode: Mode
    conditions: int = 1


@dataclass(frozen=True, slots=True)
class Looks:
    """The counts from which a verdict under early stopping follows, up to the look that ended it.

    Attributes:
        examples: Of the set, or of a slice, >= 1.
        disagreements: Examples on which the models differ, of all.
        moments: Numbers of examples after which was looked, rising.
        cells: How often each of ``condition.OUTCOMES`` was seen by then.
        before: Likewise at each of ``betting.bet_times``.
        is_whole: Whether the last look was at all examples.
    """

    examples: int
    disagreements: int
    moments: tuple[int, ...]
    cells: tuple[tuple[int, ...], ...]
    before: tuple[tuple[int, ...], ...]
    is_whole: bool

    @classmethod
    def from_json(cls, found: JsonObject) -> Looks:
        """From what ``dataclasses.asdict`` gives, after JSON."""
        cells, before = (tuple(tuple(map(int, row)) for row in found[name]) for name in ("cells", "before"))
        moments = tuple(map(int, found["moments"]))
        counted = int(found["examples"]), int(found["disagreements"])
        return cls(*counted, moments, cells, before, bool(found["is_whole"]))


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What follows from looks.

    Attributes:
        verdict: On the condition; of one that is open still what predictions say.
        refuses: Whether it ends the judgement, whatever else is open.
        is_open: Whether it waits for labels.
        examples: Looked at when it ended; None where no label was needed, or where it is open.
        wins: Among them.
        losses: Among them.
    """

    verdict: Verdict
    refuses: bool
    is_open: bool
    examples: int | None = None
    wins: int | None = None
    losses: int | None = None


def looks_of(
    condition: Condition,
    labels: NDArray[np.int64],
    old: NDArray[np.int64],
    new: NDArray[np.int64],
    *,
    rules: EarlyRules,
    batch: int,
) -> Looks:
    """Count what ``decide_early`` looks at for these labels, which has the same arguments."""
    matters = wanted_of(condition, old, new)
    unlabelled = count_outcomes(np.full_like(labels, -1), old, new)
    moments = _moments(matters, batch)
    missing = np.flatnonzero(matters & (labels < 0))
    known = int(np.searchsorted(moments, missing[0], side="right")) if missing.size else len(moments)
    path = _path(condition, labels, old, new, moments[:known])
    _, _, stop = _follow(condition, unlabelled, path, rules, last=known == len(moments))
    end = known if stop is None else stop + 1  # none before all labels
    times = len(bet_times(int(moments[end - 1]))) if end else 0
    return Looks(
        unlabelled.examples,
        unlabelled.disagreements,
        tuple(map(int, moments[:end])),
        tuple(tuple(map(int, row)) for row in path.cells[:end]),
        tuple(tuple(map(int, row)) for row in path.before[:times]),
        end == len(moments),
    )


def judge_looks(condition: Condition, looks: Looks, rules: EarlyRules) -> LookedUp:
    """Judge a condition on what was counted at each look, as ``decide_early`` does on labels."""
    unlabelled = Outcomes(looks.examples, None, None, None, None, looks.disagreements)
    cells = np.array(looks.cells, dtype=np.int64).reshape(-1, 5)
    before = np.array(looks.before, dtype=np.int64).reshape(-1, 5)
    moments = np.array(looks.moments, dtype=np.int64)
    times = bet_times(int(moments[-1])) if moments.size else moments
    rises = all(np.all(np.diff(rows, axis=0, prepend=0) >= 0) for rows in (cells, before))
    if not (rises and len(times) == len(before) and np.array_equal(cells.sum(axis=1), moments)):
        message = "the counts of the looks cannot come from one set of examples in one order"
        raise InvalidInputError(message)
    at_once, courses, stop = _follow(condition, unlabelled, _Path(moments, cells, before), rules, last=looks.is_whole)
    if stop is None:
        return LookedUp(at_once.verdict, refuses=False, is_open=True)
    if stop == _BEFORE_ALL:
        return LookedUp(at_once.verdict, refuses=not at_once.passed, is_open=False)
    verdict = conjunction([_verdict_at(course, stop) for course in courses])
    refuses = not is_released(verdict, rules.mode)
    return LookedUp(verdict, refuses, False, int(moments[stop]), int(cells[stop][1]), int(cells[stop][2]))


def _follow(
    condition: Condition, unlabelled: Outcomes, path: _Path, rules: EarlyRules, *, last: bool
) -> tuple[Decision, list[_Course], int | None]:
    """What predictions alone say, how each clause fares, and the moment at which no label can change the symbol."""
    at_once = decide_counts(
        condition, unlabelled, log_level=rules.log_level, mode=rules.mode, conditions=rules.conditions
    )
    levels = Levels(at_once.clauses[0].log_level_pass, at_once.clauses[0].log_level_fail)
    courses = [
        _course(clause, decision, path, levels, rules.log_beta, rules.mode, last=last)
        for clause, decision in zip(condition.clauses, at_once.clauses, strict=True)
    ]
    return at_once, courses, _stop(courses, rules.mode)


def _verdict_at(course: _Course, stop: int) -> Verdict:
    """The verdict on a clause at the moment that ended the matter."""
    return course.verdict if course.closed is not None and course.closed <= stop else Verdict.UNKNOWN


def _moments(matters: NDArray[np.bool_], batch: int) -> NDArray[np.int64]:
    """Numbers of examples after which to look: after every batch-th that matters, and after all of them."""
    ends = np.flatnonzero(matters)[batch - 1 :: batch] + 1
    return np.unique(np.append(ends, matters.size))


@dataclass(frozen=True, slots=True, eq=False)
class _Path:
    """What was seen by when.

    Attributes:
        moments: Numbers of examples after which to look, rising, shape ``(n_moments,)``.
        cells: How often each of ``condition.OUTCOMES`` was seen by then, shape ``(n_moments, 5)``.
        before: Likewise at each of ``betting.bet_times``, shape ``(n_bets, 5)``.
    """

    moments: NDArray[np.int64]
    cells: NDArray[np.int64]
    before: NDArray[np.int64]

    def log_wealth(self, values: NDArray[np.float64], *, threshold: float, gap: float) -> NDArray[np.float64]:
        """Give ln of the fortune that bets on "the mean is above the threshold", at every moment."""
        return log_plugin_wealth(self.moments, self.cells, self.before, values, threshold=threshold, gap=gap)

    def up_to(self, moment: int) -> _Path:
        """Give the same with one moment only."""
        times = len(bet_times(int(self.moments[moment])))
        return _Path(self.moments[moment : moment + 1], self.cells[moment : moment + 1], self.before[:times])


def _path(
    condition: Condition,
    labels: NDArray[np.int64],
    old: NDArray[np.int64],
    new: NDArray[np.int64],
    moments: NDArray[np.int64],
) -> _Path:
    """Count each of ``condition.OUTCOMES`` up to each moment and each choice of bets.

    Where agreements do not matter, all of them are counted as both wrong, as in ``Outcomes.cells``.
    """
    seen = int(moments[-1]) if moments.size else 0
    truth, before, after = labels[:seen], old[:seen], new[:seen]
    agreed, new_right, old_right = before == after, after == truth, before == truth
    both = agreed & new_right if condition.needs_agreements else np.zeros_like(agreed)
    kinds = (both, ~agreed & new_right, ~agreed & old_right, agreed & ~both, ~(agreed | new_right | old_right))
    sums = [np.concatenate([[0], np.cumsum(kind)]) for kind in kinds]
    times = bet_times(seen)
    return _Path(moments, *(np.stack([total[at] for total in sums], axis=-1) for at in (moments, times)))


def _course(
    clause: Clause,
    at_once: ClauseDecision,
    path: _Path,
    levels: Levels,
    log_beta: float,
    mode: Mode,
    *,
    last: bool,
) -> _Course:
    """Follow one clause until it is decided, given up, or the labels end."""
    if not clause.needs_labels or at_once.verdict is not Verdict.UNKNOWN:
        return _Course(_BEFORE_ALL, at_once.verdict)
    claim = claim_of(clause)
    sign = 1.0 if claim.above else -1.0
    values, threshold = sign * np.array(values_of(clause)), sign * claim.threshold
    low, high = float(values.min()), float(values.max())
    gap = 2 * claim.tolerance

    def shown_above(c: float, log_alpha: float) -> NDArray[np.bool_]:
        return path.log_wealth(values, threshold=c, gap=gap) >= -log_alpha

    def shown_below(c: float, log_alpha: float) -> NDArray[np.bool_]:
        return path.log_wealth(-values, threshold=-c, gap=gap) >= -log_alpha

    holds, fails = shown_above(threshold, levels.log_pass), shown_below(threshold, levels.log_fail)
    # Beyond what the quantity can reach there is nothing to hope for; then halfway there is the aim.
    if mode is Mode.FP_FREE:
        given_up = shown_below(min(threshold + 2 * claim.tolerance, (threshold + high) / 2), log_beta)
    else:
        given_up = shown_above(max(threshold - 2 * claim.tolerance, (threshold + low) / 2), log_beta)
    closing = np.flatnonzero(holds | fails | given_up)
    if not closing.size:
        return _Course(len(path.moments) - 1 if last else None)
    first = int(closing[0])
    if holds[first] == fails[first]:
        return _Course(first)
    return _Course(first, Verdict.PASS if holds[first] else Verdict.FAIL)


def _stop(courses: list[_Course], mode: Mode) -> int | None:
    """Give the moment at which no further label can change the released symbol, or None while one can."""
    refusing = (
        course.closed for course in courses if course.closed is not None and not is_released(course.verdict, mode)
    )
    first_refusal = min(refusing, default=None)
    if first_refusal is not None:
        return first_refusal
    closed = [course.closed for course in courses if course.closed is not None]
    return max(closed) if len(closed) == len(courses) else None


def _report(
    clause: Clause,
    course: _Course,
    stop: int,
    path: _Path,
    levels: Levels,
) -> ClauseDecision:
    """What was known about a clause when it was closed, or when the others ended the matter.

    The interval comes from bets that need no order, at the same level, and may still hold the threshold after a PASS.
    """
    closed = course.closed is not None and course.closed <= stop
    moment = course.closed if closed and course.closed is not None else stop
    here, values, claim = path.up_to(moment), np.array(values_of(clause)), claim_of(clause)
    counts, gap = here.cells[0], 2 * claim.tolerance
    low, high = float(values.min()), float(values.max())
    log_above, log_below = (levels.log_pass, levels.log_fail) if claim.above else (levels.log_fail, levels.log_pass)
    above = Side(
        -max(0.0, float(here.log_wealth(values, threshold=claim.threshold, gap=gap)[0])),
        betting_lower_bound(counts, values, log_level=log_above, low=low, high=high),
    )
    below = Side(
        -max(0.0, float(here.log_wealth(-values, threshold=-claim.threshold, gap=gap)[0])),
        -betting_lower_bound(counts, -values, log_level=log_below, low=-high, high=-low),
    )
    seen = int(path.moments[moment])
    evidence = Evidence(float(counts @ values) / seen, above, below, "betting")
    return clause_decision(clause, evidence, levels, examples=seen, verdict=_verdict_at(course, stop))
