"""What a process says on the loopback interface: ``GET /health`` to a supervisor, ``GET /metrics`` to Prometheus.

The word about its health follows from the lease of the referee or the beats of the scheduler, written at a fixed
interval whatever the process works on, so that it tells nothing about a request.
"""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from easeml_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOPBACK = "127.0.0.1"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of Prometheus' text format."""


@contextlib.contextmanager
def health_endpoint(
    port: int, is_alive: Callable[[], bool], metrics: Callable[[], bytes] | None = None
) -> Iterator[int]:
    """Answer 200 with ``ok`` while the process lives, else 503 with ``failed``, while the block runs.

    Args:
        port: On the loopback interface; 0 for any that is free.
        is_alive: Whether the process lives.
        metrics: Gives ``/metrics`` in Prometheus' text format; None where there is no such page.

    Yields:
        The port.

    Raises:
        OSError: The port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0
        server_version, sys_version = "easeml", ""

        def do_GET(self) -> None:
            """Answer ``/health`` and ``/metrics``; nothing else is there."""
            if self.path == "/metrics" and metrics is not None:
                self._send(200, METRICS_TYPE, metrics())
                return
            is_here = self.path == "/health"
            lives = is_here and is_alive()
            body = json.dumps({"status": "ok" if lives else "failed" if is_here else "not found"}).encode()
            self._send(200 if lives else 503 if is_here else 404, "application/json", body)

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: a supervisor asks every few seconds."""

    server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def health_while(
    port: int | None,
    is_alive: Callable[[], bool],
    metrics: Callable[[], bytes] | None = None,
    *,
    option: str = "health-port",
) -> Iterator[None]:
    """Answer a supervisor while the block runs; nothing without a port.

    Args:
        port: On the loopback interface, >= 1; None for none.
        is_alive: Whether the process lives.
        metrics: As of ``health_endpoint``.
        option: That gave the port, for the error.

    Raises:
        ConfigError: The port cannot be had.
    """
    with contextlib.ExitStack() as stack:
        if port is not None:
            try:
                stack.enter_context(health_endpoint(port, is_alive, metrics))
            except OSError as error:
                raise ConfigError(option, port, f"a port that is free ({error.strerror})") from error
        yield
