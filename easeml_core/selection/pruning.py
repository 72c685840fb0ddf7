"""Whether the training of a network goes on: decided once at each rung, which is a share of its epochs.

The gains of other trials, of all tenants, after the same rung bound the gain of this one. A rung ends a trial or lets
it go on; no trial is paused or waits for others. ``docs/benchmarks.md`` has what each rule saves and loses.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.selection.surrogate.logit_normal import logit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVEL = 0.85
"""Chance that a trial gains at most what it is allowed for, were trials exchangeable (docs/benchmarks.md: not so)."""

LEAST_ENDED = 3
"""Median stopping compares with no fewer trials."""

_ROUNDING = 1e-9


class Reached(NamedTuple):
    """What is known of another trial that has reached the rung.

    Attributes:
        quality: Told at the rung, in [0, 1].
        final: Of the model that it ended with; None while it runs, and where a rung has stopped it.
        is_here: Whether it is of the same study.
        average: Of the qualities told up to the rung; only median stopping looks at it.
    """

    quality: float
    final: float | None
    is_here: bool
    average: float = math.nan


class Decision(NamedTuple):
    """What was decided at a rung, and by what.

    Attributes:
        goes_on: Whether the rest of the epochs is trained.
        hoped: Quality that the trial is allowed for: the end it may reach with luck, or where it is; None for unknown.
        needed: What that must not be below; None for nothing.
        known: How many trials this was learned from.
        rule: ``gains`` or ``median``.
    """

    goes_on: bool
    hoped: float | None
    needed: float | None
    known: int
    rule: str


def rung_step(share: float, of: int) -> int:
    """The step that a share of all steps ends with, from 1 to ``of``.

    Example:
        >>> rung_step(1 / 9, 27), rung_step(1 / 3, 27), rung_step(0.01, 27), rung_step(1 / 3, 8)
        (3, 9, 1, 3)
    """
    return min(of, max(1, math.ceil(share * of - _ROUNDING)))


def by_gains(quality: float, others: Sequence[Reached], best: float | None) -> Decision:
    """Stop a trial that would stay below the study's best even with a large gain.

        hoped = expit(logit(q) + max(0, g)),  g = the ceil((n + 1) LEVEL)-th smallest of n gains logit(final) - logit(q)

    The rank is that of split conformal prediction (Vovk, Gammerman and Shafer 2005): were gains exchangeable, the next
    one would be at most g with probability LEVEL or more. With fewer than 6 gains it does not exist, and the trial goes
    on. g is taken among the trials of all studies, and among those of the study itself where it has enough; the larger
    one counts, so that a study which learns slowly is not measured by quick ones. A negative gain counts as 0: a trial
    as good as the best never stops.

    Args:
        quality: q of the trial at the rung, in [0, 1].
        others: Those that have reached the rung.
        best: Best quality that the study has reached; None for none.

    Example:
        >>> ended = [Reached(0.5, 0.7, is_here=False)] * 6
        >>> [round(float(part), 4) for part in by_gains(0.6, ended, 0.9)[:4]]  # logit 0.4055 + 0.8473
        [0.0, 0.7778, 0.9, 6.0]
        >>> by_gains(0.8, ended, 0.9).goes_on, by_gains(0.6, ended[:5], 0.9).goes_on
        (True, True)
    """
    gains = [
        (logit_of(other.final) - logit_of(other.quality), other.is_here) for other in others if other.final is not None
    ]
    everywhere = _large([gain for gain, _ in gains])
    if everywhere is None or best is None:
        return Decision(True, None, best, len(gains), "gains")
    here = _large([gain for gain, is_here in gains if is_here])
    gain = max(0.0, everywhere, everywhere if here is None else here)
    hoped = max(quality, _expit(logit_of(quality) + gain))
    return Decision(hoped >= best, hoped, best, len(gains), "gains")


def _large(values: Sequence[float]) -> float | None:
    """What the next of such values is at most, with probability LEVEL; None if they are too few."""
    rank = math.ceil((len(values) + 1) * LEVEL - _ROUNDING)
    return sorted(values)[rank - 1] if rank <= len(values) else None


def _expit(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def by_median(quality: float, others: Sequence[Reached], best: float | None) -> Decision:
    """Stop a trial below the median of what the ended ones of its study had on average up to the rung.

    Source: Golovin et al., Google Vizier (KDD 2017), section 3.2.2; the trial's own quality is that at the rung.

    Example:
        >>> here = [Reached(0.9, 0.9, True, average) for average in (0.5, 0.6, 0.7)]
        >>> by_median(0.6, here, None).goes_on, by_median(0.59, here, None).goes_on
        (True, False)
    """
    averages = [other.average for other in others if other.is_here and other.final is not None]
    if len(averages) < LEAST_ENDED:
        return Decision(True, None, best, len(averages), "median")
    needed = median(averages)
    return Decision(quality >= needed, quality, needed, len(averages), "median")


def decide(quality: float, others: Sequence[Reached], best: float | None) -> Decision:
    """By gains; as long as they are too few to tell, by the median, but never against a trial as good as the best.

    Example:
        >>> here = [Reached(0.5, 0.7, True, average=0.5)] * 5
        >>> decide(0.4, here, 0.7).rule, decide(0.4, here * 2, 0.7).rule
        ('median', 'gains')
    """
    decision = by_gains(quality, others, best)
    if decision.hoped is not None or best is None or quality >= best:
        return decision
    return by_median(quality, others, best)
