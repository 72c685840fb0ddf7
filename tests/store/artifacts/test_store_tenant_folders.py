"""Files of one tenant against the accounts of another one, as real accounts of the operating system."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import stat
import struct
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import ArtifactError, ConfigError, InvalidInputError
from easeml_core.files.cache import FileCache
from easeml_core.files.object_stores import filesystem
from easeml_core.store.artifacts import local, tenant_folders
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.artifacts.orphans import files_of
from easeml_core.store.artifacts.remote import RemoteArtifactStore
from easeml_core.store.artifacts.tenant_folders import folder_of, give_folder, weaknesses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
SHARD, DIGEST = "ba", ABC[7:]
GROUPS = {"garden": 61991, "homes": 61992}
GARDENER, DEVICE = 61981, 61983
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can step down to another account")


def told(work: Callable[[], Any]) -> str:
    """What some work gives, or the class of its error."""
    try:
        return repr(work())
    except (ArtifactError, OSError) as error:
        return type(error).__name__


def as_account(uid: int, groups: list[int], *works: Callable[[], Any]) -> list[str]:
    """What each of some works gives, or the class of its error, in one child process of another account."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(writer, json.dumps([told(work) for work in works]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said: list[str] = json.load(file)
    os.waitpid(child, 0)
    return said


def as_gardener(work: Callable[[], Any]) -> str:
    (said,) = as_account(GARDENER, [GROUPS["garden"]], work)
    return said


def as_device(work: Callable[[], Any]) -> str:
    """An account that trains for both tenants."""
    (said,) = as_account(DEVICE, list(GROUPS.values()), work)
    return said


@pytest.fixture
def store() -> Iterator[ArtifactStore]:
    """A store with a folder for each of two tenants; ``homes`` has a file with the content ``abc`` and a checkpoint."""
    folder = Path(tempfile.mkdtemp(prefix="easeml-tenants-"))
    folder.chmod(0o755)
    try:
        made = ArtifactStore(folder / "artifacts")
        made.mark("0123456789abcdef" * 2)
        for tenant, group in GROUPS.items():
            give_folder(made, tenant, group=str(group))
        (folder / "abc").write_bytes(b"abc")
        homes = made.of_tenant("homes")
        assert homes.put(folder / "abc") == files_of(homes, 7).put(folder / "abc") == ABC
        yield made
    finally:
        shutil.rmtree(folder)


def read(place: ArtifactStore, reference: str = ABC) -> bytes:
    with place.copy(reference) as path:
        return path.read_bytes()


def whole(store: ArtifactStore) -> bool:
    """Whether the folder of ``homes`` is as it was."""
    place = store.root / "tenants" / "homes"
    files = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
    same = files == [f"{SHARD}/{DIGEST}", f"checkpoints/7/{SHARD}/{DIGEST}"]
    return same and all((place / name).read_bytes() == b"abc" for name in files) and not place.is_symlink()


ATTACKS: dict[str, Callable[[ArtifactStore, Path], Any]] = {
    "read the file by its path": lambda _, homes: (homes / SHARD / DIGEST).read_bytes(),
    "read it through the store": lambda store, _: read(store.of_tenant("homes")),
    "read it by its hash": lambda store, _: read(store.of_tenant("garden")),
    "read a checkpoint": lambda store, _: read(files_of(store.of_tenant("homes"), 7)),
    "list the folder": lambda _, homes: os.listdir(homes),
    "list the tenants": lambda store, _: os.listdir(store.root / "tenants"),
    "pass through the folder": lambda _, homes: os.chdir(homes / SHARD),
    "replace the file": lambda _, homes: (homes / SHARD / DIGEST).write_bytes(b"abd"),
    "put another file": lambda store, homes: store.of_tenant("homes").put(homes.parents[1] / "easeml-store.json"),
    "remove the file": lambda _, homes: (homes / SHARD / DIGEST).unlink(),
    "put another folder in its place": lambda _, homes: homes.rename(homes.with_name("gone")),
    "put a link in the place of a tenant to come": lambda _, homes: homes.with_name("later").symlink_to("garden"),
    "put another store in its place": lambda store, _: store.root.rename(store.root.with_name("gone")),
    "change the marker": lambda store, _: (store.root / "easeml-store.json").unlink(),
    "add to the common place": lambda store, homes: store.put(homes.parents[1] / "easeml-store.json"),
    "link to the file": lambda store, homes: os.link(homes / SHARD / DIGEST, store.root / "tenants/garden/x"),
    "open its own folder to others, with its group": lambda store, _: (store.root / "tenants/garden").chmod(0o777),
}


