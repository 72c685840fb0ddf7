"""Files of a web server: no redirects, no other protocol, no wait without end, and a range where we were stopped.

The standard library alone, since nothing else lets us read a bounded number of bytes from a server that lies.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
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


def _opener() -> urllib.request.OpenerDirector:
    """Only what is needed: no files, no FTP, no data URLs; the environment's proxies are used."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _NoRedirect(),
    ):
        opener.add_handler(handler)
    return opener


@dataclass(frozen=True, slots=True)
class WebFile:
    """A file behind http or https."""

    address: Address

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
        try:
            with _opener().open(request, timeout=SILENCE_SECONDS) as answer:
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
