"""Every figure of ``docs/meter.md`` by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from figures.meter_answers import session
from figures.meter_attack import attack
from figures.meter_example import PLAN, recorded, replayed, truth
from figures.meter_real import cifar, ladder
from figures.meter_sizes import labels, sizes, tails
from figures.meter_speed import speed
from figures.meter_validation import validation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from figures.meter_answers import MeterRunner

FIGURES: Mapping[str, Callable[[MeterRunner], str]] = {
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
