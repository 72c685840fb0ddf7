"""One submission judged from predictions and the labels that are known so far: a decision, or what is missing for one.

Labels are dear, so only those are asked for that can change the released symbol: none for a condition about d, those
of disagreements for one about d and n - o, and none where predictions alone refuse, as a clause on d can. On a set
that is labelled on demand, as many disagreements are asked about as the submission needs (``exact_sizes``).

Under ``fixed`` no label is looked at before the labels of all clauses and slices are there. So what is asked for, and
whether a request waits, depends on predictions and on which labels are known, never on what they are (docs/gate.md,
"Labels"). Under ``early`` it also depends on the labels before, at the boundaries of the plan, so the number of labels
asked for must stay with the referee, as the decision must.

Conditions on slices, which are parts of the set, must hold too, and all conditions share the level. Which example
belongs to which slice must be known from its input, or be fixed before the labels are looked at. Given which examples
are in a slice, they are a random sample of it; so its condition is judged as any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.entities import Mode, Verdict
from easeml_core.errors import InvalidInputError
from easeml_core.gate.decision import Decision, Judged, Wanted, conjunction, decide_counts, is_released, wanted_of
from easeml_core.gate.early_stopping import EarlyRules, LookedUp, Looks, decide_early, judge_looks, looks_of
from easeml_core.gate.exact_sizes import can_sample, labels_of_submission
from easeml_core.gate.outcomes import count_outcomes, predictions_of
from easeml_core.settings.config import SAMPLINGS, choice, require
from easeml_core.stats.paired_differing import Differing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from easeml_core.gate.condition import Condition


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """A part of the set and the condition that must hold on it.

    Attributes:
        name: As in the column that tells the slices.
        condition: The parsed condition.
        members: Positions of its examples in the set's order, rising, shape ``(n_members,)``.
    """

    name: str
    condition: Condition
    members: NDArray[np.int64]


def slices_of(conditions: Sequence[tuple[str, Condition]], names: ArrayLike) -> tuple[Slice, ...]:
    """Find the examples of each slice.

    Args:
        conditions: Pairs (slice, condition), each slice once.
        names: The slice of every example, text, shape ``(n_examples,)``; other names than those asked for are allowed.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> slices_of([("young", parse_condition("n > 0.8 +/- 0.1"))], ["old", "young", "young"])[0].members
        array([1, 2])
    """
    column = np.asarray(names)
    found = []
    for name, condition in conditions:
        members = np.flatnonzero(column == name)
        if not members.size:
            known = ", ".join(repr(str(n)) for n in np.unique(column)[:8])
            message = f"slice {name!r} has no examples; slices of this set: {known or 'none'}"
            raise InvalidInputError(message)
        found.append(Slice(name, condition, members))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What is the same for every condition of one judgement."""

    log_level: float
    mode: Mode
    sampling: str
    power: float | None
    log_beta: float
    batch: int
    conditions: int
    on_demand: bool


def judge_predictions(
    condition: Condition,
    labels: ArrayLike,
    old: ArrayLike,
    new: ArrayLike,
    *,
    log_level: float,
    mode: str,
    sampling: str = "fixed",
    power: float | None = None,
    slices: Sequence[Slice] = (),
    batch: int = 200,
    on_demand: bool = False,
) -> Decision | Wanted:
    """Judge one submission, or say which labels that needs.

    Args:
        condition: The parsed condition.
        labels: True classes in the set's fixed order, whole numbers >= 0; negative where not known yet. Shape
            ``(n_examples,)``. ``early`` and ``on_demand`` may end before the last example: for them the order must have
            been drawn at random, from nothing that depends on labels or predictions.
        old: Predictions of the old model, same shape.
        new: Predictions of the new model, same shape.
        log_level: ln alpha of the whole verdict, finite and < 0, as the plan allots it.
        mode: ``fp-free`` or ``fn-free``.
        sampling: ``fixed`` looks at every example that matters; ``early`` in their order, until the verdict is certain
            or out of reach.
        power: Under ``early``: the chance with which a model beyond the threshold by twice the tolerance may not be
            given up, in (0, 1); None for 1 - alpha. Has no part in what is promised.
        slices: Conditions that must hold too, each on a part of the set. Each condition has the whole level for its
            PASS; for a FAIL the level is divided over all of them (``decision``).
        batch: Labels asked for at a time under ``early``, >= 1.
        on_demand: Whether labels of the set are given when they are asked for, which is fixed when it is sealed. Then
            ``fixed`` asks for no more disagreements than a submission needs, and counts no others.

    Returns:
        The decision once it can be made, else the positions whose labels are needed next.

    Raises:
        ShapeError: If the shapes differ.
        InvalidInputError: If there are no examples, in the set or in a slice, or values are not whole numbers.
        ConfigError: If a setting is outside its range.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> condition = parse_condition("n - o > 0 +/- 0.1")
        >>> judge_predictions(condition, [-1, -1, 2], [0, 0, 1], [0, 1, 2], log_level=-3.0, mode="fp-free").positions
        array([1])
    """
    truth, before, after = predictions_of(labels, old, new)
    rules = _rules(log_level, mode, sampling, power, batch, conditions=1 + len(slices), on_demand=on_demand)
    everything = np.arange(truth.size)
    parts = [_judge_part(condition, truth, before, after, everything, rules)]
    for part in slices:
        if not part.members.size:
            message = f"slice {part.name!r} has no examples; a condition on it cannot be judged"
            raise InvalidInputError(message)
        parts.append(_judge_part(part.condition, truth, before, after, part.members, rules))
    return _together(parts, [part.name for part in slices], rules.mode)


