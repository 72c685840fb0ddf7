"""Files under their content hash: kept once, whole or not at all, and never handed out changed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.errors import ArtifactError
from easeml_core.store.artifacts import local as artifacts_module
from easeml_core.store.artifacts.local import LARGEST_BYTES, ArtifactStore
from easeml_core.store.artifacts.location import MARKER, marker_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    assert after.st_ino == before.st_ino
    assert after.st_mtime_ns > before.st_mtime_ns  # young again: no sweep removes it


@settings(deadline=None, max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=70_000))
def test_any_content_goes_by_its_hash(artifacts: ArtifactStore, file: Callable[..., Path], content: bytes) -> None:
    reference = artifacts.put(file(content))
    assert reference == "sha256:" + hashlib.sha256(content).hexdigest()
    assert artifacts.path(reference).read_bytes() == content


def overwrite(path: Path) -> None:
    path.write_bytes(b"abd")


def cut(path: Path) -> None:
    path.write_bytes(b"ab")


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"d")


@pytest.mark.parametrize("damage", [overwrite, cut, grow])
def test_a_changed_file_is_not_handed_out_and_made_good_by_the_next_put(
    artifacts: ArtifactStore, file: Callable[..., Path], damage: Callable[[Path], None]
) -> None:
    artifacts.put(file())
    damage(artifacts.path(ABC))
    with pytest.raises(ArtifactError, match=f"artifact {ABC} was changed after it was stored; train the model again"):
        artifacts.path(ABC)
    artifacts.put(file())
    assert artifacts.path(ABC).read_bytes() == b"abc"


def point_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")  # its end is never reached


def point_to_the_right_content(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(b"abc")
    path.symlink_to(elsewhere)  # what it points to may change after it was checked


def point_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def point_to_a_folder(path: Path) -> None:
    path.with_name("folder").mkdir()
    path.symlink_to(path.with_name("folder"))


def make_a_full_folder(path: Path) -> None:
    path.mkdir()
    (path / "file").write_bytes(b"abc")


def listen(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as opened:  # an address is short
        opened.bind(path.name)


def make_holes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)


TRAPS = {
    os.mkfifo: "it is no plain file, or too large",
    Path.mkdir: "it is no plain file, or too large",
    make_a_full_folder: "it is no plain file, or too large",
    make_holes: "it is no plain file, or too large",
    point_to_a_device: "Too many levels of symbolic links",
    point_to_the_right_content: "Too many levels of symbolic links",
    point_nowhere: "Too many levels of symbolic links",
    point_to_a_folder: "Too many levels of symbolic links",
    listen: "No such device or address",
}


@pytest.fixture
def in_time() -> Iterator[None]:
    """A call that waits for a pipe's other end, or reads to the end of a device, is interrupted."""

    def give_up(*_: object) -> None:
        message = "it should have been refused at once"
        raise AssertionError(message)

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_what_is_no_plain_file_is_refused_at_once_and_replaced_by_the_next_put(
    artifacts: ArtifactStore, file: Callable[..., Path], trap: Callable[[Path], None]
) -> None:
    place = artifacts.root / "ba" / ABC[7:]
    place.parent.mkdir(parents=True)
    trap(place)
    refused = rf"artifact {ABC} is missing under .*\({TRAPS[trap]}\); is this the folder"
    with pytest.raises(ArtifactError, match=refused):
        artifacts.path(ABC)
    with pytest.raises(ArtifactError, match=refused), artifacts.copy(ABC):
        pytest.fail("the block must not begin")
    assert artifacts.put(file()) == ABC
    assert artifacts.path(ABC) == place
    assert stat.S_ISREG(place.lstat().st_mode)
    assert place.read_bytes() == b"abc"


def test_a_copy_is_private_checked_and_gone_after_the_block(
    artifacts: ArtifactStore, file: Callable[..., Path]
) -> None:
    artifacts.put(file())
    with artifacts.copy(ABC) as private:
        assert private.read_bytes() == b"abc"
        assert not private.is_relative_to(artifacts.root)
        assert not private.samefile(artifacts.path(ABC))
        assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
        assert stat.S_ISREG(private.lstat().st_mode)
    assert not private.parent.exists()


