"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from easeml_core.files import write_durably

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_has_its_content_and_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    old_umask = os.umask(0o777 if mode == 0o600 else 0)
    try:
        write_durably(path, "old")
        write_durably(path, b"new" if mode == 0o600 else "n\u00e9w", mode=mode)
    finally:
        os.umask(old_umask)
    assert path.read_text(encoding="utf-8") == ("new" if mode == 0o600 else "n\u00e9w")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_durably(path, "\ud800")  # a lone surrogate cannot be written
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "none" / "file", "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
from pathlib import Path
from easeml_core.files import write_durably
os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)
write_durably(Path(sys.argv[1]), "new")
"""


def test_a_killed_writer_leaves_the_old_file_and_stops_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, "old")
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_durably(path, "newer")
    assert path.read_text() == "newer"