def looks_of_submission(
    condition: Condition,
    labels: NDArray[np.int64],
    old: NDArray[np.int64],
    new: NDArray[np.int64],
    *,
    log_level: float,
    mode: str,
    power: float | None = None,
    slices: Sequence[Slice] = (),
    batch: int = 200,
) -> tuple[Looks, ...]:
    """Count what ``judge_predictions`` looks at under ``early``, for the set and for each slice; arguments as there."""
    truth, before, after = predictions_of(labels, old, new)
    rules = _early(log_level, mode, power, 1 + len(slices))
    everything = np.arange(truth.size)
    parts = [(condition, everything), *((part.condition, part.members) for part in slices)]
    return tuple(looks_of(c, truth[at], before[at], after[at], rules=rules, batch=batch) for c, at in parts)


def judge_looks_of_submission(
    conditions: Sequence[Condition], looks: Sequence[Looks], *, log_level: float, mode: str, power: float | None = None
) -> tuple[list[LookedUp], Verdict, bool]:
    """Judge a submission on what was counted at each look: of the set, then of its slices."""
    rules = _early(log_level, mode, power, len(conditions))
    parts = [judge_looks(condition, found, rules) for condition, found in zip(conditions, looks, strict=True)]
    if not any(part.refuses for part in parts) and any(part.is_open for part in parts):
        message = "the looks end before the verdict is clear"
        raise InvalidInputError(message)
    verdict = conjunction([part.verdict for part in parts])
    return parts, verdict, is_released(verdict, rules.mode)


def _early(log_level: float, mode: str, power: float | None, conditions: int) -> EarlyRules:
    rules = _rules(log_level, mode, "early", power, 1, conditions=conditions, on_demand=False)
    return EarlyRules(rules.log_level, rules.log_beta, rules.mode, rules.conditions)


def _rules(
    log_level: float, mode: str, sampling: str, power: float | None, batch: int, *, conditions: int, on_demand: bool
) -> _Rules:
    kind = choice(Mode, "mode", mode)
    require(-math.inf < log_level < 0, "log_level", log_level, "finite and < 0")
    require(sampling in SAMPLINGS, "sampling", sampling, "one of " + ", ".join(SAMPLINGS))
    require(power is None or 0 < power < 1, "power", power, "> 0 and < 1, or nothing")
    require(type(batch) is int and batch >= 1, "batch", batch, "a whole number >= 1")
    promised = log_level - (math.log(conditions) if kind is Mode.FN_FREE else 0.0)
    log_beta = promised if power is None else math.log1p(-power)
    return _Rules(log_level, kind, sampling, power, log_beta, batch, conditions, on_demand)


def _judge_part(
    condition: Condition,
    labels: NDArray[np.int64],
    old: NDArray[np.int64],
    new: NDArray[np.int64],
    members: NDArray[np.int64],
    rules: _Rules,
) -> Judged:
    """Judge one condition on the examples at ``members``; positions in the answer are those of the whole set."""
    truth, before, after = labels[members], old[members], new[members]
    if rules.sampling == "early":
        found = decide_early(
            condition,
            truth,
            before,
            after,
            log_level=rules.log_level,
            log_beta=rules.log_beta,
            mode=rules.mode,
            batch=rules.batch,
            conditions=rules.conditions,
        )
    else:
        found = _decide_fixed(condition, truth, before, after, rules)
    return replace(found, used=members[found.used], wanted=members[found.wanted])


def _decide_fixed(
    condition: Condition, labels: NDArray[np.int64], old: NDArray[np.int64], new: NDArray[np.int64], rules: _Rules
) -> Judged:
    """Judge on all examples that matter; without their labels, only where predictions settle the symbol."""
    level, mode, conditions = rules.log_level, rules.mode, rules.conditions
    decided = partial(decide_counts, condition, log_level=level, mode=mode, conditions=conditions)
    judged = None
    if rules.on_demand and can_sample(condition):
        shown = Differing(int(np.count_nonzero(old != new)), int(old.size))
        judged = labels_of_submission(
            condition, shown, log_level=level, mode=mode, conditions=conditions, power=rules.power
        )
    matters = wanted_of(condition, old, new, judged=judged)
    missing = np.flatnonzero(matters & (labels < 0))
    used = np.flatnonzero(matters)
    decision = decided(count_outcomes(np.full_like(labels, -1), old, new, judged=judged))
    settled = is_settled(decision)
    if not missing.size:
        decision = decided(count_outcomes(labels, old, new, judged=judged), labels=used.size)
    elif settled:
        used, missing = used[:0], missing[:0]
    return Judged(decision, used=used, wanted=missing, refuses=settled)


def is_settled(decision: Decision) -> bool:
    """Whether more labels can no longer change the symbol that a decision on predictions alone releases.

    A FAIL is final. So is, under fp-free, a clause that needs no label and was not shown to hold: no label can help it.
    """
    unhelped = any(c.examples > 0 and c.verdict is not Verdict.PASS for c in decision.clauses)
    return decision.verdict is Verdict.FAIL or (decision.mode is Mode.FP_FREE and unhelped)


def _together(parts: list[Judged], names: list[str], mode: Mode) -> Decision | Wanted:
    """Put the conditions of the set and of its slices together: all must hold."""
    if not any(part.refuses for part in parts) and any(part.wanted.size for part in parts):
        return Wanted(_union([part.wanted for part in parts]))
    verdict = conjunction([part.decision.verdict for part in parts])
    used = _union([part.used for part in parts if not part.wanted.size])
    return replace(
        parts[0].decision,
        verdict=verdict,
        passed=is_released(verdict, mode),
        labels=int(used.size),
        slices=tuple((name, part.decision) for name, part in zip(names, parts[1:], strict=True)),
    )


def _union(positions: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """All positions, rising, each once."""
    return positions[0] if len(positions) == 1 else np.unique(np.concatenate(positions))
