"""How a training job tells how far it is: JSON lines on a channel that no library can print into."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.entities import JsonObject

LINE_LIMIT = 10_000
"""Longer lines are dropped: progress is small, and a reader must not be filled by a child that went wild."""


class Report(Protocol):
    """What trainers call."""

    def __call__(self, progress: float, note: str, quality: float | None = None, **more: float | None) -> None:
        """Tell ``progress`` in [0, 1], a short note, and the quality so far if it is known.

        ``more`` is what only some know: ``step`` of ``of`` steps and its ``loss``, ``seconds_left``, the step
        of a ``checkpoint`` that was just written, whether one was ``resumed``, ``peak_mb`` of memory. What is not
        finite is left out.
        """


def silent(progress: float, note: str, quality: float | None = None, **more: float | None) -> None:
    """Discard a report."""


def take_stdout() -> int:
    """Return the original standard output as a new descriptor, and send every later print to standard error.

    Libraries print; on the same stream their output would come between our lines, or inside an array.
    """
    sys.stdout.flush()
    channel = os.dup(1)
    os.dup2(2, 1)
    return channel


def report_to(channel: int) -> Report:
    """A report that writes one JSON line per call to the descriptor."""

    def report(progress: float, note: str, quality: float | None = None, **more: float | None) -> None:
        fields: dict[str, object] = {"progress": round(progress, 4), "note": note}
        for name, value in {"quality": quality, **more}.items():
            if value is not None and math.isfinite(value):
                fields[name] = value if isinstance(value, int) else round(value, 6)
        os.write(channel, json.dumps(fields).encode() + b"\n")

    return report


STARTED = "started"
"""Field of the line by which a child says that it has imported its libraries: from here on it costs its own time."""


def tell_started(channel: int) -> None:
    """Write that line to the descriptor."""
    os.write(channel, json.dumps({STARTED: True}).encode() + b"\n")


class LineReader:
    r"""Turns chunks of bytes into the JSON objects that stand on whole lines; anything else is dropped.

    Example:
        >>> seen = []
        >>> reader = LineReader(seen.append)
        >>> reader(b'{"progress": 0.5, "no'); reader(b'te": "epoch 1 of 2"}' + b"\n")
        >>> seen
        [{'progress': 0.5, 'note': 'epoch 1 of 2'}]
    """

    def __init__(self, consume: Callable[[JsonObject], None]) -> None:
        self._consume = consume
        self._rest = b""

    def __call__(self, chunk: bytes) -> None:
        """Take the next chunk."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-LINE_LIMIT:]
        for line in lines:
            if len(line) < LINE_LIMIT:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            return  # not ours: the end of a line that was cut, or a print by foreign code
        if isinstance(fields, dict):
            self._consume(fields)
