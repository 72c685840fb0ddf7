"""The price of compute over all studies: up to which price each of them goes on, by the rule that a decision obeys.

A study stops while no trial of it promises as much quality for its seconds as the price asks. So each has a price above
which it stops, and how many go on at any price follows from these. Nothing is stored or decided here.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from easeml_core.services.selection.beliefs import watch_of
from easeml_core.store.queries import compute as store_compute

if TYPE_CHECKING:
    from collections.abc import Collection

    from easeml_core.services.selection.scheduler_state import Memory
    from easeml_core.store.database import Store

DAY = timedelta(days=1)
MOST_AN_HOUR = 1e9
"""A price of an hour, of quality, that says as much as any higher one; a cost next to nothing would ask for more."""


def stopping_prices(store: Store, *, studies: Collection[str] | None = None) -> dict[str, Any] | None:
    """The price above which each active study stops, highest first.

    Args:
        store: Role ``easeml_worker``.
        studies: Names of the studies that whoever asks may see; None for all.

    Returns:
        ``{"price_per_hour", "policy", "is_heeded", "costs_known", "studies", "without"}``. The price is the present
        one, of quality for an hour of a device, >= 0; ``is_heeded`` says whether the policy looks at it, and
        ``costs_known`` whether predicted costs rest on any measurement. ``studies`` have something left to run:
        ``{"study", "stops_above", "seconds_day"}``, with the price for an hour and the device seconds of the last day;
        ``without`` is how many have not. None while somebody else's look takes too long.
    """
    told = watch_of(store).ask("prices", _prices)
    if told is None:
        return None
    seen = None if studies is None else set(studies)
    limits = {study: limit for study, limit in told["limits"].items() if seen is None or study in seen}
    left = {study: limit for study, limit in limits.items() if limit > -math.inf}
    with store.begin() as tx:
        used = store_compute.seconds_of_studies(tx, since=datetime.now(UTC) - DAY, names=list(left))
    most = MOST_AN_HOUR if told["settings"]["is_heeded"] else math.inf
    entries = [
        {"study": s, "stops_above": min(3600 * p, most), "seconds_day": used.get(s, 0.0)} for s, p in left.items()
    ]
    entries.sort(key=lambda e: (-e["stops_above"], e["study"]))
    return {**told["settings"], "studies": entries, "without": len(limits) - len(left)}


def _prices(memory: Memory) -> dict[str, Any]:
    config = memory.config
    kinds = _kinds(memory)
    limits = {
        arms.study: max(memory.scheduler.stops_above(tenant, device=kind) for kind in kinds)
        for tenant, arms in enumerate(memory.arms)
    }
    return {
        "limits": limits,
        "settings": {
            "price_per_hour": 3600 * config.price_per_second,
            "policy": config.policy,
            "is_heeded": config.policy == "default",
            "costs_known": memory.costs_known,
        },
    }


def _kinds(memory: Memory) -> set[str | None]:
    """Kinds of device that trials were seen on or must run on: a study goes on where it pays on one of them."""
    named = {kind for arms in memory.problem.studies for kinds in arms.devices for kind in kinds or ()}
    return memory.kinds | named or {None}
