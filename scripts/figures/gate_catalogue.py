"""Every figure of ``docs/gate.md`` by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from figures.gate_early import early
from figures.gate_example import DECIDE, EARLY, PLAN, REPORT, SELF_TEST, SWAPPED, files, session
from figures.gate_power import power
from figures.gate_risks import attacks, cifar, errors, votes
from figures.gate_sizes import adaptivity, published, tests, tolerance
from figures.gate_speed import speed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from figures.gate_answers import GateRunner

FIGURES: Mapping[str, Callable[[GateRunner], str]] = {
    "example-plan": session(PLAN),
    "example-files": files,
    "example-decide": session(DECIDE, SWAPPED),
    "example-report": session(REPORT),
    "example-early": session(EARLY, lines=12),
    "example-selftest": session(SELF_TEST),
    "published": published,
    "tests": tests,
    "adaptivity": adaptivity,
    "tolerance": tolerance,
    "power": power,
    "early": early,
    "votes": votes,
    "attacks": attacks,
    "errors": errors,
    "cifar": cifar,
    "speed": speed,
}
"""Name of the block in the page, and what makes it."""
