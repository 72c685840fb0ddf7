"""The test files' code, made by all processes of a run together.

pytest rewrites the assertions of a test file and keeps the code beside it. In a new clone each process of a run would
rewrite all 530 files, every one the same file at the same time: 10 s of processor time for each process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from _pytest.assertion.rewrite import PYC_TAIL, _rewrite_test, _write_pyc, assertstate_key, get_cache_dir, try_makedirs

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

TESTS = Path(__file__).parents[1]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Rewrite every nth of the files that have no code yet; the others of the run do the rest meanwhile."""
    of_worker = getattr(session.config, "workerinput", None)
    if of_worker is None or sys.dont_write_bytecode:
        return
    number, count = int(of_worker["workerid"].removeprefix("gw")), of_worker["workercount"]
    rewrite(sorted(TESTS.rglob("test_*.py"))[number::count], session.config)


def rewrite(files: Iterable[Path], config: pytest.Config) -> None:
    """Keep the rewritten code of these files where pytest looks for it; code that is out of date stays as it is."""
    for file in files:
        kept = get_cache_dir(file) / f"{file.stem}{PYC_TAIL}"
        if not kept.exists() and try_makedirs(kept.parent):
            source, code = _rewrite_test(file, config)
            _write_pyc(config.stash[assertstate_key], code, source, kept)