@as_root
def test_the_account_of_another_tenant_is_kept_out(store: ArtifactStore) -> None:
    homes = store.root / "tenants" / "homes"
    works = [partial(attack, store, homes) for attack in ATTACKS.values()]
    said = dict(zip(ATTACKS, as_account(GARDENER, [GROUPS["garden"]], *works), strict=True))
    assert {name: what for name, what in said.items() if what not in {"PermissionError", "ArtifactError"}} == {}
    assert whole(store)
    assert all(folder_of(store, tenant).apart for tenant in GROUPS)


@as_root
def test_accounts_of_one_group_read_and_replace_each_others_files(store: ArtifactStore) -> None:
    source = store.root.with_name("new")
    source.write_bytes(b"new")
    garden = store.of_tenant("garden")
    reference = as_device(lambda: garden.put(source)).strip("'")
    assert as_gardener(lambda: (read(garden, reference), garden.put(source), files_of(garden, 9).put(source))) == repr(
        (b"new", reference, reference)
    )
    assert as_device(lambda: (read(garden, reference), read(files_of(garden, 9), reference))) == repr((b"new", b"new"))


def link_the_file(garden: Path, homes: Path) -> None:
    (garden / SHARD).mkdir()
    (garden / SHARD / DIGEST).symlink_to(homes / SHARD / DIGEST)


def link_the_folder(garden: Path, homes: Path) -> None:
    (garden / SHARD).symlink_to(homes / SHARD)


def link_checkpoints(garden: Path, homes: Path) -> None:
    (garden / "checkpoints").symlink_to(homes / "checkpoints")


@as_root
@pytest.mark.parametrize("link", [link_the_file, link_the_folder, link_checkpoints])
def test_a_link_leads_no_other_account_astray(store: ArtifactStore, link: Callable[[Path, Path], None]) -> None:
    """A tenant owns its folder, and a device may read both: it must not fetch one's file for the other."""
    folder = store.root / "tenants"
    assert as_gardener(lambda: link(folder / "garden", folder / "homes")) == "None"
    garden, source = store.of_tenant("garden"), store.root.with_name("abc")
    works: list[Callable[[], Any]] = [
        lambda: read(garden),
        lambda: garden.staged(ABC).__enter__(),
        lambda: garden.holds(ABC),
        lambda: garden.remove_part("checkpoints", "7"),
        lambda: garden.discard(ABC),
    ]
    if link is not link_the_file:
        works.append(lambda: (garden if link is link_the_folder else files_of(garden, 7)).put(source))
    for account, groups in ((DEVICE, list(GROUPS.values())), (0, [])):
        read_, staged, holds, _, _, *put = as_account(account, groups, *works)
        assert (read_, staged, holds) == ("ArtifactError", "ArtifactError", "False")
        assert set(put) <= {"ArtifactError"}
        assert whole(store)


@as_root
def test_a_link_that_comes_and_goes_leads_nobody_astray(store: ArtifactStore) -> None:
    """The tenant swaps a folder and a link while a device looks there; what it finds is never the other's file."""
    folder, garden = store.root / "tenants", store.of_tenant("garden")
    swapping = os.fork()
    if swapping == 0:
        with contextlib.suppress(BaseException):
            os.setgroups([GROUPS["garden"]])
            os.setresgid(GARDENER, GARDENER, GARDENER)
            os.setresuid(GARDENER, GARDENER, GARDENER)
            os.chdir(folder / "garden")
            os.mkdir("real")
            os.symlink(folder / "homes" / SHARD, "link")
            while True:
                os.rename("real", SHARD)
                os.rename(SHARD, "real")
                os.rename("link", SHARD)
                os.rename(SHARD, "link")
        os._exit(0)

    def look() -> set[bool]:
        return {garden.holds(ABC) for _ in range(3000)}

    try:
        assert as_device(look) == "{False}"
    finally:
        os.kill(swapping, 9)
        os.waitpid(swapping, 0)


