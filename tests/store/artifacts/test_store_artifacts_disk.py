"""Free space: the limit, what waits for it, and that nothing is lost by waiting."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from easeml_core.errors import Blame, ConfigError, blame_of
from easeml_core.store.artifacts import disk
from easeml_core.store.artifacts.disk import await_room, least_free, require_room

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("text", ["", "-1", "5 apples", "101%", "M", "1e9"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"EASEML_MIN_FREE must be bytes such as 500M"):
        least_free(10, text)


def test_work_waits_for_room_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([1, 2, 3, 10**9, 10**9, 5, 5])
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free), total=10**12))
    monkeypatch.setattr(disk, "ROOM_SECONDS", 0.0)
    monkeypatch.setenv(disk.VARIABLE, "1G")
    lines = list[str]()
    assert await_room([tmp_path / "not" / "there"], lines.append)
    assert [line.partition(":")[0] for line in lines] == ["waiting for room", "there is room again"]
    assert await_room([tmp_path], lines.append)
    assert len(lines) == 2
    assert not await_room([tmp_path], lines.append, should_stop=lambda: True)
    with pytest.raises(OSError, match=r"0\.0 GB free .* the limit \(EASEML_MIN_FREE\) is 1\.0 GB") as refused:
        require_room(tmp_path)
    assert refused.value.errno == errno.ENOSPC
    assert blame_of(refused.value) is Blame.PASSING  # the referee puts the request off, any number of times
