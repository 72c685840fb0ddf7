"""Which tests run which lines of the product, and how long they take: measured once for a tree, with coverage.

Lines that run while a module is imported belong to no test; what they bind is looked up by name where it is used.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from measuring.mutations import bound_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence, Set

    from measuring.mutations import Mutation

DATA, OUTCOMES, COMPLETE = "coverage", "outcomes.jsonl", "complete"
CONFIG = """\
[run]
source_pkgs = easeml_core, easeml_airflow
concurrency = thread
relative_files = true
"""
PLUGIN = """\
import json, os

def pytest_runtest_logreport(report):
    if not hasattr(report, "node") and os.environ.get("PYTEST_XDIST_WORKER"):
        return
    with open(os.environ["MUTANTS_OUTCOMES"], "a") as file:
        file.write(json.dumps([report.nodeid, report.when, report.outcome, report.duration]) + "\\n")
"""
"""Of pytest: outcome and time of every phase of every test, written by the process that reports."""


def environment_of(tree: Path) -> dict[str, str]:
    """Return the environment in which the tests of a tree import its packages."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tree), str(tree / "plugins")]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@dataclass(frozen=True)
class Chosen:
    """Tests for a change.

    Attributes:
        nearest: Those to run first, nearest first.
        others: The rest, within the budget.
        left_out: How many more run the changed lines.
    """

    nearest: list[str]
    others: list[str]
    left_out: int


class TestMap:
    """The map of a tree.

    Args:
        tree: The source tree; it need not be the one that was measured, but of the same commit.
        folder: Where ``measure`` has written the map.

    Raises:
        LookupError: The map names no file of the tree.
    """

    __test__ = False

    def __init__(self, tree: Path, folder: Path) -> None:
        from coverage import CoverageData

        self._tree = tree
        self.seconds, failed = _outcomes(folder / OUTCOMES)
        self.failed = sorted(failed)
        self._data = CoverageData(str(folder / DATA))
        self._data.read()
        # A file that is there no more was written by a test; absolute ones lie elsewhere.
        files = self._data.measured_files()
        self._lines = {file for file in files if not Path(file).is_absolute() and (tree / file).exists()}
        if not self._lines:
            message = f"the map in {folder} names no file of {tree}; remove it, so that it is measured anew"
            raise LookupError(message)

    @classmethod
    def measure(cls, tree: Path, folder: Path, tests: Sequence[str], *, processes: int, marks: str) -> TestMap:
        """Run the tests with coverage, and write the map.

        Args:
            tree: The source tree.
            folder: Where the map is written.
            tests: Files and folders of tests; empty for all.
            processes: How many run the tests.
            marks: Which of them, as of pytest's ``-m``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for old in [*folder.glob(f"{DATA}*"), folder / OUTCOMES, folder / COMPLETE]:
            old.unlink(missing_ok=True)
        (folder / "tracing.ini").write_text(CONFIG, encoding="utf-8")
        (folder / "outcomes_plugin.py").write_text(PLUGIN, encoding="utf-8")
        environment = environment_of(tree)
        environment["PYTHONPATH"] += f"{os.pathsep}{folder}"
        environment |= {"COVERAGE_FILE": str(folder / DATA), "MUTANTS_OUTCOMES": str(folder / OUTCOMES)}
        command = [sys.executable, "-m", "pytest", "-q", "-m", marks, "-p", "outcomes_plugin", "-p", "no:cacheprovider"]
        command += ["--cov", f"--cov-config={folder / 'tracing.ini'}", "--cov-context=test", "--cov-report="]
        command += ["--numprocesses", str(processes), "--dist", "loadfile", "--no-loadscope-reorder", *tests]
        with (folder / "pytest.log").open("w", encoding="utf-8") as log:
            done = subprocess.run(command, cwd=tree, env=environment, check=False, stdout=log, stderr=log)
        if done.returncode not in (0, 1):
            message = f"pytest ended with {done.returncode}: see {folder / 'pytest.log'}"
            raise RuntimeError(message)
        (folder / COMPLETE).touch()
        return cls(tree, folder)

    @staticmethod
    def is_complete(folder: Path) -> bool:
        """Return whether ``measure`` has written the map to its end."""
        return (folder / COMPLETE).exists()

    def tests_of(self, mutation: Mutation) -> set[str]:
        """Return the tests that run the changed statement, or use what it binds at the top level."""
        lines = self._tests_by_line(mutation.path)
        if mutation.names:
            return self._users(mutation.names)
        found = set().union(*(lines.get(n, ()) for n in range(mutation.first_line, mutation.last_line + 1)))
        return found or (set().union(*lines.values()) if lines else set())

    def choose(self, mutation: Mutation, *, first_seconds: float, budget_seconds: float) -> Chosen:
        """Choose what to run for a change: by the nearness of a test's file to the changed one, then by time.

        Args:
            mutation: The change.
            first_seconds: What the nearest tests may take.
            budget_seconds: What all chosen tests may take.
        """
        near = _words(mutation.path)
        ordered = sorted(
            self.tests_of(mutation) - set(self.failed),
            key=lambda test: (-len(near & _words(test.partition("::")[0])), self.seconds.get(test, 0.0), test),
        )
        nearest, others, spent = list[str](), list[str](), 0.0
        for test in ordered:
            spent += self.seconds.get(test, 0.0)
            if not nearest or spent <= first_seconds:
                nearest.append(test)
            elif spent <= budget_seconds:
                others.append(test)
        return Chosen(nearest, others, len(ordered) - len(nearest) - len(others))

    def _users(self, names: Iterable[str]) -> set[str]:
        """The tests that run a line on which one of these names stands, or a name that is made of it at a top level."""
        tests, known, new = set[str](), set[str](), set(names)
        while new:
            known |= new
            wanted, new = re.compile(rf"\b({'|'.join(map(re.escape, new))})\b"), set()
            for path in self._lines:
                text = (self._tree / path).read_text(encoding="utf-8")
                if wanted.search(text):
                    lines = self._tests_by_line(path)
                    numbers = {n for n, line in enumerate(text.splitlines(), 1) if wanted.search(line)}
                    tests.update(*(lines.get(n, ()) for n in numbers))
                    new.update(_bound_on(text, numbers))
            new -= known
        return tests

    @cache  # noqa: B019 - one map lives as long as the process
    def _tests_by_line(self, path: str) -> dict[int, set[str]]:
        found: dict[int, set[str]] = defaultdict(set)
        if path in self._lines:
            for line, contexts in self._data.contexts_by_lineno(path).items():
                found[line] = {context.rpartition("|")[0] for context in contexts if context}
        return dict(found)


def _bound_on(text: str, lines: Set[int]) -> Iterator[str]:
    """The names that statements at the top level bind which reach over one of these lines."""
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            assert statement.end_lineno is not None
            if not lines.isdisjoint(range(statement.lineno, statement.end_lineno + 1)):
                yield from bound_names(statement)


def _words(path: str) -> set[str]:
    return set(re.split(r"[/_.]", path.removesuffix(".py"))) - {"easeml", "core", "tests", "test", ""}


def _outcomes(path: Path) -> tuple[dict[str, float], set[str]]:
    """Seconds of every test, and the tests that did not pass."""
    seconds: dict[str, float] = defaultdict(float)
    failed = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        test, _, outcome, duration = json.loads(line)
        seconds[test] += duration
        if outcome == "failed":
            failed.add(test)
    return dict(seconds), failed
