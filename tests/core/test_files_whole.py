"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from easeml_core.files import local as files
from easeml_core.files.local import rename_new, write_durably

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


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
from easeml_core.files.local import write_durably
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


@pytest.mark.parametrize("refused", [0, errno.EINVAL, errno.EPERM], ids=["renameat2", "file system", "container"])
def test_what_is_renamed_replaces_nothing(tmp_path: Path, monkeypatch: Any, refused: int) -> None:
    if refused:
        monkeypatch.setattr(files, "_renamed_without_replacing", lambda *_: refused)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "made").mkdir()
    folder = os.open(tmp_path, os.O_PATH)
    try:
        for taken in ("empty", "file", "link"):
            with pytest.raises(FileExistsError, match=taken):
                rename_new(folder, "made", taken)
        rename_new(folder, "made", "named")
        with pytest.raises(FileNotFoundError):
            rename_new(folder, "made", "other")
    finally:
        os.close(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "link", "named"]
    assert (tmp_path / "file").read_text() == "kept"
