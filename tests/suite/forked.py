"""Tests in several processes that are forks of the one that has collected them: ``pytest --processes 4``.

A process of pytest-xdist imports every test file and every library for itself, 20 s of processor time each. A fork has
them. Each fork takes one group of tests after another, as the hook ``pytest_group_of`` divides them, and its reports go
to the first process, which prints them. Groups stand in queues (``pytest_queue_of``): forks begin with one each by
turns, so that tests that compute run beside those that wait for servers, and take of the others when theirs is empty.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import wait
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from multiprocessing.connection import Connection

LOOK_SECONDS = 1.0
"""How often the first process looks whether the others live; what they report is read at once."""

CRASHED = 70


class Hooks:
    """The hook of this plugin."""

    @pytest.hookspec(firstresult=True)
    def pytest_group_of(self, item: pytest.Item) -> str | None:
        """Return the name of the group whose tests one process runs in their order; by default the test's file."""

    @pytest.hookspec(firstresult=True)
    def pytest_queue_of(self, item: pytest.Item) -> str | None:
        """Return the name of the queue in which the group of this test stands, if it is the first one of it."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processes", type=int, default=1, help="how many forks run the tests (default: none)")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    option = session.config.option
    failed = session.testsfailed and not option.continue_on_collection_errors
    if option.processes < 2 or len(session.items) < 2 or failed or option.collectonly:
        return None
    First(session).run(option.processes)
    return True


def queues_of(session: pytest.Session) -> list[deque[list[int]]]:
    """The numbers of the tests of each group, by queue; groups and queues in the order of their first tests."""
    hook, groups, queues = session.config.hook, dict[str, list[int]](), defaultdict[str, deque[list[int]]](deque)
    for number, item in enumerate(session.items):
        name = hook.pytest_group_of(item=item) or item.nodeid.partition("::")[0]
        if name not in groups:
            groups[name] = []
            queues[hook.pytest_queue_of(item=item) or ""].append(groups[name])
        groups[name].append(number)
    return list(queues.values())


@dataclass
class Fork:
    """One of the processes that run tests, as the first one sees it."""

    number: int
    pid: int
    connection: Connection
    queue: int
    """With which it begins."""
    left: list[int] = field(default_factory=list)
    """The tests that it has taken and not reported as done."""

    def __post_init__(self) -> None:
        self.node = Node(self.number)


class Node:
    """The process of a report, as pytest prints those of pytest-xdist."""

    def __init__(self, number: int) -> None:
        self.gateway = SimpleNamespace(id=number)
        self._workerinfocache = f"[{number}]"


class First:
    """The process that has collected the tests, gives them out and reports."""

    def __init__(self, session: pytest.Session) -> None:
        self.session, self.config = session, session.config
        self.queues = queues_of(session)
        self.forks: list[Fork] = []
        self.numbers = iter(range(sys.maxsize))
        self.is_stopping = False

    def run(self, count: int) -> None:
        """Run all tests.

        Raises:
            Failed: If as many tests failed as the run allows.
            Interrupted: If a plugin stopped the run.
        """
        terminal: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.showfspath = False  # files alternate
        self.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # pytest has no public way
        try:
            for _ in range(min(count, sum(map(len, self.queues)))):
                self._fork()
            while self.forks:
                self._hear()
        finally:
            for fork in self.forks:  # it ends at its next word
                fork.connection.close()
                os.waitpid(fork.pid, 0)
        if self.session.shouldfail:
            raise self.session.Failed(self.session.shouldfail)
        if self.session.shouldstop:
            raise self.session.Interrupted(self.session.shouldstop)

    def _fork(self, queue: int | None = None) -> None:
        """Begin a process.

        Args:
            queue: With which it begins, of the process in whose place it comes; None for a further one.
        """
        ours, theirs = Pipe()
        number = next(self.numbers)
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of libraries, which handle a fork
            pid = os.fork()
        if not pid:
            for connection in (ours, *(fork.connection for fork in self.forks)):
                connection.close()
            _work_and_exit(self.session, theirs, number)
        theirs.close()
        self.forks.append(Fork(number, pid, ours, number % len(self.queues) if queue is None else queue))

    def _hear(self) -> None:
        ready: Iterable[Any] = wait([fork.connection for fork in self.forks], LOOK_SECONDS)
        for fork in [f for f in self.forks if f.connection in ready]:
            try:
                self._take(fork, *fork.connection.recv())
            except (EOFError, ConnectionError):
                self._bury(fork, os.waitpid(fork.pid, 0)[1])
        if not ready:
            for fork in tuple(self.forks):
                pid, status = os.waitpid(fork.pid, os.WNOHANG)
                if pid and not fork.connection.poll():
                    self._bury(fork, status)
        if (self.session.shouldfail or self.session.shouldstop) and not self.is_stopping:
            self.is_stopping = True
            self.queues.clear()
            for fork in self.forks:
                with suppress(ConnectionError):  # it has just ended
                    fork.connection.send(None)

    def _take(self, fork: Fork, word: str, *told: Any) -> None:
        hook = self.config.hook
        if word == "wants":
            if not self.is_stopping:
                queue = self._queue_of(fork)
                more = queue.popleft() if queue else []
                fork.left += more
                fork.connection.send(more)
        elif word == "report":
            report = hook.pytest_report_from_serializable(config=self.config, data=told[0])
            report.node = fork.node
            hook.pytest_runtest_logreport(report=report)
        elif word == "warning":
            message, category, file, line, when, nodeid, location = told
            warned = warnings.WarningMessage(f"{category}: {message}", UserWarning, file, line)
            named = {"warning_message": warned, "when": when, "nodeid": nodeid, "location": location}
            hook.pytest_warning_recorded.call_historic(kwargs=named)
        else:
            item = self.session.items[told[0]]
            fork.left.remove(told[0])
            hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _bury(self, fork: Fork, status: int) -> None:
        """Note the end of a fork; of tests that it has not run, the first has failed, and another one runs the rest."""
        self.forks.remove(fork)
        fork.connection.close()
        if fork.left and not self.is_stopping:
            item = self.session.items[fork.left[0]]
            how = f"signal {status & 127}" if status & 127 else f"status {status >> 8}"
            report = pytest.TestReport(
                nodeid=item.nodeid,
                location=item.location,
                keywords={},
                outcome="failed",
                longrepr=f"The process of this test ended with {how}",
                when="call",
            )
            report.node = fork.node  # type: ignore[attr-defined]  # as pytest-xdist does
            self.config.hook.pytest_runtest_logreport(report=report)
            self.config.hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
            if fork.left[1:]:
                self._queue_of(fork).appendleft(fork.left[1:])
        if not self.is_stopping and any(self.queues):
            self._fork(fork.queue)

    def _queue_of(self, fork: Fork) -> deque[list[int]]:
        """The queue that the fork begins with, or where that is empty the next one that is not."""
        first = self.queues[fork.queue]
        return next((queue for queue in (first, *self.queues) if queue), first)


class Sender:
    """Sends what the tests of a fork report."""

    def __init__(self, config: pytest.Config, connection: Connection) -> None:
        self._config, self._connection = config, connection

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._connection.send(("report", data))

    def pytest_warning_recorded(self, warning_message: Any, when: str, nodeid: str, location: Any) -> None:
        warned = warning_message
        told = str(warned.message), warned.category.__name__, warned.filename, warned.lineno
        self._connection.send(("warning", *told, when, nodeid, location))


class Silent:
    """In place of what prints a run; a test that hangs still writes where (pytest-timeout)."""

    def __init__(self, writer: Any) -> None:
        self._tw = writer


def _work_and_exit(session: pytest.Session, connection: Connection, number: int) -> None:
    """Be a fork, to the end of the process."""
    status = CRASHED
    try:
        _separate(session.config, number)
        session.config.pluginmanager.register(Sender(session.config, connection))
        try:
            _work(session, connection)
        finally:
            session._setupstate.teardown_exact(None)
        status = 0
    except (EOFError, ConnectionError, KeyboardInterrupt):  # the first process ends
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # what was registered for the end of the first process is not this one's to do


def _separate(config: pytest.Config, number: int) -> None:
    """Give the fork its own files, where it shares those of the first process."""
    manager = config.pluginmanager
    capture: Any = manager.get_plugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()
        capture.start_global_capturing()
        capture.suspend_global_capture()
    factory: Any = config._tmp_path_factory  # type: ignore[attr-defined]  # pytest has no public way
    factory._basetemp = factory.getbasetemp() / f"process-{number}"
    factory._basetemp.mkdir(mode=0o700)
    terminal: Any = manager.unregister(name="terminalreporter")
    if terminal is not None:
        manager.register(Silent(terminal._tw), "terminalreporter")


def _work(session: pytest.Session, connection: Connection) -> None:
    def more() -> list[int]:
        connection.send(("wants",))
        return connection.recv() or []  # nothing to do, or it is told to stop

    queue = deque(more())
    while queue:
        number = queue.popleft()
        if not queue:
            queue.extend(more())  # which fixtures a test's end tears down depends on the next test
        following = session.items[queue[0]] if queue else None
        item = session.items[number]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        connection.send(("done", number))
        if session.shouldfail or session.shouldstop or connection.poll():  # it is told nothing but to stop
            return
