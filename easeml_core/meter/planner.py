"""How many labelled examples a sealed meter set needs, for each way of paying for the developer's reactions.

What the methods count is in ``tree_size.py``; how an answer is given, in ``meter.py``; what it promises, in
``sentences.py``. The size of the validation set that keeps pure sampling noise in range 1 is given along.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.formats.encoding import typed_record
from easeml_core.meter import tree_size
from easeml_core.meter.ranges import exact, mean_branches, narrowest_inner_range
from easeml_core.meter.reading import interval_size
from easeml_core.meter.sentences import caveats
from easeml_core.meter.tree_size import METHODS, Automaton, Tree, team_steps
from easeml_core.settings.config import METER_METHODS, MeterConfig, require
from easeml_core.stats.concentration import hoeffding_sample_size

if TYPE_CHECKING:
    from collections.abc import Sequence


_LN2 = math.log(2)

_PRUNED_NEEDS = (
    "at least 2 tolerances wide between boundaries for the method 'pruned' (widen the ranges, lower the "
    "tolerance, or take 'path-adaptive')"
)


@dataclass(frozen=True, slots=True)
class MeterPlan:
    """What a sealed meter set must have, and what was assumed.

    Attributes:
        labels: n >= 1, labelled examples of the sealed set (of all sets together for ``fresh``).
        log_nodes: ln N, the price of the developer's reactions.
        method: One of `METHODS`.
        tail: ``hoeffding`` or ``clopper-pearson``.
        validation_minimum: Least size of the validation set; None when the first boundary is not above 0.
        warnings: Sentences for the user who plans; may be empty.
    """

    labels: int
    log_nodes: float
    method: str
    tail: str
    validation_minimum: int | None
    warnings: tuple[str, ...]


@typed_record
class MeterAlternative:
    """Another method for the same settings, and the labelled examples that it needs."""

    method: str
    labels: int


@typed_record
class MeterPlanReport(MeterPlan):
    """A plan with its promise in words, and what the other methods need, the cheapest first."""

    promise: str
    alternatives: list[MeterAlternative]


def plan_meter(
    *,
    ranges: Sequence[float],
    tolerance: float,
    reliability: float,
    steps: int,
    method: str = "path-adaptive",
    ambiguous: int = 2,
    tail: str = "hoeffding",
    error_rate: float | None = None,
    **settings: Any,
) -> MeterPlan:
    """The number of labels with which all T signals hold together with the reliability.

        n = ceil( (ln N + ln(2 / delta)) / (2 epsilon^2) ),   delta = 1 - reliability          (hoeffding)
        n at which the Clopper-Pearson interval of round(n p) errors at level delta / N
            reaches no further than epsilon to either side, while at n - 1 it does        (clopper-pearson)

    A promise to one side has 1 / delta in place of 2 / delta. ``nonuniform`` solves for n what ``tree_size.py`` says.

    Source: Hoeffding (1963), Theorem 2, two-sided, with a union bound over N nodes; Clopper and Pearson (1934).

    Args:
        ranges: Inner boundaries b_1 < ... < b_{m-1} between -1 and 1.
        tolerance: epsilon, in (0, 1).
        reliability: 1 - delta, in (0, 1), for all signals together.
        steps: T >= 1, submissions that the set must serve.
        method: One of `METHODS`.
        ambiguous: b >= 0, ambiguous answers planned for; only ``path-adaptive`` looks at it.
        tail: ``hoeffding`` (holds for every error rate) or ``clopper-pearson`` (fewer labels).
        error_rate: p in [0, 1] that ``clopper-pearson`` plans with; None is the worst one, so that no count of
            errors retires the set early. A wrong guess costs answers, never the guarantee.
        settings: Further settings of ``MeterConfig``: deviations, teams, tolerances, one_sided, ...

    Returns:
        The plan. More steps or a higher reliability never need fewer labels with ``hoeffding``.

    Raises:
        ConfigError: If an argument is outside its range, or a method is asked for ranges for which its count would be
            wrong: ``pruned`` with one narrower than two tolerances, ``dithered`` with unequal ones.

    Example:
        >>> plan_meter(ranges=(0.2, 0.4, 0.6, 0.8), tolerance=0.05, reliability=0.99, steps=32, ambiguous=5).labels
        2446
    """
    require(method in METHODS, "method", method, "one of " + ", ".join(METHODS))
    config = MeterConfig(
        ranges=tuple(ranges),
        tolerance=tolerance,
        reliability=reliability,
        steps=steps,
        ambiguous=ambiguous,
        tail=tail,
        method=method if method in METER_METHODS else "full",
        **settings,
    )
    return plan_config(config, error_rate=error_rate, method=method)


def plan_config(config: MeterConfig, *, error_rate: float | None = None, method: str | None = None) -> MeterPlan:
    """The plan of a meter with these settings.

    Example:
        >>> from easeml_core.settings.config import MeterConfig
        >>> plan_config(MeterConfig(ranges=(0.1, 0.3), tolerance=0.05, method="ratchet", tail="hoeffding")).labels
        1696
    """
    method = method or config.method
    require(error_rate is None or 0 <= error_rate <= 1, "error_rate", error_rate, "in [0, 1], or None for the worst")
    closed = not config.open_ended or METHODS[method].log_level is not None
    require(closed, "open_ended", config.open_ended, f"false with the method {method!r}")
    check_ranges(config)
    if method == "nonuniform":
        examples, log_nodes = _nonuniform_size(config, error_rate), METHODS[method].log_nodes(tree_of(config), 0)
    else:
        examples, log_nodes = _least_size(config, method, error_rate)
    return MeterPlan(
        labels=examples * config.steps if method == "fresh" else examples,
        log_nodes=log_nodes,
        method=method,
        tail=config.tail,
        validation_minimum=validation_minimum(ranges=config.ranges, reliability=config.reliability),
        warnings=(*caveats(config, method), *_warnings(config)),
    )


def tree_of(config: MeterConfig) -> Tree:
    """What the number of nodes depends on."""
    signals = len(config.ranges) + 1
    if config.method == "automaton":
        found = Automaton(config.automaton)
        text = f"rows of {signals} arrows, one for each signal"
        require(found.signals == signals, "automaton", config.automaton, text)
        text = "a table of answers never below the signal, where only the upper side is promised"
        require("upper" in found.promised_sides or not config.one_sided, "automaton", config.automaton, text)
    return Tree(
        signals=signals,
        steps=config.steps,
        ambiguous=config.ambiguous,
        deviations=config.deviations,
        teams=config.teams,
        branches=mean_branches(config.ranges, config.tolerance) if config.method == "dithered" else 2.0,
        automaton=config.automaton,
    )


def check_ranges(config: MeterConfig) -> None:
    """Raise ConfigError unless the method's count is right for these ranges."""
    narrow = config.method == "pruned" and _narrower_than(config, 2, config.tolerance)
    require(not narrow, "ranges", config.ranges, _PRUNED_NEEDS)


