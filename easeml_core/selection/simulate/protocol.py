"""How policies are compared: who is served, who is history, how often, on how many devices, at what costs.

Source: Li et al., Ease.ml (PVLDB 11(5), 2018), section 5: tenants drawn at random are served, the others only supply
what is known of the candidates; repeated with other draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.config import COST_MODES
from easeml_core.errors import ConfigError
from easeml_core.selection.problem import Arms, Past, Problem

if TYPE_CHECKING:
    from easeml_core.selection.simulate.tables import Table
    from easeml_core.selection.surrogate.posterior import Array

DRIVES = ("stream", "rounds")
MOST_REPEATS = 10_000
MOST_DEVICES = 10_000
MOST_LOSSES = 50


def _require(condition: bool, field: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(field, value, allowed)


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of comparing policies; every policy sees the same draws.

    Attributes:
        served: N >= 1, tenants that are served in each repeat.
        repeats: R, draws of tenants, 1 to 10,000.
        seed: >= 0. The draw of repeat r depends on the seed and r alone.
        history: K >= 0, how many of the other tenants are history; None for all of them.
        devices: M, identical devices, 1 to 10,000.
        cost_mode: ``known``: policies know every cost; ``predicted``: they learn costs from the history and from what
            finishes; ``unit``: every trial costs 1, so that percent of the cost is percent of the trials.
        until: Percent of the cost at which a repeat ends, in (0, 100].
        losses: Average losses whose price is reported, each in [0, 1].
        drive: ``stream``: a device that becomes free gets its next trial at once; ``rounds``: a batch of M trials, and
            the next one when the slowest has ended.

    Raises:
        ConfigError: If a value is out of its range.
    """

    served: int = 10
    repeats: int = 30
    seed: int = 0
    history: int | None = None
    devices: int = 1
    cost_mode: str = "known"
    until: float = 100.0
    losses: tuple[float, ...] = (0.05, 0.02, 0.01)
    drive: str = "stream"

    def __post_init__(self) -> None:
        _require(self.served >= 1, "served", self.served, ">= 1")
        _require(1 <= self.repeats <= MOST_REPEATS, "repeats", self.repeats, f"from 1 to {MOST_REPEATS:,}")
        _require(0 <= self.seed < 2**63, "seed", self.seed, ">= 0 and < 2^63")
        _require(self.history is None or self.history >= 0, "history", self.history, ">= 0, or absent for all others")
        _require(1 <= self.devices <= MOST_DEVICES, "devices", self.devices, f"from 1 to {MOST_DEVICES:,}")
        _require(self.cost_mode in COST_MODES, "cost-mode", self.cost_mode, "one of " + ", ".join(COST_MODES))
        _require(0 < self.until <= 100, "until", self.until, "> 0 and <= 100 percent")
        _require(self.drive in DRIVES, "drive", self.drive, "one of " + ", ".join(DRIVES))
        _require(0 < len(self.losses) <= MOST_LOSSES, "losses", self.losses, f"1 to {MOST_LOSSES} numbers")
        for loss in self.losses:
            _require(0 <= loss <= 1, "losses", loss, "numbers in [0, 1], such as 0.05,0.02,0.01")
        _require(len(set(self.losses)) == len(self.losses), "losses", self.losses, "all different")

    def check(self, table: Table) -> None:
        """See that a table has enough tenants.

        Raises:
            ConfigError: If more tenants are to be served, or to be history, than there are.
        """
        there, others = len(table.tenants), len(table.tenants) - self.served
        _require(self.served <= there, "served", self.served, f"from 1 to {there}, the tenants of the table")
        allowed = f"from 0 to {others}: {there} tenants less the {self.served} served"
        _require(self.history is None or self.history <= others, "history", self.history, allowed)

    def draw(self, n_tenants: int, repeat: int) -> tuple[list[int], list[int]]:
        """Rows of the tenants served in a repeat, and of those that are history.

        Draws are nested: with another N or K, the same seed and repeat give a beginning of the same order.

        Example:
            >>> protocol = Protocol(served=3, history=2)
            >>> [len(rows) for rows in protocol.draw(10, repeat=0)]
            [3, 2]
        """
        order: list[int] = np.random.default_rng([self.seed, repeat]).permutation(n_tenants).tolist()
        others = order[self.served :]
        return order[: self.served], others[: self.history]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One repeat: the chosen tenants with their true results, and the scheduler's problem.

    Attributes:
        problem: Studies in the order of the draw, without any trial; the history.
        quality: True quality of each arm of each study, shapes ``(n_arms,)``.
        cost: True cost of each arm of each study, same shapes.
        knows_costs: Whether schedulers know the costs.
    """

    problem: Problem
    quality: tuple[Array, ...]
    cost: tuple[Array, ...]
    knows_costs: bool

    @property
    def known_costs(self) -> dict[int, Array] | None:
        """The costs by study id, or None when they are to be learnt."""
        if not self.knows_costs:
            return None
        return {arms.study_id: cost for arms, cost in zip(self.problem.studies, self.cost, strict=True)}

    @property
    def total_cost(self) -> float:
        """Cost of all arms of all studies: the hundred percent."""
        return float(sum(cost.sum() for cost in self.cost))


def scene(table: Table, protocol: Protocol, repeat: int) -> Scene:
    """A repeat of a protocol on a table.

    A study has the candidates that are available to its tenant; all weights are 1.
    """
    if protocol.cost_mode == "unit":
        table = table.with_unit_costs()
    served, others = protocol.draw(len(table.tenants), repeat)
    available = ~np.isnan(table.quality)
    names = np.array(table.candidates, dtype=object)
    studies = tuple(
        Arms(i, 1.0, tuple(names[available[row]]), study=table.tenants[row]) for i, row in enumerate(served)
    )
    history = tuple(
        Past(
            i,
            tuple(names[available[row]]),
            *(tuple(a[row, available[row]].tolist()) for a in (table.quality, table.cost)),
        )
        for i, row in enumerate(others, start=len(served))
    )
    quality, cost = (tuple(a[row, available[row]] for row in served) for a in (table.quality, table.cost))
    return Scene(Problem(studies, history=history), quality, cost, protocol.cost_mode != "predicted")
