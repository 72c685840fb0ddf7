"""How many tests one sealed set must be right about at once, as a logarithm.

The union bound over everything a developer could have done needs the number of models that could be submitted. What
the developer learns between submissions decides it. Everything is in logarithms: 2^5000 has no double.
"""

from __future__ import annotations

import math

from easeml_core.config import choice, require
from easeml_core.entities import Adaptivity


def log_multiplicity(adaptivity: str, steps: int) -> float:
    """Give ln M, by which ln(delta) must be lowered for each single test.

        none, firstChange: M = H          full: M = 2^H

    Source: Renggli et al., "Continuous Integration of Machine Learning Models with ease.ml/ci", MLSys 2019, section 3.
    With ``none`` the models are fixed before the data speak; with ``firstChange`` every answer before the last is the
    same; with ``full`` each of the H answers is one of two, so 2^H transcripts can be met.

    Args:
        adaptivity: ``none``, ``full`` or ``firstChange``.
        steps: H >= 1, verdicts that the set must serve.

    Returns:
        ln M >= 0.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> round(log_multiplicity("full", 32), 2), round(log_multiplicity("none", 32), 2)
        (22.18, 3.47)
    """
    kind = choice(Adaptivity, "adaptivity", adaptivity)
    whole = isinstance(steps, int) and not isinstance(steps, bool) and steps >= 1
    require(whole, "steps", steps, "a whole number >= 1")
    return steps * math.log(2) if kind is Adaptivity.FULL else math.log(steps)
