"""When trials that wait should begin: as the devices that train now become free, in the order in which they wait."""

from __future__ import annotations

import heapq
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

LONGEST_SECONDS = 1e7
"""Of a prediction that is believed: 116 days."""


def expected_starts(lanes: Sequence[Mapping[str, Any]], waits: Sequence[Mapping[str, Any]]) -> list[datetime | None]:
    """When each should begin, about; None where nobody can tell.

    A device that trains is taken to go on with the next trial of its kind when its present one should end, by the
    predicted cost. One that has taken longer than predicted may be free at any moment, and is left out; what comes
    after a trial without a predicted cost is left open. Devices that hold nothing are known to nobody.

    Args:
        lanes: As of ``services.compute.lanes_of``, of all tenants: a lane of somebody else's is free for all.
        waits: As of ``services.compute.compute``, the next first.
    """
    free: dict[str, list[datetime]] = {}
    for lane in lanes:
        end = lane["jobs"][-1]["expected"]
        if end is not None:
            heapq.heappush(free.setdefault(lane["device"], []), end)
    return [_start(wait, free) for wait in waits]


def _start(wait: Mapping[str, Any], free: dict[str, list[datetime]]) -> datetime | None:
    """The first end of a device that it may have, which it takes."""
    kinds = [kind for kind, ends in free.items() if ends and wait["device"] in (None, kind)]
    if not kinds:
        return None
    ends = free[min(kinds, key=lambda kind: free[kind][0])]
    start = heapq.heappop(ends)
    if wait["seconds"] and 0 < wait["seconds"] <= LONGEST_SECONDS:
        heapq.heappush(ends, start + timedelta(seconds=wait["seconds"]))
    return start
