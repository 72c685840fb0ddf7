"""Plans of ``easeml gate`` that docs/gate.md shows."""

from __future__ import annotations

from typing import Any

from figures.commands import Command

SIMPLE = "n > 0.9 +/- 0.01"
GAIN = "n - o > 0.02 +/- 0.01"
SMALL = "d < 0.1 +/- 0.01"
BOTH = f"{GAIN} /\\ {SMALL}"
RELIABILITY, STEPS = 0.9999, 32


def plan(
    condition: str, adaptivity: str, *, steps: int = STEPS, reliability: float = RELIABILITY, **more: Any
) -> Command:
    """A plan.

    Args:
        condition: In the language of conditions.
        adaptivity: As the command writes it.
        steps: H.
        reliability: 1 - delta.
        more: Further options, ``power="same"`` for ``--power same``.
    """
    words = ["gate", "plan", "--condition", condition, "--reliability", str(reliability), "--steps", str(steps)]
    words += ["--adaptivity", adaptivity]
    for name, value in more.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return Command((*words, "--json"))
