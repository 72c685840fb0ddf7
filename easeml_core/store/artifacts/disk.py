"""Free space of folders against a limit, so that work pauses before a disk is full.

``EASEML_MIN_FREE`` is the limit of this machine: bytes, with K, M, G or T for powers of 1,000, or a part of the disk
such as ``5%``; by default 500M. What is below it is an error for the health check; a training or a sealing waits.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VARIABLE = "EASEML_MIN_FREE"
DEFAULT = "500M"
ROOM_SECONDS = 5.0
"""Pause between two looks of work that waits for room."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT%]?)B?", re.IGNORECASE)
_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, slots=True)
class Room:
    """Free space of a disk.

    Attributes:
        path: The folder that was asked for; it may be missing.
        free: Bytes that this account may still write.
        least: Bytes that must stay free.
    """

    path: Path
    free: int
    least: int

    @property
    def suffices(self) -> bool:
        """Whether more than the limit is free."""
        return self.free >= self.least

    def __str__(self) -> str:
        """Say how much is free, and the limit."""
        return f"{self.free / 1e9:,.1f} GB free at {self.path}, the limit ({VARIABLE}) is {self.least / 1e9:,.1f} GB"


def least_free(total: int, text: str | None = None) -> int:
    """Return the bytes that must stay free on a disk.

    Example:
        >>> least_free(10**12, "5%"), least_free(10**12, "2G"), least_free(10**12, "1000")
        (50000000000, 2000000000, 1000)
    """
    given = os.environ.get(VARIABLE) or DEFAULT if text is None else text
    found = _SIZE.fullmatch(given.strip())
    unit = "" if found is None else found[2].upper()
    if found is None or (unit == "%" and float(found[1]) > 100):
        raise ConfigError(VARIABLE, given, "bytes such as 500M or 2G (K, M, G, T), or a part of the disk such as 5%")
    return int(total * float(found[1]) / 100) if unit == "%" else int(float(found[1]) * _FACTORS[unit])


def room_at(path: str | Path) -> Room:
    """Return the room of the disk of a folder, or of the nearest existing one above it."""
    place = Path(path).absolute()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    usage = shutil.disk_usage(there)
    return Room(place, usage.free, least_free(usage.total))


def short_of_room(*paths: str | Path) -> Room | None:
    """Return the first of these folders whose disk has less room than the limit; None where all have enough."""
    return next((room for room in map(room_at, paths) if not room.suffices), None)


def await_room(
    paths: Sequence[str | Path], say: Callable[[str], object], should_stop: Callable[[], bool] = lambda: False
) -> bool:
    """Wait while a disk has less room than the limit; say once that it waits, and that it goes on."""
    has_waited = False
    while (room := short_of_room(*paths)) is not None:
        if should_stop():
            return False
        if not has_waited:
            say(f"waiting for room: {room}; make room, and the work goes on")
            has_waited = True
        time.sleep(ROOM_SECONDS)
    if has_waited:
        say("there is room again")
    return True


def require_room(*paths: str | Path) -> None:
    """Refuse work that would fill a disk."""
    room = short_of_room(*paths)
    if room is not None:
        raise OSError(errno.ENOSPC, f"too little room: {room}", str(room.path))
