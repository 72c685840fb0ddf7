"""Every figure of ``docs/meter.md`` by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from figures.meter.attack import attack
from figures.meter.example import PLAN, recorded, replayed, truth
from figures.meter.real import cifar, ladder
from figures.meter.sizes import labels, sizes, tails
from figures.meter.speed import speed
from figures.meter.validation import validation
from figures.sessions import session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from figures.sessions import SessionRunner

FIGURES: Mapping[str, Callable[[SessionRunner], str]] = {
    "example-plan": session(PLAN),
    "example-history": recorded,
    "example-replay": replayed,
    "example-truth": truth,
    "sizes": sizes,
    "labels": labels,
    "tails": tails,
    "validation": validation,
    "attack": attack,
    "cifar": cifar,
    "ladder": ladder,
    "speed": speed,
}
"""Name of the block in the page, and what makes it."""

NEED_DATA = frozenset({"cifar", "ladder"})
"""Figures that read the published data."""
