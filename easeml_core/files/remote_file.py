"""The interface of a remote file, and progress reports of a download.

Failures of a remote file raise OSError; the caller says what they mean for its source.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from easeml_core.files.urls import Address

    OnProgress = Callable[["Progress"], object]
    """Hears once a second how far it is, also while another process downloads the same; may raise to end it."""

PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError)
"""What a second attempt does not change."""


class About(NamedTuple):
    """What a server says of a file.

    Attributes:
        size: Bytes; None where it does not say.
        version: Changes with the content; empty where nothing tells, and then a download cannot be resumed.
    """

    size: int | None
    version: str


class Reader(Protocol):
    """The rest of a file."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes, none at the end."""


class RemoteFile(Protocol):
    """One file elsewhere."""

    @property
    def address(self) -> Address:
        """Where it is, for messages: without any secret."""

    def about(self) -> About:
        """Its size and version now."""

    def opened(self, start: int, about: About) -> AbstractContextManager[tuple[int, Reader]]:
        """The file from a byte on, and from which: 0 where the server does not resume or has another version."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is.

    Attributes:
        what: What is downloaded.
        done: Bytes that are there.
        total: Bytes in all; None where it is not known.
        seconds: Since it began.
    """

    what: str
    done: int
    total: int | None
    seconds: float

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total / 1e6:,.1f}"
        return f"staging {self.what}: {self.done / 1e6:,.1f}{of} MB after {self.seconds:,.0f} s"


@dataclass(slots=True)
class Teller:
    """Passes news on once a second, and counts what came over the network.

    Attributes:
        what: What is downloaded.
        on_progress: Receives the reports; None for none.
        total: Its bytes, once they are known.
        fetched: Bytes that came.
        began: When, on the monotonic clock.
    """

    what: str
    on_progress: OnProgress | None = None
    total: int | None = None
    fetched: int = 0
    began: float = field(default_factory=time.monotonic)
    _reported: float = -math.inf

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    def tell(self, done: int, *, at_once: bool = False) -> None:
        """Say how far it is, if it is time."""
        now = time.monotonic()
        if self.on_progress is not None and (at_once or now - self._reported >= 1):
            self._reported = now
            self.on_progress(Progress(self.what, done, self.total, self.seconds))
