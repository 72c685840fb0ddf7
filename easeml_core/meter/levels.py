"""The level at which the next submission is read, by method: what is left of delta for one node of the tree.

Path-adaptive meters pay for what has happened; all others give each node the same share of delta, decided before the
first answer. In both cases the levels of the nodes that can be reached add up to at most delta.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from easeml_core.meter import tree_size
from easeml_core.meter.planner import log_paid, log_share, tree_of
from easeml_core.meter.tree_size import METHODS

if TYPE_CHECKING:
    from easeml_core.config import MeterConfig

COUNTS_REACHABLE = ("path-adaptive", "pruned", "dithered")
"""Methods that count the ranges near the measured gap as possible answers, and not all of them.

Whether a model could be run at all is no such range, and may be any function of the sealed inputs: where it could not,
no answer is given, and the set ends. All other methods count every history of answers, so that its signal may be the
last range.
"""


def next_log_level(config: MeterConfig, *, step: int, log_weight: float, worst: int) -> float:
    """Ln a of the next submission.

        path-adaptive      delta / T exp(-log_weight),  open end: delta / K 6 / (pi^2 t^2) exp(-log_weight)
        nonuniform         by the worst earlier signal, see ``tree_size.py``
        any other          delta / N,                   open end: delta 6 / (pi^2 t^2) / (nodes of level t)

    Args:
        config: What the set was planned for.
        step: t >= 1, which submission this is (of its team).
        log_weight: Sum of the log costs of the earlier answers (to its team).
        worst: Worst earlier signal; 1 if there is none.

    Returns:
        A number < 0.

    Raises:
        ConfigError: If boundaries must be the same distance apart and are not. Whether a count is right for the
            ranges is checked by ``planner.check_ranges``.
    """
    log_delta = math.log1p(-config.reliability)
    if config.method == "path-adaptive":
        share = math.log(config.teams) + log_share(step) if config.open_ended else math.log(config.steps)
        return log_delta - share - log_weight
    if config.method == "nonuniform":
        sides = 1 if config.one_sided else 2
        return tree_size.log_sides(config.tolerances, config.steps, log_delta, sides)[worst - 1] + math.log(sides)
    level = METHODS[config.method].log_level
    if config.open_ended and level is not None:
        return log_delta - log_share(step) - level(tree_of(config), step)
    return log_delta - _log_nodes(config)


@lru_cache(maxsize=512)
def _log_nodes(config: MeterConfig) -> float:
    return log_paid(config, config.method)
