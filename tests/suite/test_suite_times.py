"""The time a test takes: what fails a run, what is let pass, and that every listed test exists."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import times
from hypothesis import settings
from property_sizes import examples

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

ROOT = Path(__file__).resolve().parents[2]
pytest_plugins = ["pytester"]

BUSY = """
import time

import pytest


def work():
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass


@pytest.fixture(scope="module")
def shared():
    work()


@pytest.fixture
def own():
    work()


def test_works():
    work()


def test_has_a_fixture_that_works(own):
    pass


def test_listed():
    work()


@pytest.mark.journey
def test_is_a_journey():
    work()


def test_sleeps():
    time.sleep(0.1)


def test_shares(shared):
    pass
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    pytester.makepyfile(test_busy=BUSY)
    pytester.makeini("[pytest]\nmarkers = journey")
    allowed = pytester.makefile(".txt", allowed="# a comment\n\ntest_busy.py::test_listed  it has to\n")
    monkeypatch.setattr(times, "LISTED", allowed)
    monkeypatch.setattr(times, "slowness", lambda: 1.0)
    return partial(pytester.runpytest_inprocess, "-p", "times", "--test-seconds=0.045", "-p", "no:xdist")


def test_a_test_over_the_limit_fails_the_run_and_the_time_is_printed_per_folder(run: Run) -> None:
    done = run()
    done.assert_outcomes(passed=4, failed=2)
    done.stdout.fnmatch_lines(
        ["*FAILED test_busy.py::test_works*", "*FAILED test_busy.py::test_has_a_fixture_that_wo*"]
    )
    done.stdout.re_match_lines_random(
        [r"\.\s+6\s+\d+\.\d\s+\d+\.\d", r"in all\s+6\s.*", r".*test_busy.py::test_sleeps"]
    )


def test_beside_other_work_a_test_over_the_limit_is_listed(run: Run) -> None:
    done = run("--slow-tests=list")
    done.assert_outcomes(passed=6)
    done.stdout.fnmatch_lines(
        ["*tests over the limit*", "*test_busy.py::test_works", "*::test_has_a_fixture_that_works"]
    )


def test_every_listed_test_exists() -> None:
    for name, reason in times.listed(times.LISTED).items():
        file, _, function = name.partition("::")
        assert f"def {function.rpartition('::')[2]}(" in (ROOT / file).read_text(encoding="utf-8"), (name, reason)


def test_the_limit_never_falls_below_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for loop, expected in ((times.LOOP_SECONDS / 2, 1.0), (3 * times.LOOP_SECONDS, 3.0)):
        monkeypatch.setattr(times, "_loop", lambda loop=loop: loop)
        assert times.slowness() == pytest.approx(expected)


def test_a_listed_test_needs_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "allowed.txt"
    path.write_text("tests/test_x.py::test_y\n")
    with pytest.raises(ValueError, match="without a reason"):
        times.listed(path)


@pytest.mark.parametrize(
    ("profile", "full", "drawn"),
    [
        ("fast", 800, 100),
        ("fast", 100, 20),
        ("fast", 15, 15),
        ("nightly", 800, 800),
        ("nightly", 15, 15),
    ],
)
def test_the_nightly_set_draws_all_examples(profile: str, full: int, drawn: int) -> None:
    before = settings.get_current_profile_name()
    settings.load_profile(profile)
    try:
        assert examples(full) == drawn
    finally:
        settings.load_profile(before)
