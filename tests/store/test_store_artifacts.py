"""Files under their content hash: kept once, whole or not at all, and never handed out changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easeml_core.errors import ArtifactError
from easeml_core.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# SHA-256 of "abc", from FIPS 180-4's examples.
ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """A file with this content."""

    def make(content: bytes = b"abc", name: str = "model.skops") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return make


def kept(artifacts: ArtifactStore) -> list[Path]:
    """Every file in the folder, unfinished ones too."""
    return [p for p in artifacts.root.rglob("*") if not p.is_dir()]


def test_a_file_comes_back_as_it_was(artifacts: ArtifactStore, file: Callable[..., Path]) -> None:
    assert artifacts.put(file()) == ABC
    assert artifacts.put(str(file())) == ABC
    path = artifacts.path(ABC)
    assert path.read_bytes() == b"abc"
    assert path.is_relative_to(artifacts.root)
    assert ArtifactStore(str(artifacts.root)).path(ABC) == path


def test_the_same_content_is_kept_once(artifacts: ArtifactStore, file: Callable[..., Path]) -> None:
    artifacts.put(file(name="a"))
    before = artifacts.path(ABC).stat()
    artifacts.put(file(name="b"))
    assert kept(artifacts) == [artifacts.path(ABC)]
    after = artifacts.path(ABC).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=70_000))
def test_any_content_goes_by_its_hash(artifacts: ArtifactStore, file: Callable[..., Path], content: bytes) -> None:
    reference = artifacts.put(file(content))
    assert reference == "sha256:" + hashlib.sha256(content).hexdigest()
    assert artifacts.path(reference).read_bytes() == content


def overwrite(path: Path) -> None:
    path.write_bytes(b"abd")


def cut(path: Path) -> None:
    path.write_bytes(b"ab")


def point_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize("damage", [overwrite, cut, point_elsewhere])
def test_a_changed_file_is_not_handed_out_and_made_good_by_the_next_put(
    artifacts: ArtifactStore, file: Callable[..., Path], damage: Callable[[Path], None]
) -> None:
    artifacts.put(file())
    damage(artifacts.path(ABC))
    with pytest.raises(ArtifactError, match=f"artifact {ABC} was changed after it was stored; train the model again"):
        artifacts.path(ABC)
    artifacts.put(file())
    assert artifacts.path(ABC).read_bytes() == b"abc"
    assert not artifacts.path(ABC).is_symlink()


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "sha256:",
        ABC[7:],
        ABC.upper(),
        "sha256:" + ABC[7:].upper(),
        ABC + "0",
        ABC[:-1],
        ABC + "\n",
        " " + ABC,
        ABC.replace("sha256", "md5"),
        "sha256:../../../../etc/passwd",
        "sha256:" + "../" * 21 + "a",
        "sha256:" + "/" * 64,
        "/etc/passwd",
        "../" + ABC,
        ABC[:-1] + "\0",
        "sha256:" + "\u0663" * 64,  # Arabic digits
        "sha256:" + "\uff10" * 64,  # full-width digits
        "sha256:" + "\u0430" * 64,  # Cyrillic
    ],
)
def test_a_hostile_reference_leads_nowhere(artifacts: ArtifactStore, reference: str) -> None:
    with pytest.raises(ArtifactError, match="must be sha256:<64 hex digits>, got "):
        artifacts.path(reference)


def test_a_missing_file_asks_for_the_right_folder(artifacts: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match=r"missing under .*\(No such file or directory\); is this the folder"):
        artifacts.path(ABC)
    artifacts.root.joinpath("ba", ABC[7:]).mkdir(parents=True)
    with pytest.raises(ArtifactError, match="Is a directory"):
        artifacts.path(ABC)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, file: Callable[..., Path]) -> None:
    in_the_way = file(name="in-the-way")
    artifacts = ArtifactStore(in_the_way / "artifacts")
    with pytest.raises(ArtifactError, match=r"in-the-way cannot be kept under .*must be able to write there"):
        artifacts.put(in_the_way)


def test_a_file_that_is_not_there_cannot_be_kept(artifacts: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match=r"no-model cannot be kept under .*No such file"):
        artifacts.put("no-model")
    assert kept(artifacts) == []


def test_eight_writers_of_the_same_and_of_other_files(artifacts: ArtifactStore, file: Callable[..., Path]) -> None:
    sources = [file(bytes([n % 3]) * 300_000, f"model-{n}") for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        references = list(pool.map(artifacts.put, sources))
    assert len(set(references)) == len(kept(artifacts)) == 3
    assert all(artifacts.path(r).read_bytes() == s.read_bytes() for r, s in zip(references, sources, strict=True))


def test_a_full_disk_leaves_nothing(
    artifacts: ArtifactStore, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(reader: Any, writer: Any) -> None:
        writer.write(reader.read(2))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fill_up)
    with pytest.raises(ArtifactError, match="No space left on device"):
        artifacts.put(file())
    assert kept(artifacts) == []


def test_the_reference_is_of_what_was_kept_though_the_file_changes(
    artifacts: ArtifactStore, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, copy = file(b"half a mod"), shutil.copyfileobj

    def change_first(reader: Any, writer: Any) -> None:
        source.write_bytes(b"abc")
        copy(reader, writer)

    monkeypatch.setattr(shutil, "copyfileobj", change_first)
    assert artifacts.put(source) == ABC
    assert artifacts.path(ABC).read_bytes() == b"abc"


DIE = """
import os, shutil, signal, sys
from easeml_core.store.artifacts import ArtifactStore
def die(reader, writer):
    writer.write(reader.read(2)); writer.flush()
    os.kill(os.getpid(), signal.SIGKILL)
shutil.copyfileobj = die
ArtifactStore(sys.argv[1]).put(sys.argv[2])
"""


def test_kill_9_in_the_middle_leaves_no_half_file(artifacts: ArtifactStore, file: Callable[..., Path]) -> None:
    done = subprocess.run([sys.executable, "-c", DIE, artifacts.root, file()], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(ArtifactError, match="missing"):
        artifacts.path(ABC)
    assert [p.name[:4] for p in kept(artifacts)] == ["new-"]  # named as unfinished; nothing refers to it
    assert artifacts.put(file()) == ABC
    assert artifacts.path(ABC).read_bytes() == b"abc"


def test_other_accounts_may_read_and_folders_are_as_open_as_the_root(
    artifacts: ArtifactStore, file: Callable[..., Path]
) -> None:
    artifacts.root.mkdir()
    artifacts.root.chmod(0o2775)
    before = os.umask(0o077)
    try:
        artifacts.put(file())
    finally:
        os.umask(before)
    path = artifacts.path(ABC)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o2775
