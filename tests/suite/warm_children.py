"""Children of the tests' own process start from a fork server of its own; all others of the session start cold.

The forks of a run share one server, which imports the libraries while the first process collects the tests. Tests
marked ``cold`` start their children cold, and at night all tests do: the start is then what it is for a first user.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from property_sizes import NIGHTLY

if TYPE_CHECKING:
    import pytest

LOADS = (
    "easeml_core.models.formats", "easeml_core.models.skops_format", "easeml_core.sandbox.array_pipe",
    "easeml_core.data.parts", "sklearn.ensemble", "sklearn.linear_model", "torch",
)  # fmt: skip
"""What the server imports at its start: most children need it."""


def pytest_configure(config: pytest.Config) -> None:
    is_nightly = config.getoption("--hypothesis-profile", None) == NIGHTLY
    config.pluginmanager.register(WarmChildren(is_cold=is_nightly), "warm children")


class WarmChildren:
    """The fork server of a run."""

    def __init__(self, *, is_cold: bool) -> None:
        self._is_cold = is_cold
        self._owner = os.getpid()

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        from easeml_core.sandbox.child_start import own_fork_server

        self._server = own_fork_server()
        self._server.__enter__()
        if session.config.option.processes > 1 and not self._is_cold:
            _load()

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        from easeml_core.sandbox.child_start import COLD, OWN, SWITCH

        if self._owner != os.getpid():
            self._owner = os.getpid()
            _share()
        os.environ[SWITCH] = COLD if self._is_cold or item.get_closest_marker("cold") else OWN

    def pytest_sessionfinish(self) -> None:
        self._server.__exit__(None, None, None)


def _load() -> None:
    """Start the server and let it import, without a job."""
    from easeml_core.sandbox import child_start
    from easeml_core.sandbox.fork_server import Request

    server = child_start._own
    assert server is not None
    server._begin()
    assert server._control is not None
    line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = Request("easeml_core.errors", (), "/", {}, LOADS)
    with line, theirs, open(os.devnull, "r+b") as nothing:
        files = [nothing.fileno()] * 3
        socket.send_fds(server._control, [request.to_bytes()], [*files, theirs.fileno()])
    # The client has gone when the imports are done: nothing is forked.


def _share() -> None:
    """Let this fork use the server of the first process, whose child the server's process is."""
    from easeml_core.sandbox import child_start

    server: Any = child_start._own
    if server._process is not None:
        server.owner = os.getpid()
        server._process = _Shared(server._process.pid)
    else:
        child_start._own = child_start._OwnServer()


class _Shared:
    """The server's process as a fork sees it."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")

    def poll(self) -> int | None:
        """Return None while it lives."""
        try:
            state = self._stat.read_text().rpartition(")")[2].split()[0]
        except OSError:
            return 0
        return 0 if state == "Z" else None

    def wait(self) -> int:
        """Return at once: the first process waits for it."""
        return 0
