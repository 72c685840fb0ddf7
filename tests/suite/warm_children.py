"""Children of the tests' own process start from a fork server of its own; all others of the session start cold.

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
    """One fork server for each process of tests, which starts with its first test."""

    def __init__(self, *, is_cold: bool) -> None:
        self._is_cold = is_cold
        self._server: AbstractContextManager[None] | None = None

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        from easeml_core.sandbox.child_start import COLD, OWN, SWITCH, own_fork_server

        if self._server is None:
            self._server = own_fork_server()
            self._server.__enter__()
        os.environ[SWITCH] = COLD if self._is_cold or item.get_closest_marker("cold") else OWN

    def pytest_sessionfinish(self) -> None:
        self.pytest_process_ends()

    def pytest_process_ends(self) -> None:
        if self._server is not None:
            self._server.__exit__(None, None, None)
            self._server = None
