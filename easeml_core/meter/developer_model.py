"""Guesses of how a developer's signals go on. They make likely histories cheap; a wrong guess is paid, never believed.

Any probabilities over signal histories add up to at most 1 in each level of the developer's tree, so a node may be
given the failure probability (delta / T) P(history). Among the ranges that could be answered they are rescaled, which
makes a clear answer free, as in the path-adaptive meter.

Sources: Krichevsky and Trofimov (1981), "The performance of universal encoding", for adding 1/2 to the counts; Rogers
et al. (2020), "Guaranteed validity for empirical approaches to adaptive data analysis", for guess and check.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from easeml_core.meter.regulation import changes

if TYPE_CHECKING:
    from collections.abc import Sequence


def next_signal_probabilities(developer: str, signals: int, answers: Sequence[int]) -> tuple[float, ...]:
    """The guessed chance of each signal after these answers.

        any:     1 / m
        kt:      (count of i + 1/2) / (t + m/2)                         after t answers
        sticky:  (stays + 1/2) / (t + 1) for the last answer, (changes + 1/2) / (t + 1) / (m - 1) for each other

    Args:
        developer: ``any``, ``kt`` or ``sticky``.
        signals: m >= 2.
        answers: Signals so far; before the first, ``sticky`` expects range 1.

    Returns:
        m positive numbers with sum 1.

    Example:
        >>> next_signal_probabilities("kt", 2, [1, 1, 1])
        (0.875, 0.125)
    """
    t = len(answers)
    if developer == "kt":
        return tuple((answers.count(i) + 0.5) / (t + signals / 2) for i in range(1, signals + 1))
    if developer == "sticky":
        moved = changes(answers)
        last = answers[-1] if answers else 1
        other = (moved + 0.5) / (t + 1) / (signals - 1)
        return tuple((t - moved + 0.5) / (t + 1) if i == last else other for i in range(1, signals + 1))
    return (1 / signals,) * signals


def log_cost(developer: str, signals: int, answers: Sequence[int], signal: int, span: range) -> float:
    """What an answer costs: -ln of its guessed chance among the signals that could have been answered.

    Args:
        developer: As above.
        signals: m >= 2.
        answers: Signals so far.
        signal: The answer, inside the span.
        span: Signals that could have been answered.

    Returns:
        A number >= 0; 0 when nothing else could have been answered; ln of how many for ``any``.
    """
    if developer == "any" or len(span) == 1:
        return math.log(len(span))
    chances = next_signal_probabilities(developer, signals, answers)
    return math.log(math.fsum(chances[i - 1] for i in span)) - math.log(chances[signal - 1])
