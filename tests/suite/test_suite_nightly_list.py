"""What is left to the night: variants, whole tests, and names that are not there."""

from __future__ import annotations

import nightly_list

ENTRIES = {"tests/a.py": {"test_one": nightly_list.EVERY, "test_two": ["x", "y[0]"]}}


def test_what_is_listed_runs_at_night() -> None:
    def listed(nodeid: str) -> bool:
        return nightly_list.is_listed(ENTRIES, nodeid)

    assert all(map(listed, ("tests/a.py::test_one", "tests/a.py::test_one[z]", "tests/a.py::test_two[y[0]]")))
    assert not any(map(listed, ("tests/a.py::test_two[z]", "tests/a.py::test_two", "tests/b.py::test_one")))


def test_a_name_that_is_not_there_is_told() -> None:
    def unknown(*nodeids: str) -> list[str]:
        return nightly_list.unknown(ENTRIES, nodeids)

    assert unknown("tests/b.py::test_one") == []
    assert unknown("tests/a.py::test_one[z]", "tests/a.py::test_two[x]", "tests/a.py::test_two[y[0]]") == []
    assert unknown("tests/a.py::test_two[x]") == ["tests/a.py::test_one", "tests/a.py::test_two[y[0]]"]
