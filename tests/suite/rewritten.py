"""The test files' code, made on all processors at once.

pytest rewrites the assertions of a test file and keeps the code beside it. In a new clone the process that collects the
tests would rewrite all 530 files alone: 10 s.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from _pytest.assertion.rewrite import PYC_TAIL, _rewrite_test, _write_pyc, assertstate_key, get_cache_dir, try_makedirs

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

TESTS = Path(__file__).parents[1]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Rewrite the files that have no code yet, each process of as many as there are processors its part."""
    count = len(os.sched_getaffinity(0))
    if session.config.option.processes < 2 or sys.dont_write_bytecode:
        return
    files = sorted(TESTS.rglob("test_*.py"))
    others = [pid for number in range(1, count) if (pid := _fork(files[number::count], session.config))]
    rewrite(files[::count], session.config)
    for pid in others:
        os.waitpid(pid, 0)  # what it has not rewritten, the collection does


def _fork(files: Iterable[Path], config: pytest.Config) -> int:
    """Rewrite files in a fork; its process id."""
    pid = os.fork()
    if not pid:
        try:
            rewrite(files, config)
        finally:
            os._exit(0)
    return pid


def rewrite(files: Iterable[Path], config: pytest.Config) -> None:
    """Keep the rewritten code of these files where pytest looks for it; code that is out of date stays as it is."""
    for file in files:
        kept = get_cache_dir(file) / f"{file.stem}{PYC_TAIL}"
        if not kept.exists() and try_makedirs(kept.parent):
            source, code = _rewrite_test(file, config)
            _write_pyc(config.stash[assertstate_key], code, source, kept)
