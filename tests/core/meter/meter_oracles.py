"""Rules of the meter as automata, and two meters' signals combined: what tests compare the product's figures with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.meter.drift import Said, combine
from easeml_core.meter.tree_size import Arrow, Automaton
from easeml_core.settings.config import MeterConfig, require

if TYPE_CHECKING:
    from easeml_core.meter.sentences import TwoSignals


def ratchet_automaton(signals: int) -> Automaton:
    """Answers that only rise, as an automaton: state i - 1 after answer i.

    Example:
        >>> import math
        >>> [round(math.exp(level)) for level in ratchet_automaton(3).log_nodes_of_levels(4)]
        [1, 3, 6, 10]
    """
    states = range(1, signals + 1)
    return Automaton(tuple(tuple((max(i, s), max(i, s) - 1) for s in states) for i in states))


def capped_rise_automaton(signals: int, most: int) -> Automaton:
    """Answers that rise by at most so many ranges a step: what is answered is never above the signal.

    Example:
        >>> capped_rise_automaton(3, 1).promised_sides
        frozenset({'lower'})
    """
    require(most >= 1, "most", most, ">= 1")
    states = range(1, signals + 1)
    return Automaton(tuple(tuple((min(s, i + most), min(s, i + most) - 1) for s in states) for i in states))


def deviations_automaton(signals: int, deviations: int) -> Automaton:
    """At most so many answers unlike the one before, as an automaton: what ``deviations`` counts in closed form."""

    def arrow(used: int, last: int, signal: int) -> Arrow:
        spent = used + (signal != last)
        return signal, None if spent > deviations else spent * signals + signal - 1

    states = range(1, signals + 1)
    return Automaton(tuple(tuple(arrow(u, i, s) for s in states) for u in range(deviations + 1) for i in states))


def combine_signals(*, total: int, direct: int, config: MeterConfig) -> TwoSignals:
    """Combine the two signals of one submission, of meters that were planned alike.

        b_{i-1} - b_j - 2 epsilon  <=  drift  <=  b_i - b_{j-1} + 2 epsilon      for total i and direct j

    Args:
        total: Signal of the meter on the test set.
        direct: Signal of the meter on the second validation sample.
        config: Ranges, tolerance and method of both.

    Returns:
        Both signals, what follows for the drift, and a sentence.

    Raises:
        ConfigError: If there is no such signal.

    Example:
        >>> from easeml_core.settings.config import MeterConfig
        >>> found = combine_signals(total=3, direct=1, config=MeterConfig(ranges=(0.1, 0.3), tolerance=0.05))
        >>> found.drift, round(found.drift_low, 9)
        ('certain', 0.1)
    """
    signals = len(config.ranges) + 1
    for name, signal in (("total", total), ("direct", direct)):
        require(1 <= signal <= signals, name, signal, f"a signal from 1 to {signals}")
    return combine(Said(total, config), Said(direct, config))
