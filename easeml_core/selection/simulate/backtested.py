"""A contestant that is chosen anew in each repeat, by a backtest on what that repeat's schedulers know: its history."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.simulate.backtest import LEAST_TENANTS, protocol_of, rule, telling
from easeml_core.selection.simulate.metrics import loss_curve
from easeml_core.selection.simulate.protocol import scene
from easeml_core.selection.simulate.run import run_repeat
from easeml_core.selection.simulate.tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.selection.problem import Past
    from easeml_core.selection.simulate.contestants import Contestant
    from easeml_core.selection.simulate.protocol import Protocol

REPEATS = 8
"""Fewer than a separate backtest has: all of them are run in each repeat of a simulation."""


def chosen_by_backtest(table: Table, protocol: Protocol, contestant: Contestant, repeat: int) -> Contestant:
    """The rival that a backtest on the repeat's history chooses, under the name of the contestant.

    The tenants served are not looked at. Too short a history chooses the first rival.
    """
    history = telling(table_of(scene(table, protocol, repeat).problem.history))
    first = replace(contestant.rivals[0], name=contestant.name)
    if len(history.tenants) < LEAST_TENANTS:
        return first
    seed = int(np.random.default_rng([protocol.seed, repeat, 1]).integers(2**62))
    inner = protocol_of(len(history.tenants), cost_mode=protocol.cost_mode, repeats=REPEATS, seed=seed)
    inner = replace(inner, devices=protocol.devices, drive=protocol.drive)
    curves = {
        rival.name: [loss_curve(run_repeat(history, inner, rival, r)) for r in range(inner.repeats)]
        for rival in contestant.rivals
    }
    winner = rule(curves, inner, len(history.tenants)).winner
    return next(replace(rival, name=contestant.name) for rival in contestant.rivals if rival.name == winner)


def table_of(history: Sequence[Past]) -> Table:
    """Past results as a table, one row for each past tenant; without trials that failed or have no cost.

    Example:
        >>> from easeml_core.selection.problem import Past
        >>> table = table_of([Past(7, ("knn", "svm"), (0.9, None), (2.0, 1.0)), Past(8, ("svm",), (0.8,), (3.0,))])
        >>> table.candidates, table.quality.tolist()
        (('knn', 'svm'), [[0.9, nan], [nan, 0.8]])
    """
    names = sorted({name for past in history for name in past.names})
    column = {name: k for k, name in enumerate(names)}
    quality = np.full((len(history), len(names)), math.nan)
    cost = np.ones_like(quality)
    for row, past in enumerate(history):
        for name, reached, seconds in zip(past.names, past.qualities, past.costs, strict=True):
            if reached is not None and seconds is not None:
                quality[row, column[name]], cost[row, column[name]] = reached, seconds
    return Table(tuple(str(past.study_id) for past in history), tuple(names), quality, cost)
