"""Children that start warm: copies of a process that has loaded the numerical libraries, in place of a cold start.

A child of ours spends 20 ms on what a test asks of it and a second on importing scikit-learn and PyTorch. Where the
start is not what is tested, ``WarmPopen`` replaces ``Popen`` in the module that runs children. Everything else is as
in a cold one: the same arguments, environment, folder, pipes and session, a child of this process that dies with it.
"""

from __future__ import annotations

import ctypes
import inspect
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from property_sizes import NIGHTLY

if TYPE_CHECKING:
    import pytest

_PR_SET_CHILD_SUBREAPER = 36
_COLD = subprocess.Popen
_EXECUTE = inspect.signature(_COLD._execute_child)  # type: ignore[attr-defined]  # private

LOADED = (
    "numpy", "scipy.stats", "sklearn.ensemble", "sklearn.neural_network", "sklearn.naive_bayes", "sklearn.svm",
    "sklearn.discriminant_analysis", "skops.io", "torch._dynamo", "easeml_core.models.formats",
    "easeml_core.data.parts",
)  # fmt: skip


class WarmStart:
    """The process that forks, begun with the first child that wants it; ``loaded`` names the modules it imports."""

    def __init__(self, loaded: tuple[str, ...] = LOADED) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.owner, self.is_wanted, self._loaded = os.getpid(), True, loaded

    def serves(self, command: list[str]) -> bool:
        """Whether the child may be a copy: of a module, started by the tests' own process."""
        return self.is_wanted and command[:3] == [sys.executable, "-P", "-m"] and os.getpid() == self.owner

    def _begin(self) -> socket.socket:
        from easeml_core.sandbox.process import clean_environment

        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-u", str(Path(__file__).with_name("warm_start.py")), str(theirs.fileno())]
        command.append(json.dumps(self._loaded).ljust(1000))  # room for the command line of a child
        # PyArrow's memory would have a thread of its own.
        env = clean_environment(1) | {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
        self._process = _COLD(command, pass_fds=[theirs.fileno()], env=env, start_new_session=True)
        theirs.close()
        threads = int.from_bytes(ours.recv(4), "big")
        assert threads == 1, f"a process of {threads} threads cannot be copied"
        return ours

    def start(self, request: dict[str, Any], files: tuple[int, int, int]) -> int:
        """Let it fork; the new process, a child of this one."""
        with self._lock:
            try:
                return self._forked(request, files)
            except ConnectionError:  # a test has killed all children of this process
                self._channel = None
                return self._forked(request, files)

    def _forked(self, request: dict[str, Any], files: tuple[int, int, int]) -> int:
        if self._channel is None:
            self._channel = self._begin()
        channel = self._channel
        message = json.dumps(request | {"parent": os.getpid()}).encode()
        kernel = ctypes.CDLL(None)
        kernel.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            channel.sendall(len(message).to_bytes(4, "big"))
            socket.send_fds(channel, [message], files)
            if not (number := channel.recv(8)):
                raise ConnectionResetError
            return int.from_bytes(number, "big")
        finally:
            kernel.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def end(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.wait(30)


def popen_of(warm: WarmStart) -> type[subprocess.Popen[bytes]]:
    """A ``Popen`` that starts ``python -P -m`` modules of ours warm, and everything else as ever."""

    class WarmPopen(_COLD[bytes]):
        def _execute_child(self, *given: Any, **named: Any) -> None:
            asked = _EXECUTE.bind(self, *given, **named).arguments
            command, env = list(asked["args"]), asked["env"]
            if not warm.serves(command):
                super()._execute_child(*given, **named)  # type: ignore[misc]  # private
                return
            nothing = os.open(os.devnull, os.O_RDWR)
            ends = (asked["p2cread"], asked["c2pwrite"], asked["errwrite"])
            stdin, stdout, stderr = (nothing if end == -1 else end for end in ends)
            request = {"command": command[3:], "cwd": str(asked["cwd"] or os.getcwd()), "env": env}
            self.pid = warm.start(request, (stdin, stdout, stderr))
            self._child_created = True
            os.close(nothing)
            for end in set(ends) - {-1}:
                os.close(end)

    return WarmPopen


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hypothesis-profile", None) != NIGHTLY:
        config.pluginmanager.register(Warm(), "warm starts")


class Warm:
    """Lets the children of each test start warm, but for those marked ``cold``; at night all start cold."""

    def __init__(self) -> None:
        self.start: WarmStart | None = None

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        from easeml_core.sandbox import process

        if self.start is None:
            self.start = WarmStart()
            vars(process)["subprocess"] = SimpleNamespace(**vars(subprocess) | {"Popen": popen_of(self.start)})
        self.start.is_wanted = item.get_closest_marker("cold") is None

    def pytest_unconfigure(self) -> None:
        if self.start is not None:
            self.start.end()
