"""Children of the tests' own process start from a fork server of its own; all others of the session start cold.

The server is a child of the process whose tests it serves: some of them count that process's children, or kill them.
Tests marked ``cold`` start theirs cold, and at night all tests do: the start is then what it is for a first user.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from property_sizes import NIGHTLY

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import pytest


def pytest_configure(config: pytest.Config) -> None:
    is_nightly = config.getoption("--hypothesis-profile", None) == NIGHTLY
    config.pluginmanager.register(WarmChildren(is_cold=is_nightly), "warm children")


class WarmChildren:
    """One fork server for each process of tests, from its first test to its end."""

    def __init__(self, *, is_cold: bool) -> None:
        self._is_cold = is_cold
        self._server: AbstractContextManager[None] | None = None
        self._owner = 0

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        from easeml_core.sandbox.child_start import COLD, OWN, SWITCH, own_fork_server

        if self._owner != os.getpid():
            self._owner, self._server = os.getpid(), own_fork_server()
            self._server.__enter__()
        os.environ[SWITCH] = COLD if self._is_cold or item.get_closest_marker("cold") else OWN

    def pytest_sessionfinish(self) -> None:
        if self._server is not None:
            self._server.__exit__(None, None, None)
