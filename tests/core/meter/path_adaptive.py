"""The path-adaptive meter: one submission in, one signal out, and the price of having answered.

Each answer leaves less failure probability for the later ones, divided by the number of ranges that it could have
been. A clear answer is free, an ambiguous one costs ln 2, and the set is retired before an answer would need more
than the promised tolerance. The other methods, and this one with several teams or an open end, are in ``meter.py``.

The system: Hubis, Wu, Zhang (2019), arXiv 1906.00299. Paying by what could have been answered: the microchoice
bounds of Langford and Blum (2003). Why the sum of all failures stays below delta: in each level of the developer's
tree the weights exp(-log_weight) of the nodes that can be reached add up to at most 1, and as long as no earlier
claim has failed, the number of ranges counted here is never below the true number that could be answered.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from easeml_core.config import require
from easeml_core.meter.reading import Reading, measurement, read

if TYPE_CHECKING:
    from easeml_core.config import MeterConfig

__all__ = ["Reading", "read_meter"]


def read_meter(
    *, errors: int, examples: int, validation_loss: float, config: MeterConfig, log_weight: float
) -> Reading:
    """Answer one submission.

        a = (delta / T) exp(-log_weight)                       level of this step
        epsilon_t = sqrt( ln(2 / a) / (2 n) )                  hoeffding
        epsilon_t = max(k/n - p_L, p_U - k/n)                  clopper-pearson, [p_L, p_U] at level a
        retire when epsilon_t > epsilon, otherwise signal = range of k/n - v
        reachable = ranges that meet [gap - 2 epsilon_t, gap + 2 epsilon_t]         hoeffding
        reachable = signals of the counts whose intervals meet [p_L, p_U]           clopper-pearson

    With the reliability, for all T submissions at once: the true gap of a submission answered with signal i lies
    between b_{i-1} - epsilon_t and b_i + epsilon_t. That the caller answers at most T submissions, adds up the
    costs, and answers a repeated artifact from its log is part of the proof.

    Args:
        errors: k, wrong predictions on the sealed set, in 0..n.
        examples: n >= 1, size of the sealed set.
        validation_loss: v, in [0, 1], of the same model on the open validation set.
        config: What the set was planned for.
        log_weight: Sum of the log costs of the earlier readings on this set, >= 0; 0 at first.

    Returns:
        The reading. With ``hoeffding``, epsilon_t depends on n and the log weight alone, so that a retirement tells
        nothing of the sealed labels.

    Raises:
        ConfigError: If an argument is outside its range, or the set is planned for a meter that must know more of its
            past than one sum (``meter.read_submission`` takes it).

    Example:
        >>> from easeml_core.config import MeterConfig
        >>> config = MeterConfig(ranges=(0.1, 0.3), tolerance=0.05, reliability=0.95, steps=8)
        >>> reading = read_meter(errors=600, examples=4000, validation_loss=0.13, config=config, log_weight=0.0)
        >>> reading.signal, reading.reachable, reading.log_cost
        (1, 1, 0.0)
    """
    remedy = "path-adaptive (any other meter needs its earlier readings, not only their sum)"
    require(config.method == "path-adaptive", "method", config.method, remedy)
    for name, plain in (("teams", 1), ("developer", "any"), ("open_ended", False)):
        remedy = f"{plain!r} here (otherwise the earlier readings are needed, not only their sum)"
        require(getattr(config, name) == plain, name, getattr(config, name), remedy)
    seen = measurement(errors=errors, examples=examples, validation_loss=validation_loss, edges=config.ranges)
    remedy = ">= 0 and finite (add up the log costs of the earlier readings)"
    require(0 <= log_weight < math.inf, "log_weight", log_weight, remedy)
    log_level = math.log1p(-config.reliability) - math.log(config.steps) - log_weight
    reading, _ = read(seen, config, log_level=log_level, limit=config.tolerance)
    return replace(reading, log_cost=math.log(reading.reachable))
