"""What a process says on the loopback interface: ``GET /health`` to a supervisor, ``GET /metrics`` to Prometheus.

Any process of the host may ask, so each is a separate port that an operator opens. The word about its health follows
from the lease of the referee or the beats of the scheduler, written at a fixed interval whatever the process works on,
so that it tells nothing about a request.
"""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOPBACK = "127.0.0.1"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of Prometheus' text format."""

_NAMES = (LOOPBACK, "localhost")
"""Hosts that a request may be addressed to: a page of another name that leads here gets nothing."""


class Said(NamedTuple):
    """An answer: status, type of its content, and content."""

    status: int
    kind: str
    body: bytes


def health_of(is_alive: Callable[[], bool]) -> dict[str, Callable[[], Said]]:
    """Return the page ``/health``: 200 with ``ok`` while the process lives, else 503 with ``failed``."""
    return {"/health": lambda: _word(200, "ok") if is_alive() else _word(503, "failed")}


def metrics_of(text: Callable[[], bytes]) -> dict[str, Callable[[], Said]]:
    """Return the page ``/metrics``, in Prometheus' text format."""
    return {"/metrics": lambda: Said(200, METRICS_TYPE, text())}


def _word(status: int, word: str) -> Said:
    return Said(status, "application/json", json.dumps({"status": word}).encode())


@contextlib.contextmanager
def loopback_endpoint(port: int, pages: dict[str, Callable[[], Said]]) -> Iterator[int]:
    """Answer requests for these pages while the block runs.

    Args:
        port: On the loopback interface; 0 for any that is free.
        pages: Path to what answers it.

    Yields:
        The port.

    Raises:
        OSError: The port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0
        server_version, sys_version = "easeml", ""

        def do_GET(self) -> None:
            """Answer a page; nothing else is there."""
            page = pages.get(self.path) if self.headers.get("Host", "").partition(":")[0] in _NAMES else None
            said = _word(404, "not found") if page is None else page()
            self.send_response(said.status)
            self.send_header("Content-Type", said.kind)
            self.send_header("Content-Length", str(len(said.body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(said.body)

        def log_message(self, *_: object) -> None:
            """Log nothing: a supervisor asks every few seconds."""

    server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="loopback", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def answering(option: str, port: int | None, pages: dict[str, Callable[[], Said]]) -> Iterator[None]:
    """Answer these pages while the block runs; nothing without a port.

    Args:
        option: That gave the port, for the error.
        port: On the loopback interface, >= 1; None for none.
        pages: As of ``loopback_endpoint``.

    Raises:
        ConfigError: The port cannot be had.
    """
    with contextlib.ExitStack() as stack:
        if port is not None:
            try:
                stack.enter_context(loopback_endpoint(port, pages))
            except OSError as error:
                raise ConfigError(option, port, f"a port that is free ({error.strerror})") from error
        yield