def validation_minimum(*, ranges: Sequence[float], reliability: float) -> int | None:
    """The size of a validation set on which a model that never saw it stays in range 1.

        n_val = ceil( ln(2 / delta) / (2 b_1^2) )

    The validation loss is known exactly, so this is not needed for the meter's guarantee; without it, the signal
    tells of sampling noise more than of tuning. Source: Hoeffding (1963), Theorem 2, two-sided.

    Args:
        ranges: Inner boundaries; only the first counts.
        reliability: 1 - delta, in (0, 1).

    Returns:
        n_val >= 1, or None when b_1 <= 0, where no size is enough.

    Example:
        >>> validation_minimum(ranges=(0.05,), reliability=0.99)
        1060
    """
    require(len(ranges) > 0, "ranges", ranges, "at least one boundary")
    require(0 < reliability < 1, "reliability", reliability, "> 0 and < 1")
    if ranges[0] <= 0:
        return None
    return hoeffding_sample_size(tolerance=ranges[0], log_level=math.log1p(-reliability) - _LN2)


def log_paid(config: MeterConfig, method: str, examples: int = 0) -> float:
    """Ln of what the last planned answer must divide delta by: all nodes, or with an open end those of its level.

    An open end gives step t the share 6 / (pi^2 t^2) of delta, whose sum over all t is 1.
    """
    tree, count = tree_of(config), METHODS[method]
    if not config.open_ended or count.log_level is None:
        return count.log_nodes(tree, examples)
    last = team_steps(config.steps, config.teams)[0]  # only path-adaptive has teams here, and each has a ledger
    return math.log(config.teams) + log_share(last) + count.log_level(tree, last)


def log_share(step: int) -> float:
    """Ln(pi^2 t^2 / 6), what step t of an open end divides delta by.

    Example:
        >>> round(sum(math.exp(-log_share(t)) for t in range(1, 100_000)), 3)
        1.0
    """
    return math.log(math.pi**2 / 6) + 2 * math.log(step)


def _least_size(config: MeterConfig, method: str, error_rate: float | None) -> tuple[int, float]:
    """The least n that is enough for the ln N which it brings about, and that ln N.

    Both grow with n, so climbing from 1 reaches the least fixed point; where ln N ignores n, in one step.
    """
    n, enough = 0, 1
    while enough > n:
        n = enough
        log_nodes = log_paid(config, method, n)
        enough = interval_size(
            tail=config.tail,
            log_side=math.log1p(-config.reliability) - log_nodes - (0.0 if config.one_sided else _LN2),
            tolerance=config.tolerance,
            error_rate=error_rate,
            one_sided=config.one_sided,
        )
    return n, log_nodes


def _nonuniform_size(config: MeterConfig, error_rate: float | None) -> int:
    """The n that is enough at every tolerance, each with the level of its worst signal."""
    log_delta, sides = math.log1p(-config.reliability), 1 if config.one_sided else 2
    if config.tail == "hoeffding":
        return math.ceil(tree_size.real_size(config.tolerances, config.steps, log_delta, sides))
    levels = tree_size.log_sides(config.tolerances, config.steps, log_delta, sides)
    return max(
        interval_size(
            tail=config.tail,
            log_side=log_side,
            tolerance=tolerance,
            error_rate=error_rate,
            one_sided=config.one_sided,
        )
        for log_side, tolerance in zip(levels, config.tolerances, strict=True)
    )


def _narrower_than(config: MeterConfig, tolerances: int, tolerance: float) -> bool:
    """Whether a range between two boundaries is narrower than so many tolerances, compared exactly."""
    width = narrowest_inner_range(config.ranges)
    return width is not None and width < tolerances * exact(tolerance)


def _warnings(config: MeterConfig) -> tuple[str, ...]:
    """Sentences about choices that are allowed and cost something."""
    found, tolerance = [], config.tolerances[0] if config.tolerances else config.tolerance
    if _narrower_than(config, 4, tolerance):
        found.append(
            f"a range between two boundaries is narrower than 4 tolerances ({4 * tolerance:g}): its answers "
            "are always ambiguous and shorten the life of the set"
        )
    if exact(config.ranges[0]) < 2 * exact(tolerance):
        found.append(
            f"the first boundary {config.ranges[0]:g} is below 2 tolerances ({2 * tolerance:g}): even a model "
            "without overfitting gets ambiguous answers"
        )
    return tuple(found)
