"""A web server on this machine that may resume, or lie, or break off, for tests of what reads from one."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Web:
    """A server's files, and how it behaves.

    Attributes:
        host: Name and port.
        files: Path to content.
        asked: Method, path and range of every request.
        break_after: Bytes after which an answer breaks off, once each.
        ranges: Whether it resumes.
        etags: Whether it names versions.
        more: Headers that every answer has besides.
        moved: Path to where it sends on to.
        hold_after: Bytes after which an answer stops until ``release`` is set, once each; ``held`` says that one did.
    """

    host: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    break_after: list[int] = field(default_factory=list)
    ranges: bool = True
    etags: bool = True
    says_length: bool = True
    heads: bool = True
    more: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    hold_after: list[int] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def ranges_asked(self) -> list[str | None]:
        return [asked for method, _, asked in self.asked if method == "GET"]


class _Handler(BaseHTTPRequestHandler):
    web: Web

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer() if self.web.heads else self.send_error(501)

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.web.asked.append((self.command, self.path, self.headers.get("Range")))
        content = self.web.files.get(self.path)
        if self.path in self.web.moved:
            self.send_response(302)
            self.send_header("Location", self.web.moved[self.path])
            self.end_headers()
        elif content is None:
            self.send_error(404)
        else:
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            resumes = self.web.ranges and self.headers.get("If-Range") == tag
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) if resumes else 0
            self.begin(content, start, tag)
            if self.command == "GET":
                self.send(content[start:])

    def begin(self, content: bytes, start: int, tag: str) -> None:
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        said = {"ETag": tag} if self.web.etags else {}
        said |= {"Content-Length": str(len(content) - start)} if self.web.says_length else {}
        for name, value in (said | self.web.more).items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, rest: bytes) -> None:
        if self.web.break_after:
            rest = rest[: self.web.break_after.pop(0)]
            self.close_connection = True
        if self.web.hold_after:
            first = self.web.hold_after.pop(0)
            self.wfile.write(rest[:first])
            self.web.held.set()
            self.web.release.wait(60)
            rest, self.close_connection = b"", True
        self.wfile.write(rest)


@contextlib.contextmanager
def serving() -> Iterator[Web]:
    """A running server without files."""
    web = Web("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": web}))
    web.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield web
    server.shutdown()
    server.server_close()
    thread.join()
