"""Plans of ``easeml meter`` that docs/meter.md shows, and their sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from figures.commands import Command

if TYPE_CHECKING:
    from figures.sessions import SessionRunner

RANGES, RELIABILITY = "0.1,0.3,0.5,0.7", "0.99"


def plan(*, tolerance: float, steps: int, ranges: str = RANGES, reliability: str = RELIABILITY, **more: Any) -> Command:
    """A plan.

    Args:
        tolerance: epsilon.
        steps: T.
        ranges: As the command writes them.
        reliability: 1 - delta.
        more: Further options, ``error_rate=0.1`` for ``--error-rate 0.1``.
    """
    words = ["meter", "plan", "--ranges", ranges, "--tolerance", f"{tolerance:g}", "--reliability", reliability]
    words += ["--steps", str(steps)]
    for name, value in more.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return Command((*words, "--json"))


def labels_by_method(runner: SessionRunner, command: Command) -> dict[str, int]:
    """Return the labels that a plan needs, by its method and by each alternative."""
    found = runner.answer(command)
    others = {other["method"]: int(other["labels"]) for other in found["alternatives"]}
    return {found["method"]: int(found["labels"])} | others