def test_a_large_file_is_hashed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, sizes = b"abcdefghij", list[int]()
    (tmp_path / "ten").write_bytes(content)
    monkeypatch.setattr(local, "_PIECE", 4)

    class Watched(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            sizes.append(size or 0)
            return super().read(size)

    with Watched(io.FileIO(tmp_path / "ten")) as file:
        assert local._sha256(file) == hashlib.sha256(content).hexdigest()
    assert sizes == [4, 4, 2, 1]


def test_a_file_that_grows_while_it_is_read_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner makes it longer at each read; it is read to the length that it had, and was changed."""
    (tmp_path / "abc").write_bytes(b"abc")
    store = ArtifactStore(tmp_path / "artifacts")
    store.put(tmp_path / "abc")
    place = store.root / SHARD / DIGEST
    opened = local._open_plain

    class Growing(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            os.truncate(place, os.stat(place).st_size + 4096)
            return super().read(size)

    monkeypatch.setattr(local, "_open_plain", lambda *given: Growing(opened(*given).detach()))
    with pytest.raises(ArtifactError, match="was changed after it was stored"):
        read(store)
    with pytest.raises(ArtifactError, match="was changed after it was stored"):
        store.path(ABC)


@as_root
@pytest.mark.parametrize("mode", [0o2770, 0o2771])
def test_what_a_device_trains_on_is_not_swapped_after_the_check(store: ArtifactStore, mode: int) -> None:
    garden, source = store.of_tenant("garden"), store.root.with_name("abc")
    garden.root.chmod(mode)  # a private copy, whatever the tenant makes of its folder
    assert as_gardener(lambda: garden.put(source)) == repr(ABC)
    place = garden.root / SHARD / DIGEST

    def work() -> bytes:
        began = time.monotonic()
        with garden.staged(ABC) as data:
            assert 0 <= data.seconds <= time.monotonic() - began
            os.unlink(place)
            os.symlink("/etc/passwd", place)
            return data.path.read_bytes()

    assert as_device(work) == repr(b"abc")


def make_the_folder_beforehand(store: ArtifactStore, homes: Path) -> None:
    """The gardener owns ``tenants/`` and all of the other tenant's folder, as its worker has made them first."""
    for folder in (homes.parent, homes, *(path for path in homes.rglob("*") if path.is_dir())):
        os.chown(folder, GARDENER, GROUPS["garden"])
        folder.chmod(0o2777)


def leave_an_access_list(store: ArtifactStore, homes: Path) -> None:
    entries = [(0x01, 7, -1), (0x02, 7, GARDENER), (0x04, 7, -1), (0x10, 7, -1), (0x20, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, may, n & 0xFFFFFFFF) for tag, may, n in entries)
    for folder in (homes, homes / SHARD):
        for name in ("system.posix_acl_access", "system.posix_acl_default"):
            try:
                os.setxattr(folder, name, acl)
            except OSError:
                pytest.skip("this file system has no ACLs")


def share_the_root(store: ArtifactStore, homes: Path) -> None:
    (store.root / SHARD).mkdir()
    (store.root / "tenants" / "later").symlink_to("garden")
    for folder in (store.root, store.root / SHARD):
        os.chown(folder, -1, GROUPS["garden"])
        folder.chmod(0o2770)


@as_root
@pytest.mark.parametrize("prepare", [make_the_folder_beforehand, leave_an_access_list, share_the_root])
def test_a_folder_that_is_given_keeps_no_right_of_an_earlier_owner(
    store: ArtifactStore, prepare: Callable[[ArtifactStore, Path], None]
) -> None:
    homes = store.root / "tenants" / "homes"
    prepare(store, homes)
    assert weaknesses(store, list(GROUPS)) != []
    made = give_folder(store, "homes", group=str(GROUPS["homes"]))
    assert (made.apart, made.mode, made.group, weaknesses(store, list(GROUPS))) == (
        True, "2770", str(GROUPS["homes"]), [],
    )  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in homes.rglob("*") if path.is_dir()} == {0o2770}
    said = as_account(
        GARDENER,
        [GROUPS["garden"]],
        lambda: homes.rename(homes.with_name("gone")),
        lambda: (homes / SHARD / DIGEST).read_bytes(),
        lambda: homes.chmod(0o777),
        lambda: (homes / SHARD).chmod(0o777),
        lambda: (store.root / SHARD / "x").write_bytes(b"x"),
    )
    assert set(said) <= {"PermissionError", "FileNotFoundError"}
    assert whole(store)


