"""Tests, and variants of tests, that are left to the night since they cost much: ``nightly.toml`` names them.

They are mathematics, and other numbers, kinds of models or policies for the same code: a test of the day runs each of
their lines. What guards a separate condition (input, rights, tenants, sealed labels, kills) is not for this list, nor
is a test that alone has found a change of the product (``scripts/mutants.py``).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LISTED = Path(__file__).with_name("nightly.toml")
EVERY = "every variant"
"""In the place of variants: the whole test."""


def listed(path: Path) -> dict[str, dict[str, list[str] | str]]:
    """The variants of each test by file and name, or ``EVERY``."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def is_listed(entries: Mapping[str, Mapping[str, Sequence[str] | str]], nodeid: str) -> bool:
    """Whether a test is left to the night."""
    file, _, name = nodeid.partition("::")
    function, _, variant = name.partition("[")
    variants = entries.get(file, {}).get(function, ())
    return variants == EVERY or variant.removesuffix("]") in variants


def unknown(entries: Mapping[str, Mapping[str, Sequence[str] | str]], nodeids: Sequence[str]) -> list[str]:
    """What the list names in files of these tests, and none of them is."""
    tests = {nodeid.partition("[")[0] for nodeid in nodeids}
    files, known = {test.partition("::")[0] for test in tests}, {*tests, *nodeids}
    return [
        named
        for file in files & entries.keys()
        for function, variants in entries[file].items()
        for named in _named(f"{file}::{function}", variants)
        if named not in known
    ]


def _named(test: str, variants: Sequence[str] | str) -> list[str]:
    return [test] if variants == EVERY else [f"{test}[{variant}]" for variant in variants]


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is listed as nightly.

    Raises:
        UsageError: If the list names what is not there.
    """
    entries = listed(LISTED)
    for item in items:
        if is_listed(entries, item.nodeid):
            item.add_marker(pytest.mark.nightly)
    is_whole = not config.getoption("lf", default=False) and not any("::" in str(given) for given in config.args)
    if is_whole:
        gone = unknown(entries, [item.nodeid for item in items])
        if gone:
            message = f"{LISTED.name} names tests that are not there: {', '.join(gone[:5])}"
            raise pytest.UsageError(message)
