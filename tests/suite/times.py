"""Where the time of a run goes: a table per folder at its end, and a limit for a test of the fast set.

The limit is one of processor time, that of the test's process and of the children it waited for, because the clock on
the wall runs on while other work has the processors; a test that exceeds it is held against a loop that is timed then.
Beside whole stacks of Airflow even processor time varies too much to fail a run (`--slow-tests list`).
Fixtures of a module or a session are not counted: whichever test comes first would pay for them. The same goes for a
test that is the first to import a large library. What a database server computes is in no process of ours, so that it
is seen in the table (wall time) but not judged.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from property_sizes import NIGHTLY

if TYPE_CHECKING:
    from collections.abc import Generator

LIMIT_SECONDS = 2.0
MARGIN = 2.0
"""How many times the limit fails a run: on a full machine processor time varies by that much (1 to 3.3 s)."""
LISTED = Path(__file__).parent / "over_the_limit.txt"
"""The tests that may take longer: ``file::function  reason`` on each line."""

MANY_MODULES = 40
"""A test that imports as many for the first time in its process is not judged."""

LOOP_SECONDS = 0.05
"""Processor time of ``_loop`` where the limit was chosen; on a slower or fuller machine the limit grows with it."""

APART = {"journey", "nightly"}
PROCESSOR, OVER = "processor seconds", "over the limit"
SLOWEST = 10


def processor_seconds() -> float:
    """Of this process and of the children it has waited for, since the start."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def slowness() -> float:
    """How many times longer this machine computes now than where the limit was chosen; at least 1."""
    return max(1.0, max(_loop() for _ in range(7)) / LOOP_SECONDS)


def _loop() -> float:
    begun, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number * number % 7
    return time.process_time() - begun


def listed(path: Path) -> dict[str, str]:
    """The tests that may take longer, with the reason of each.

    Raises:
        ValueError: If a line gives no reason.
    """
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            test, _, reason = line.partition(" ")
            if not reason.strip():
                raise ValueError(f"{path.name}: {test!r} is listed without a reason; write it behind the name")
            found[test] = reason.strip()
    return found


@dataclass
class Spent:
    """What one test has used so far, fixtures that others share apart."""

    processor: float = 0.0
    shared: float = 0.0
    modules: int = 0


@dataclass
class Folder:
    """What the tests of one folder took."""

    tests: int = 0
    wall: float = 0.0
    processor: float = 0.0


def folder_of(nodeid: str) -> str:
    """The folder of a test's file, at most three deep."""
    parts = nodeid.partition("::")[0].split("/")[:-1]
    return "/".join(parts[:3]) or "."


class Times:
    """Measures tests in the process that runs them, and adds up in the one that reports."""

    def __init__(self, limit: float, allowed: dict[str, str], *, fails: bool) -> None:
        self.limit, self.allowed, self.fails = limit, allowed, fails
        self.spent: dict[str, Spent] = defaultdict(Spent)
        self.folders: dict[str, Folder] = defaultdict(Folder)
        self.tests: dict[str, Folder] = defaultdict(Folder)
        self.over: dict[str, float] = {}
        self._running: Spent | None = None
        self._shared_depth = 0

    # In the process that runs the tests.

    def _measure(self, item: pytest.Item) -> Generator[None, Any, Any]:
        spent, before, modules = self.spent[item.nodeid], processor_seconds(), len(sys.modules)
        self._running = spent
        try:
            return (yield)
        finally:
            self._running = None
            spent.processor += processor_seconds() - before
            spent.modules += len(sys.modules) - modules

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        return (yield from self._measure(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        return (yield from self._measure(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        spent = self._running
        if spent is None or fixturedef.scope == "function" or self._shared_depth:
            return (yield)
        before, modules = processor_seconds(), len(sys.modules)
        self._shared_depth += 1
        try:
            return (yield)
        finally:
            self._shared_depth -= 1
            spent.shared += processor_seconds() - before
            spent.modules -= len(sys.modules) - modules

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
        report = yield
        if call.when == "call":
            spent = self.spent.pop(item.nodeid)
            own = spent.processor - spent.shared
            report.user_properties.append((PROCESSOR, spent.processor))
            if (
                report.passed
                and own > self.limit
                and self._judges(item, spent)
                and own > MARGIN * self.limit * slowness()
            ):
                report.user_properties.append((OVER, own))
                if self.fails:
                    report.outcome = "failed"
                    report.longrepr = f"It passed, but took {own:.1f} s of processor time. {self._advice}"
        return report

    @property
    def _advice(self) -> str:
        return (
            f"A test of the fast set may take {self.limit:g} s, shared fixtures apart. Make it faster, mark it nightly "
            f"or journey, or list it with the reason in tests/suite/{LISTED.name}"
        )

    def _judges(self, item: pytest.Item, spent: Spent) -> bool:
        name = item.nodeid.partition("[")[0]
        apart = any(item.get_closest_marker(mark) for mark in APART)
        return not apart and name not in self.allowed and spent.modules < MANY_MODULES

    # In the process that reports.

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = self.folders[folder_of(report.nodeid)], self.tests[report.nodeid]
        told: dict[str, Any] = dict(report.user_properties) if report.when == "call" else {}
        used = float(told.get(PROCESSOR, 0.0))
        for one in found:
            one.tests += report.when == "call"
            one.wall += report.duration
            one.processor += used
        if OVER in told:
            self.over[report.nodeid] = told[OVER]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if sum(f.tests for f in self.folders.values()) < 2:
            return
        write = terminalreporter.write_line
        terminalreporter.section("time per folder")
        write(f"{'folder':<40}{'tests':>7}{'wall, s':>10}{'processor, s':>14}")
        total = Folder()
        for name, one in sorted(self.folders.items()):
            write(f"{name:<40}{one.tests:>7}{one.wall:>10.1f}{one.processor:>14.1f}")
            total.tests, total.wall = total.tests + one.tests, total.wall + one.wall
            total.processor += one.processor
        write(f"{'in all':<40}{total.tests:>7}{total.wall:>10.1f}{total.processor:>14.1f}")
        terminalreporter.section(f"the {SLOWEST} slowest tests, fixtures included")
        for name, one in sorted(self.tests.items(), key=lambda pair: -pair[1].wall)[:SLOWEST]:
            write(f"{one.wall:>8.1f} s {one.processor:>8.1f} s of processor time  {name}")
        if self.over:
            terminalreporter.section("tests over the limit")
            write(self._advice)
            for name, own in self.over.items():
                write(f"{own:>8.1f} s of processor time  {name}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--test-seconds",
        type=float,
        default=LIMIT_SECONDS,
        help="processor time a test of the fast set may take (default: %(default)s; 0: any)",
    )
    parser.addoption(
        "--slow-tests",
        choices=["fail", "list"],
        default="fail",
        help="what becomes of a test that takes longer: it fails, or is listed at the end (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    traced = bool(getattr(config.option, "cov_source", None))  # tracing makes everything slower
    at_night = config.getoption("--hypothesis-profile", None) == NIGHTLY  # all examples, and children that start cold
    limit = float("inf") if traced or at_night else config.getoption("--test-seconds") or float("inf")
    fails = config.getoption("--slow-tests") == "fail"
    config.pluginmanager.register(Times(limit, listed(LISTED), fails=fails), "times of tests")