@as_root
def test_a_folder_that_gets_its_name_meanwhile_is_given_too(store: ArtifactStore, monkeypatch: Any) -> None:
    (store.root / "tenants/homes/.new-01").mkdir(mode=0o700)
    names = tenant_folders._folders_in

    def listed(folder: int) -> list[str]:
        found = names(folder)
        if ".new-01" in found:
            os.rename(".new-01", "cd", src_dir_fd=folder, dst_dir_fd=folder)
        return found

    monkeypatch.setattr(tenant_folders, "_folders_in", listed)
    give_folder(store, "homes", group=str(GROUPS["homes"]))
    given = (store.root / "tenants/homes/cd").stat()
    assert (stat.S_IMODE(given.st_mode), given.st_gid) == (0o2770, GROUPS["homes"])


@as_root
def test_rights_that_the_file_system_refuses_are_an_error(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(tenant_folders, "_own", refuse)
    with pytest.raises(ArtifactError, match=r"cannot be set: .*Operation not permitted; run it again"):
        give_folder(store, "homes", group=str(GROUPS["homes"]))


@as_root
def test_folders_are_given_by_root_with_a_group_for_each(store: ArtifactStore) -> None:
    with pytest.raises(InvalidInputError, match="has the folder of tenant homes"):
        give_folder(store, "garden", group=str(GROUPS["homes"]))
    assert as_gardener(lambda: give_folder(store, "garden", group=str(GROUPS["garden"]))) == "ArtifactError"
    os.chown(store.root / "tenants/garden", -1, GROUPS["homes"])
    store.put(store.root.with_name("abc"))
    assert weaknesses(store, list(GROUPS)) == [
        f"files of an earlier version lie in {store.root} for all accounts: `easeml artifacts move`",
        f"group {GROUPS['homes']} has folders of garden, homes",
    ]


def test_no_name_leads_out_of_the_tenants_folder(tmp_path: Path) -> None:
    for store in (ArtifactStore(tmp_path), RemoteArtifactStore("memory://bucket/x", FileCache(tmp_path / "cache"))):
        for name in ("..", ".", "", "a/b", "/etc", "a\0b", "A", "a\n"):
            with pytest.raises(ConfigError):
                store.of_tenant(name)
    with pytest.raises(InvalidInputError, match="no group 'easeml-nobodys'"):
        give_folder(ArtifactStore(tmp_path), "lab", group="easeml-nobodys")


def test_a_file_in_the_cache_is_not_given_to_a_tenant_that_names_its_hash(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    store = RemoteArtifactStore("memory://tenants-cache/easeml", FileCache(tmp_path / "cache"))
    homes, garden = store.of_tenant("homes"), store.of_tenant("garden")
    homes.put(tmp_path / "abc")
    assert read(homes) == b"abc"
    with pytest.raises(ArtifactError, match="cannot be had"):
        read(garden)
    filesystem("memory").pipe_file(f"tenants-cache/easeml/tenants/garden/{SHARD}/{DIGEST}", b"")
    with pytest.raises(ArtifactError, match="was changed after it was stored"):
        read(garden)
    filesystem("memory").rm_file(f"tenants-cache/easeml/tenants/garden/{SHARD}/{DIGEST}")
    store.put(tmp_path / "abc")  # as an earlier version has stored it
    assert read(garden) == b"abc"
    assert not garden.holds_itself(ABC)
    store.note_moved()
    assert not garden.holds(ABC)
    with pytest.raises(ArtifactError, match="cannot be had"):
        read(garden)
    assert read(homes) == b"abc"


def test_an_account_that_is_not_root_is_refused_before_any_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ArtifactError, match="root alone; run this as root"):
        give_folder(ArtifactStore(tmp_path), tenant="garden", group=str(os.getgid()))
