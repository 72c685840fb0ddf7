"""SYN: synthetic tables in which how alike candidates are, and how much they matter, are two knobs.

Source: Li et al., Ease.ml (PVLDB 11(5), 2018), section 5, for the structure; the text gives neither all parameters nor
their values, so those below are this product's definition.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.selection.simulate.tables import Table

if TYPE_CHECKING:
    from easeml_core.selection.surrogate.posterior import Array

JITTER = 1e-9
"""On the diagonal of Sigma_M, whose smallest eigenvalues vanish where sigma_M is not small."""

_NUMBER = r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*"
_SYN = re.compile(rf"\s*SYN\({_NUMBER},{_NUMBER}\)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Synthetic:
    """The generator SYN(sigma_M, alpha).

        x_ij = b_i + alpha m_j + eps_ij, clipped to [0, 1]
        b_i ~ N(base_level, base_std^2),  m ~ N(0, Sigma_M),  eps_ij ~ N(0, noise_std^2)
        Sigma_M(j, l) = exp( -(f_j - f_l)^2 / sigma_M^2 ),  f_j ~ U(0, 1)

    m is drawn anew for every group of ``group_size`` tenants: with one m for all, every tenant would have the same best
    candidate up to noise. The locations f are the same for all. The first half of the tenants has the first base
    level, the second half the second. Costs are U(0, 1], independent of everything.

    Attributes:
        correlation_length: sigma_M > 0: the larger, the more alike candidates are.
        model_weight: alpha >= 0: how much the candidate matters.
        tenants: Number of tenants, >= 1.
        candidates: Number of candidates, >= 1.
        group_size: Tenants that share one m, >= 1.
        base_levels: Mean of b in the first and in the second half.
        base_std: sigma_B >= 0.
        noise_std: sigma_W >= 0.

    Raises:
        ConfigError: If a parameter is out of its range.
    """

    correlation_length: float
    model_weight: float
    tenants: int = 200
    candidates: int = 100
    group_size: int = 10
    base_levels: tuple[float, float] = (0.25, 0.75)
    base_std: float = 0.05
    noise_std: float = 0.01

    def __post_init__(self) -> None:
        if not 1e-6 <= self.correlation_length <= 1e6:
            name = "correlation_length"
            raise ConfigError(name, self.correlation_length, "from 1e-6 to 1e6")
        for name in ("model_weight", "base_std", "noise_std"):
            value = getattr(self, name)
            if not 0 <= value <= 1e6:
                raise ConfigError(name, value, "from 0 to 1e6")
        for name in ("tenants", "candidates", "group_size"):
            if getattr(self, name) < 1:
                raise ConfigError(name, getattr(self, name), ">= 1")

    def table(self, seed: int) -> Table:
        """A table drawn from the generator; the same seed gives the same table.

        Args:
            seed: >= 0. Qualities and costs have separate streams.
        """
        quality, cost = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
        shape = (self.tenants, self.candidates)
        return Table(
            tuple(f"tenant_{i + 1:03d}" for i in range(self.tenants)),
            tuple(f"model_{j + 1:03d}" for j in range(self.candidates)),
            np.clip(self._qualities(quality), 0.0, 1.0),
            1.0 - cost.random(shape),
        )

    def _qualities(self, rng: np.random.Generator) -> Array:
        """The qualities before they are clipped, shape ``(n_tenants, n_candidates)``."""
        n, k = self.tenants, self.candidates
        groups = math.ceil(n / self.group_size)
        location = rng.random(k)
        apart = (location[:, None] - location) / self.correlation_length
        factor = np.linalg.cholesky(np.exp(-(apart**2)) + JITTER * np.eye(k))
        effects = rng.standard_normal((groups, k)) @ factor.T
        level = np.where(np.arange(n) < n / 2, *self.base_levels)
        base = level + self.base_std * rng.standard_normal(n)
        noise = self.noise_std * rng.standard_normal((n, k))
        return np.asarray(base[:, None] + self.model_weight * effects[np.arange(n) // self.group_size] + noise)


def parse_synthetic(text: str) -> Synthetic:
    """``SYN(sigma_M,alpha)`` as a generator.

    Raises:
        InvalidInputError: If the text is not of this form, or a number is out of its range.

    Example:
        >>> parse_synthetic("SYN(0.5, 1.0)").correlation_length
        0.5
    """
    found = _SYN.fullmatch(text)
    if found is None:
        message = f'a synthetic table is written "SYN(sigma_M,alpha)", such as "SYN(0.01,1.0)"; got {text!r}'
        raise InvalidInputError(message)
    return Synthetic(correlation_length=float(found[1]), model_weight=float(found[2]))