@pytest.mark.parametrize("swap", [overwrite, cut, grow, Path.unlink])
def test_a_swap_during_the_block_does_not_matter(
    artifacts: ArtifactStore, file: Callable[..., Path], swap: Callable[[Path], None]
) -> None:
    artifacts.put(file())
    with artifacts.copy(ABC) as private:
        swap(artifacts.path(ABC))
        assert private.read_bytes() == b"abc"


@pytest.mark.parametrize("damage", [overwrite, cut, grow])
def test_no_copy_is_made_of_a_changed_file(
    artifacts: ArtifactStore,
    file: Callable[..., Path],
    damage: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def copy(*_: object) -> None:
        pytest.fail("nothing of it may be copied: it could be large")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(artifacts_module, "_copy_checked", copy)
    artifacts.put(file())
    damage(artifacts.path(ABC))
    with pytest.raises(ArtifactError, match=f"artifact {ABC} was changed after it was stored"), artifacts.copy(ABC):
        pytest.fail("the block must not begin")
    assert list(tmp_path.glob("easeml-artifact-*")) == []


@pytest.mark.parametrize("change", [overwrite, grow, make_holes])
def test_what_changes_between_the_check_and_the_copy_is_noticed_and_no_byte_too_many_is_copied(
    artifacts: ArtifactStore,
    file: Callable[..., Path],
    change: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file of holes costs its maker nothing; copying all of it would fill the disk."""
    artifacts.put(file())
    sizes: list[int] = []
    checked = artifacts_module._copy_checked

    def change_first(reader: Any, writer: Any) -> None:
        change(artifacts.path(ABC))
        checked(reader, writer)
        sizes.append(writer.tell())

    monkeypatch.setattr(artifacts_module, "_copy_checked", change_first)
    if change is grow:  # what was checked is what was copied
        with artifacts.copy(ABC) as private:
            assert private.read_bytes() == b"abc"
    else:
        with pytest.raises(ArtifactError, match="was changed after it was stored"), artifacts.copy(ABC):
            pytest.fail("the block must not begin")
    assert sizes == [3]


def test_a_large_file_is_copied_whole(artifacts: ArtifactStore, file: Callable[..., Path]) -> None:
    content = np.random.default_rng(3).bytes(2_500_001)
    with artifacts.copy(artifacts.put(file(content))) as private:
        assert private.read_bytes() == content


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
    with pytest.raises(ArtifactError, match="must be sha256:<64 hex digits>, got "), artifacts.copy(reference):
        pytest.fail("the block must not begin")


def test_a_missing_file_asks_for_the_right_folder(artifacts: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match=r"missing under .*\(No such file or directory\); is this the folder"):
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


@pytest.mark.parametrize(
    ("write", "size"),
    [
        (lambda store, path: store.put(path), len(b"abc")),
        (lambda store, _: store.mark("0" * 32), len(marker_text("0" * 32))),
    ],
    ids=["put", "mark"],
)
def test_a_file_is_synced_whole_before_it_has_its_name(
    artifacts: ArtifactStore,
    file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[ArtifactStore, Path], str],
    size: int,
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, f"cannot sync {os.fstat(descriptor).st_size} bytes")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ArtifactError, match=f"cannot sync {size} bytes"):
        write(artifacts, file())
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
from easeml_core.store.artifacts.local import ArtifactStore
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
        artifacts.mark("0123456789abcdef" * 2)
    finally:
        os.umask(before)
    path = artifacts.path(ABC)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((artifacts.root / MARKER).stat().st_mode) == 0o644
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o2775


def test_no_process_meets_a_folder_without_its_mode(
    artifacts: ArtifactStore, file: Callable[..., Path], monkeypatch: Any
) -> None:
    """What it made inside would get the wrong mode for good; and who is killed meanwhile leaves no such folder."""
    artifacts.root.mkdir()
    artifacts.root.chmod(0o2770)
    change, met = os.fchmod, list[int]()

    def interrupted(descriptor: int, mode: int) -> None:
        met.append(descriptor)
        if len(met) == 1:
            raise KeyboardInterrupt
        if len(met) == 2:
            artifacts.of_tenant("kitchen").put(file(b"meanwhile", "other"))
        change(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", interrupted)
    with pytest.raises(KeyboardInterrupt):
        artifacts.of_tenant("bank").put(file())
    artifacts.of_tenant("bank").put(file())
    folders = [path for path in artifacts.root.rglob("*") if path.is_dir()]
    assert {
        str(path.relative_to(artifacts.root)): oct(path.stat().st_mode & 0o7777) for path in folders
    } == dict.fromkeys(
        ["tenants", "tenants/bank", f"tenants/bank/{ABC[7:9]}", "tenants/kitchen", "tenants/kitchen/c0"], "0o2770"
    )


def test_folders_are_made_where_no_mode_can_be_set(
    artifacts: ArtifactStore, file: Callable[..., Path], monkeypatch: Any
) -> None:
    """As under systemd's RestrictSUIDSGID, with the umask of our units."""
    artifacts.root.mkdir()
    artifacts.root.chmod(0o2770)
    change = os.fchmod

    def refused(descriptor: int, mode: int) -> None:
        if mode & stat.S_ISGID:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        change(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", refused)
    before = os.umask(0o007)
    try:
        artifacts.of_tenant("bank").put(file())
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o7777 for path in artifacts.root.rglob("*") if path.is_dir()} == {0o2770}


def test_a_file_is_kept_although_another_process_replaces_a_folder_that_is_empty(
    artifacts: ArtifactStore, file: Callable[..., Path], monkeypatch: Any
) -> None:
    step, replaced = artifacts_module._step, list[str]()

    def swapped(folder: int, name: str, *, makes: bool = False) -> int:
        opened = step(folder, name, makes=makes)
        if name == "bank" and not replaced:
            replaced.append(name)
            os.rmdir(name, dir_fd=folder)
            os.mkdir(name, dir_fd=folder)
        return opened

    monkeypatch.setattr(artifacts_module, "_step", swapped)
    bank = artifacts.of_tenant("bank")
    assert bank.path(bank.put(file())).read_bytes() == b"abc"


def test_a_link_in_the_place_of_an_unfinished_file_opens_no_other_file(
    artifacts: ArtifactStore, file: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    """Another account that shares the folder must not make root change the rights of a file of root's."""
    secret = tmp_path / "secret"
    secret.write_text("password")
    secret.chmod(0o600)
    copy = shutil.copyfileobj

    def swapped(*files: Any) -> None:
        copy(*files)
        (unfinished,) = artifacts.root.glob("new-*")
        unfinished.unlink()
        unfinished.symlink_to(secret)

    monkeypatch.setattr(artifacts_module.shutil, "copyfileobj", swapped)
    artifacts.put(file())
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_link_in_the_place_of_a_new_folder_opens_no_other_folder(
    artifacts: ArtifactStore, file: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    artifacts.root.mkdir()
    artifacts.root.chmod(0o777)
    make = os.mkdir

    def swapped(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        make(path, mode, dir_fd=dir_fd)
        if dir_fd is not None:
            os.rmdir(path, dir_fd=dir_fd)
            os.symlink(closed, path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", swapped)
    with pytest.raises(ArtifactError, match="cannot be kept"):
        artifacts.put(file())
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_a_relative_folder_stays_the_same_folder_wherever_the_process_goes(tmp_path: Path, monkeypatch: Any) -> None:
    """A trial's child runs in a separate folder and opens the data by the path that it was given."""
    monkeypatch.chdir(tmp_path)
    store = ArtifactStore("artifacts")
    (tmp_path / "model.bin").write_bytes(b"weights")
    kept = store.put(tmp_path / "model.bin")
    monkeypatch.chdir("/")
    assert store.path(kept).read_bytes() == b"weights"


def test_no_descriptor_stays_open(artifacts: ArtifactStore, file: Callable[..., Path]) -> None:
    """Neither of folders that are made, nor of what lies in the place of a file and is none."""
    before = len(os.listdir("/proc/self/fd"))
    place = artifacts.path(artifacts.put(file()))
    place.unlink()
    place.mkdir()
    for number in range(40):
        artifacts.put(file(str(number).encode()))
        with pytest.raises(ArtifactError):
            artifacts.path(ABC)
    assert len({path.parent for path in kept(artifacts)}) > 30
    assert len(os.listdir("/proc/self/fd")) - before < 20
