"""Tests in forks: every test runs once, groups stay together, and no end of a fork loses or hides a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PLUGIN = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
pytest_plugins = ["forked"]

import pytest

@pytest.fixture(scope="session")
def owner():
    yield os.getpid()
    with open("torn-down", "a") as file:
        print(os.getpid(), file=file)

def pytest_group_of(item):
    return "together" if "together" in item.nodeid else None

def pytest_queue_of(item):
    return "waiting" if "waits" in item.nodeid else None
"""
FIRST = """
import os, signal, warnings

def test_has_its_own_files(owner, tmp_path, capfd):
    assert owner == os.getpid() != os.getppid()
    print("seen")
    assert capfd.readouterr().out == "seen\\n"
    (tmp_path.parent / "written").touch(exist_ok=False)

def test_fails(owner):
    print("before it failed")
    assert owner == 0

def test_is_killed():
    os.kill(os.getpid(), signal.SIGKILL)

def test_comes_after_it(owner):
    warnings.warn("look here")
"""
TOGETHER = """
def test_it(owner, record_property):
    record_property("owner", owner)
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(PLUGIN)
    pytester.makepyfile(test_first=FIRST, test_together_a=TOGETHER, test_second=FIRST, test_together_b=TOGETHER)
    return pytester


def test_every_test_is_reported_whatever_ends_its_process(project: pytest.Pytester) -> None:
    run = project.runpytest_subprocess("--processes", "2", "-v", "--junitxml=told.xml", "-o", "junit_family=legacy")
    run.assert_outcomes(passed=6, failed=4)
    run.stdout.fnmatch_lines_random(["The process of this test ended with signal 9", "*UserWarning: look here"])
    assert run.outlines.count("before it failed") == 2
    owners = re.findall(r'name="owner" value="(\d+)"', (project.path / "told.xml").read_text())
    assert len(owners) == 2
    assert len(set(owners)) == 1
    assert owners[0] in (project.path / "torn-down").read_text().split()


def test_the_first_failure_ends_a_run_that_allows_none(project: pytest.Pytester) -> None:
    run = project.runpytest_subprocess("--processes", "2", "-x", "test_first.py", "test_together_a.py")
    assert run.parseoutcomes()["failed"] == 1
    assert "test_comes_after_it" not in run.stdout.str()
    assert run.ret == pytest.ExitCode.TESTS_FAILED


WAITS = """
import time
from pathlib import Path

def test_it(pytestconfig):
    here, end = Path(pytestconfig.rootpath), time.monotonic() + 60
    (here / {own!r}).touch()
    while not any(here.glob({other!r})):
        assert time.monotonic() < end
        time.sleep(0.01)
"""


def test_groups_of_two_queues_run_side_by_side(pytester: pytest.Pytester) -> None:
    """As many groups that wait as two processes take in advance come before the last one, which runs all the same."""
    pytester.makeconftest(PLUGIN)
    waiting = {f"test_a_waits_{n}": WAITS.format(own=f"waits-{n}", other="computes") for n in range(4)}
    pytester.makepyfile(**waiting, test_z=WAITS.format(own="computes", other="waits-*"))
    pytester.runpytest_subprocess("--processes", "2").assert_outcomes(passed=5)
