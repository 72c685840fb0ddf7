"""What has gone between this machine and remote stores through a cache: bytes, seconds and hits, summed over processes.

The sums lie beside the entries of the cache, in a file that is replaced as a whole under a lock. They are figures for
people: one that is damaged begins anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SUMS, _LOCK = "traffic.json", ".traffic.lock"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Sums since the folder was made, or since its figures were lost.

    Attributes:
        hits: Uses of files that were in the cache.
        misses: Uses of files that were brought here first.
        fetched_bytes: Came over the network.
        fetch_seconds: That took, waiting included.
        sent_bytes: Went to object stores.
        send_seconds: That took, reading what is there included.
        resumed_bytes: Of uploads that were interrupted, which did not have to be sent again.
    """

    hits: int = 0
    misses: int = 0
    fetched_bytes: int = 0
    fetch_seconds: float = 0.0
    sent_bytes: int = 0
    send_seconds: float = 0.0
    resumed_bytes: int = 0


def traffic_of(folder: Path) -> Traffic:
    """Return the sums of a cache; zeros where there are none, or none that can be read."""
    try:
        found = json.loads((folder / _SUMS).read_text())
        none = asdict(Traffic())
        return Traffic(**{name: type(zero)(found[name]) for name, zero in none.items()})
    except (OSError, ValueError, TypeError, KeyError):
        return Traffic()


def count(folder: Path, **more: float) -> None:
    """Add to the sums of a cache; a full disk loses figures and never a transfer.

    Args:
        folder: Of the cache; it exists.
        more: Names of ``Traffic``'s attributes and what is added to them.
    """
    with contextlib.suppress(OSError), open(folder / _LOCK, "w", opener=_private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = traffic_of(folder)
        after = replace(before, **{name: getattr(before, name) + value for name, value in more.items()})
        whole = folder / f"{_SUMS}.new"  # one writer at a time
        whole.write_text(json.dumps(asdict(after)))
        whole.replace(folder / _SUMS)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
