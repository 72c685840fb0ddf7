"""Files of a web server: no redirects, no other protocol, no wait without end, and a range where a download stopped.

httpx bounds each wait for a byte. A server that sends one from time to time is cut off by a clock: a ``Deadline`` shuts
the sockets of the exchange down, in the middle of a handshake or of a header line if need be.
"""

from __future__ import annotations

import math
import re
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx

from easeml_core.files.remote_file import About

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easeml_core.entities import JsonObject
    from easeml_core.files.remote_file import Reader
    from easeml_core.files.urls import Address

SILENCE_SECONDS = 30.0
"""How long a server may send nothing."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


@dataclass(frozen=True, slots=True)
class Deadline:
    """When an exchange with a server ends.

    Attributes:
        at: On the monotonic clock; infinite for never.
        sockets: Of the exchange: duplicates, since TLS takes the first object over.
    """

    at: float
    sockets: list[socket.socket] = field(default_factory=list)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Cut the sockets if the block is not over by then."""
        self.require()
        timer = None if math.isinf(self.at) else threading.Timer(self.at - time.monotonic(), self._cut)
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            for one in self.sockets:
                one.close()

    def require(self) -> None:
        """Raise TimeoutError if the deadline has passed."""
        if time.monotonic() >= self.at:
            message = "it took too long"
            raise TimeoutError(message)

    def trace(self, event: str, info: JsonObject) -> None:
        """Receive httpx's connection as soon as it exists (its request extension ``trace``)."""
        if event == "connection.connect_tcp.complete":
            self.sockets.append(info["return_value"].get_extra_info("socket").dup())
            self.require()  # the time may have run out before there was anything to cut

    def _cut(self) -> None:
        for one in self.sockets:
            with suppress(OSError):  # closed by now
                one.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class WebFile:
    """A file behind http or https.

    Attributes:
        address: Where it is.
        until: When the server is cut off, on the monotonic clock.
    """

    address: Address
    until: float = math.inf

    def about(self) -> About:
        """What the header says; nothing where the server does not answer to HEAD."""
        try:
            with self._asked("HEAD", {}) as answer:
                return _about(answer.headers)
        except NotImplementedError:
            return About(None, "")

    @contextmanager
    def opened(self, start: int, about: About) -> Iterator[tuple[int, Reader]]:
        """The file from ``start`` on if the server can do that and has the same version, else from its beginning."""
        is_exact = about.version != "" and not about.version.startswith("W/")  # a weak tag is too little
        headers = {"Range": f"bytes={start}-", "If-Range": about.version} if start > 0 and is_exact else {}
        with self._asked("GET", headers) as answer:
            yield _start(answer), _AsItComes(answer.iter_raw(), is_measured=about.size is not None)

    @contextmanager
    def _asked(self, method: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        url = f"{self.address.protocol}://{self.address.host}/{quote(self.address.path)}"
        # Compressed, a few bytes could stand for any number, and the length would be another one.
        headers = {"Accept-Encoding": "identity", "Connection": "close", **headers}
        deadline = Deadline(self.until)
        try:
            with (
                deadline.kept(),
                # The certificates of the system, and the environment's proxies.
                httpx.Client(verify=ssl.create_default_context(), timeout=SILENCE_SECONDS) as client,
                client.stream(
                    method, url, headers=headers, follow_redirects=False, extensions={"trace": deadline.trace}
                ) as answer,
            ):
                if not answer.is_success:
                    raise _refusal(answer.status_code, method)
                if answer.headers.get("Content-Encoding", "identity") != "identity":
                    message = "the server sends it compressed, which was not asked for"
                    raise PermissionError(message)
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL, ImportError) as error:  # the last: a proxy that needs a package
            deadline.require()
            is_broken = isinstance(error, httpx.ProtocolError | httpx.DecodingError)
            what = "the server's answer is broken" if is_broken else "the server cannot be reached"
            message = f"{what} ({type(error.__cause__ or error).__name__})"
            raise OSError(message) from error


@dataclass(slots=True)
class _AsItComes:
    """An answer piece by piece: the reader looks at the clock in between, however slowly a server sends.

    Attributes:
        pieces: As they come.
        is_measured: Whether the file's size is known, so that the reader sees an early end by itself.
    """

    pieces: Iterator[bytes]
    is_measured: bool
    _rest: bytes = b""

    def read(self, size: int, /) -> bytes:
        """What has come, at least one byte; none at the end."""
        try:
            piece = self._rest or next(self.pieces, b"")
        except httpx.RemoteProtocolError:
            if not self.is_measured:
                raise
            piece = b""
        self._rest = piece[size:]
        return piece[:size]


def _about(headers: httpx.Headers) -> About:
    length, etag = headers.get("Content-Length", ""), headers.get("ETag", "")
    version = etag or headers.get("Last-Modified", "")
    return About(int(length) if re.fullmatch(r"\d{1,15}", length) else None, version[:200])


def _start(answer: httpx.Response) -> int:
    """From which byte on the answer is."""
    if answer.status_code == 200:
        return 0
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status_code != 206 or match is None:
        message = f"the server answers with status {answer.status_code}"
        raise PermissionError(message)
    return int(match[1])


def _refusal(status: int, method: str) -> OSError | NotImplementedError:
    if status in (405, 501) and method == "HEAD":
        return NotImplementedError()
    if 300 <= status < 400:
        return PermissionError(f"the server sends us elsewhere (status {status}), which is not followed")
    if status in (404, 410):
        return FileNotFoundError(f"the server has no such file (status {status})")
    kind = PermissionError if 400 <= status < 500 and status not in (408, 416, 425, 429) else OSError
    return kind(f"the server answers with status {status}")
