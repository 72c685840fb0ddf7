"""The gate without a database: the plan of a set with its alternatives, and the verdict on predictions and labels.

The command line (``easeml gate plan``, ``easeml gate decide``) and the Python names of the gate call the same functions
here: ``columns`` reads CSV files, ``arrays`` reads values of Python, ``planned`` plans, ``verdict`` judges.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DecisionPlan:
    """What a set is planned for, as far as a verdict depends on it; ``power`` is None where the level decides it.

    The defaults are the settings of the Ease.ml/ci paper, for plans and verdicts without a study.
    """

    condition: str = ""
    reliability: float = 0.9999
    steps: int = 32
    adaptivity: str = "full"
    mode: str = "fp-free"
    sampling: str = "fixed"
    power: float | None = None
    estimator: str = "exact"
