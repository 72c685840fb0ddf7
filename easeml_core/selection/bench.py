"""A made-up installation of any size, for measuring speed: qualities and costs of every pair, and some of them run.

Nothing here knows the time; what is measured on it is in ``easeml_core.services.bench``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError
from easeml_core.selection.problem import Arms, Problem, Pull

if TYPE_CHECKING:
    from easeml_core.selection.posterior import Array

FEATURES = 5
"""Latent traits of a candidate, of which its quality for a tenant is a random linear function (in logits)."""


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Everything that is true of an installation.

    Attributes:
        names: Candidates, shape ``(n_candidates,)``.
        features: Traits of the candidates, shape ``(n_candidates, FEATURES)``.
        qualities: In (0, 1), shape ``(n_tenants, n_candidates)``.
        costs: Seconds, > 0, shape ``(n_tenants, n_candidates)``.
        rows: Training rows of each tenant, shape ``(n_tenants,)``.
        runs: (tenant, candidate) of what has run already, in order of its end.
    """

    names: tuple[str, ...]
    features: Array
    qualities: Array
    costs: Array
    rows: tuple[int, ...]
    runs: tuple[tuple[int, int], ...]

    def problem(self) -> Problem:
        """What a scheduler is told of it; the study id of a tenant is its index."""
        studies = [Arms(i, 1.0, self.names, rows=rows) for i, rows in enumerate(self.rows)]
        pulls = [
            Pull(i, k, float(self.qualities[i, k]), float(self.costs[i, k]), order=order)
            for order, (i, k) in enumerate(self.runs)
        ]
        return Problem(tuple(studies), tuple(pulls))


def make_world(*, tenants: int, candidates: int, observations: int, seed: int = 0) -> World:
    """An installation in which every tenant has run ``observations`` random candidates, in random order.

    Args:
        tenants: >= 1.
        candidates: >= 1.
        observations: Trials of each tenant that have ended, >= 0 and below the number of candidates.
        seed: Of everything random.

    Raises:
        InvalidInputError: If a number is out of its range.
    """
    if min(tenants, candidates) < 1 or not 0 <= observations < candidates:
        message = (
            "tenants and candidates must be >= 1, observations >= 0 and below candidates; "
            f"got {tenants}, {candidates} and {observations}"
        )
        raise InvalidInputError(message)
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(candidates, FEATURES))
    tastes = rng.normal(0, 0.3, (tenants, FEATURES)) + rng.normal(0, 0.3, FEATURES)
    logits = rng.normal(1.5, 1.0, (tenants, 1)) + tastes @ features.T + rng.normal(0, 0.1, (tenants, candidates))
    rows = np.exp(rng.normal(8, 1.5, tenants)).astype(int) + 10
    logs = rng.normal(0, 1.5, candidates) + 0.7 * (np.log(rows) - 8)[:, None]
    costs = np.exp(logs + rng.normal(0, 0.5, (tenants, candidates)))
    runs = [(i, k) for i in range(tenants) for k in rng.permutation(candidates)[:observations].tolist()]
    order = rng.permutation(len(runs)).tolist()
    return World(
        names=tuple(f"candidate-{k:03d}" for k in range(candidates)),
        features=features,
        qualities=1 / (1 + np.exp(-logits)),
        costs=costs,
        rows=tuple(rows.tolist()),
        runs=tuple(runs[i] for i in order),
    )
