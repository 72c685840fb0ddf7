"""Files of a web server: no redirects, no other protocol, no wait without end, and a range where we were stopped.

The standard library alone, since nothing else lets us read a bounded number of bytes from a server that lies. It only
bounds each wait for a byte: a server that sends one from time to time is cut off by a clock of our own.
"""

from __future__ import annotations

import http.client
import math
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from easeml_core.remote.files import About

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

    from easeml_core.remote.files import Reader
    from easeml_core.remote.urls import Address

SILENCE_SECONDS = 30.0
"""How long a server may say nothing."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Where a server sends us on to, nobody has allowed."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None  # the status itself becomes the error


@dataclass(frozen=True, slots=True)
class _Deadline:
    """When an exchange with a server ends, in the middle of a line of its headers if need be.

    Attributes:
        at: On the monotonic clock; infinite for never.
        sockets: What it is cut at.
    """

    at: float
    sockets: list[socket.socket] = field(default_factory=list)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Cut the sockets if the block is not over by then."""
        self.require()
        if math.isinf(self.at):
            yield
            return
        timer = threading.Timer(self.at - time.monotonic(), self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def require(self) -> None:
        if time.monotonic() >= self.at:
            message = "it took too long"
            raise TimeoutError(message)

    def connection(self, kind: type[http.client.HTTPConnection]) -> type[http.client.HTTPConnection]:
        """Connections whose socket is noted as soon as there is one."""
        deadline = self

        class Noted(kind):  # type: ignore[valid-type, misc]
            def connect(self) -> None:
                super().connect()
                deadline.sockets.append(self.sock)
                deadline.require()  # the clock may have run out before there was anything to cut

        return Noted

    def _cut(self) -> None:
        for one in self.sockets:
            with suppress(OSError):  # closed by now
                socket.socket.shutdown(one, socket.SHUT_RDWR)  # an encrypted one's own would open what it reads


class _Http(urllib.request.HTTPHandler):
    """http until a deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._deadline.connection(http.client.HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    """https until a deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._deadline.connection(http.client.HTTPSConnection), req)


def _opener(deadline: _Deadline) -> urllib.request.OpenerDirector:
    """Only what is needed: no files, no FTP, no data URLs; the environment's proxies are used."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Http(deadline),
        _Https(deadline),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _NoRedirect(),
    ):
        opener.add_handler(handler)
    return opener


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
        may_resume = (
            start > 0 and about.version != "" and not about.version.startswith("W/")
        )  # a weak tag is too little
        headers = {"Range": f"bytes={start}-", "If-Range": about.version} if may_resume else {}
        with self._asked("GET", headers) as answer:
            yield _start(answer), _AsItComes(answer)

    @contextmanager
    def _asked(self, method: str, headers: dict[str, str]) -> Iterator[Any]:
        url = f"{self.address.protocol}://{self.address.host}/{quote(self.address.path)}"
        # Compressed, a few bytes could stand for any number, and the length would be another one.
        request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", **headers}, method=method)
        deadline = _Deadline(self.until)
        try:
            with deadline.kept(), _opener(deadline).open(request, timeout=SILENCE_SECONDS) as answer:
                if answer.headers.get("Content-Encoding", "identity") != "identity":
                    message = "the server sends it compressed, which was not asked for"
                    raise PermissionError(message)
                yield answer
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code, method) from None
        except urllib.error.URLError as error:
            message = f"the server cannot be reached ({type(error.reason).__name__})"
            raise OSError(message) from error
        except http.client.HTTPException as error:
            message = f"the server's answer is broken ({type(error).__name__})"
            raise OSError(message) from error


@dataclass(frozen=True, slots=True)
class _AsItComes:
    """An answer piece by piece: whoever reads looks at the clock in between, however slowly a server sends."""

    answer: http.client.HTTPResponse

    def read(self, size: int, /) -> bytes:
        """What has come, at least one byte; none at the end."""
        return self.answer.read1(size)


def _about(headers: Message) -> About:
    length, etag = headers.get("Content-Length", ""), headers.get("ETag", "")
    version = etag or headers.get("Last-Modified", "")
    return About(int(length) if re.fullmatch(r"\d{1,15}", length) else None, version[:200])


def _start(answer: Any) -> int:
    """From which byte on the answer is."""
    if answer.status == 200:
        return 0
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status != 206 or match is None:
        message = f"the server answers with status {answer.status}"
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
