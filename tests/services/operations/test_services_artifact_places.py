"""The installation's artifact store: adopted once, known by its marker under any path, moved by the owner alone."""

from __future__ import annotations

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import ArtifactError, ArtifactPlaceError, NotFoundError, WrongRoleError, is_put_off
from easeml_core.files.cache import FileCache
from easeml_core.services.operations.artifact_store import (
    artifacts_of_installation,
    checked_artifacts,
    installed_place,
    set_artifacts,
)
from easeml_core.services.operations.doctor import check_artifacts
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.artifacts.location import MARKER
from easeml_core.store.artifacts.remote import artifact_store
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easeml_core.store.database import Store

TREE = [{"name": "tree", "kind": "decision_tree"}]


def test_the_first_use_sets_the_store_and_every_path_to_it_is_the_same(
    store: Store, tmp_path: Path, monkeypatch: Any
) -> None:
    assert artifacts_of_installation(store) is None
    checked_artifacts(store, ArtifactStore(tmp_path / "a"))
    known = installed_place(store)
    assert known is not None
    assert (known.place, known.set_by) == (str(tmp_path / "a"), "easeml_worker")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "mounted elsewhere")  # another path of the same storage has the marker
    monkeypatch.chdir(tmp_path)
    for same in ("a", "a/", "./a/../a", str(tmp_path / "link"), str(tmp_path / "mounted elsewhere")):
        checked_artifacts(store, artifact_store(same))
    found = artifacts_of_installation(store)
    assert found is not None
    assert found.root == tmp_path / "a"
    assert installed_place(store) == known


@pytest.mark.parametrize("remembers", [False, True])
def test_a_store_that_was_compared_is_known_from_its_empty_mount_point(
    store: Store, tmp_path: Path, *, remembers: bool
) -> None:
    (tmp_path / "abc").write_text("abc")
    checked_artifacts(store, ArtifactStore(tmp_path / "a"), remembers=True)
    compared = checked_artifacts(store, ArtifactStore(tmp_path / "a"), remembers=remembers)
    found = artifacts_of_installation(store)
    assert found is not None
    (tmp_path / "a").rename(tmp_path / "away")
    (tmp_path / "a").mkdir()
    for artifacts in (compared, found):
        with pytest.raises(ArtifactError, match="is it mounted") as caught:
            artifacts.of_tenant("lab").put(tmp_path / "abc")
        assert is_put_off(caught.value)
    assert list((tmp_path / "a").iterdir()) == []


def test_another_store_is_refused_with_both_places_and_the_command(database: Any, tmp_path: Path) -> None:
    checked_artifacts(database.referee, ArtifactStore(tmp_path / "right"))
    ArtifactStore(tmp_path / "marked").mark("b" * 32)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / MARKER).write_text("[]")
    for wrong in ("empty", "marked", "broken"):
        with pytest.raises(ArtifactPlaceError) as caught:
            checked_artifacts(database.worker, ArtifactStore(tmp_path / wrong))
        for words in (f"{tmp_path}/{wrong} is not", f"is at {tmp_path}/right", "`easeml db artifacts PLACE`"):
            assert words in str(caught.value)
    assert not (tmp_path / "empty").exists()  # a refused command leaves nothing
    shutil.rmtree(tmp_path / "right")  # a disk that is not mounted
    with pytest.raises(ArtifactPlaceError, match="this machine does not have them there; give the path"):
        artifacts_of_installation(database.worker)


def test_a_store_that_this_account_may_not_read_is_not_taken_for_another_one(
    database: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    place = ArtifactStore(tmp_path / "a")
    checked_artifacts(database.worker, place)
    monkeypatch.setattr("easeml_core.store.artifacts.local.identity_in", refuse)  # root may read everywhere
    with pytest.raises(ArtifactError, match=r"a/easeml-store.json .*Permission denied.*in the group of the folder"):
        checked_artifacts(database.worker, place)
    check = check_artifacts(database.url("easeml_worker"), str(place.root))
    assert (check.state, "Permission denied" in check.found) == ("failed", True)


def test_the_doctor_says_where_this_account_may_not_write(database: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """A team's account that may write to the folder of its tenant alone is as it should be."""
    place = ArtifactStore(tmp_path / "a")
    checked_artifacts(database.worker, place)
    with database.worker.begin() as tx:
        studies.add_tenant(tx, name="lab")
    for writable, state in (((), "warning"), (("lab",), "ok"), (("a",), "ok")):
        # root may write everywhere
        monkeypatch.setattr(ArtifactStore, "is_writable", lambda self, names=writable: self.root.name in names)
        check = check_artifacts(database.url("easeml_worker"), str(place.root))
        assert check.state == state, writable


def test_an_installation_with_data_adopts_only_where_they_are(
    database: Any, artifacts: ArtifactStore, make_study: Any, tmp_path: Path
) -> None:
    """An upgraded installation has data and no row: the first command may come from the wrong folder."""
    make_study("digits", source="sklearn:digits", candidates=TREE)
    shutil.copytree(artifacts.root, tmp_path / "old")  # lacks the newest
    make_study("cancer", candidates=TREE)
    for wrong in ("empty", "old"):
        with pytest.raises(ArtifactPlaceError, match="does not hold the artifacts of this installation"):
            checked_artifacts(database.worker, ArtifactStore(tmp_path / wrong))
    assert installed_place(database.worker) is None
    checked_artifacts(database.worker, artifacts)
    known = installed_place(database.worker)
    assert known is not None
    assert known.place == str(artifacts.root)


def test_the_owner_alone_moves_the_installation_and_to_a_place_with_its_data(
    database: Any, artifacts: ArtifactStore, make_study: Any, tmp_path: Path
) -> None:
    make_study("cancer", candidates=TREE)
    checked_artifacts(database.worker, artifacts)
    moved = ArtifactStore(tmp_path / "moved")
    for role in (database.worker, database.referee):
        with pytest.raises(WrongRoleError):
            set_artifacts(role, moved, unchecked=True)
    with pytest.raises(NotFoundError, match=r"copy the artifacts to .*moved first, or give --unchecked"):
        set_artifacts(database.owner, moved)
    assert not moved.root.exists()
    shutil.copytree(artifacts.root, moved.root, ignore=shutil.ignore_patterns(MARKER))
    assert set_artifacts(database.owner, moved).place == str(moved.root)
    checked_artifacts(database.worker, moved)
    with pytest.raises(ArtifactPlaceError, match=f"is at {moved.root}"):
        checked_artifacts(database.worker, artifacts)


def at_folder(path: Path) -> ArtifactStore:
    return ArtifactStore(path)


def at_address(path: Path) -> ArtifactStore:
    return artifact_store(f"memory://bucket{path}", FileCache(path.parent / "cache", limit_mb=1))


@pytest.mark.parametrize("at", [at_folder, at_address])
def test_a_copy_with_its_marker_takes_the_place_of_the_store_that_was_copied(
    database: Any, tmp_path: Path, at: Callable[[Path], ArtifactStore]
) -> None:
    """Tasks whose connection still names the old place would store models there, where no other looks."""
    old, new = ArtifactStore(tmp_path / "old"), at(tmp_path / "new")
    checked_artifacts(database.worker, old)
    identity = old.identity()
    assert identity is not None
    new.mark(identity)  # as any copy of all files
    moved = set_artifacts(database.owner, new)
    with pytest.raises(ArtifactPlaceError, match=f"old is not .*is at {new.place}"):
        checked_artifacts(database.worker, old)
    checked_artifacts(database.worker, at(tmp_path / "new"))
    assert old.identity() == identity
    assert set_artifacts(database.owner, new).store_id == moved.store_id  # a repeated call changes no identity
    assert set_artifacts(database.owner, old).store_id == identity  # and back
    with pytest.raises(ArtifactPlaceError):
        checked_artifacts(database.worker, new)


class Mounted(ArtifactStore):
    """The same folder on a host that mounts it elsewhere."""

    place = "/mnt/easeml"


def test_a_store_that_gets_another_name_stays_in_use_under_all_of_them(database: Any, tmp_path: Path) -> None:
    store, mounted = ArtifactStore(tmp_path / "a"), Mounted(tmp_path / "a")
    checked_artifacts(database.worker, store)
    moved = set_artifacts(database.owner, mounted)
    assert moved.place == "/mnt/easeml"
    for same in (store, mounted):
        checked_artifacts(database.worker, same)
    (store.root / MARKER).unlink()  # as of a copy that takes the path of what was copied
    assert set_artifacts(database.owner, mounted).store_id != moved.store_id


def test_eight_first_uses_at_once_give_one_store(database: Any, tmp_path: Path) -> None:
    start = Barrier(8)

    def use(number: int) -> str:
        start.wait()
        place = ArtifactStore(tmp_path / str(number % 2))
        try:
            checked_artifacts(database.worker, place)
        except ArtifactPlaceError:
            return "refused"
        return str(place.identity())

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(use, range(8)))
    known = installed_place(database.worker)
    assert known is not None
    assert sorted(found) == sorted([known.store_id] * 4 + ["refused"] * 4)


def test_an_address_has_a_marker_too(store: Store, tmp_path: Path) -> None:
    def at(url: str) -> ArtifactStore:
        return artifact_store(url, FileCache(tmp_path / "cache", limit_mb=1))

    url = f"memory://bucket/{tmp_path.name}"
    checked_artifacts(store, at(url + "/"))
    checked_artifacts(store, at(url))
    with pytest.raises(ArtifactPlaceError):
        checked_artifacts(store, at(url + "/other"))


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    place = ArtifactStore(tmp_path / "a")
    assert place.mark("c" * 32) == "c" * 32
    assert place.mark("d" * 32) == "c" * 32  # what is there stays
    assert sorted(p.name for p in place.root.iterdir()) == [MARKER]
    (place.root / MARKER).write_text("{}")
    with pytest.raises(ArtifactError, match="is not the marker of an artifact store"):
        place.mark("e" * 32)


def test_a_place_that_this_account_cannot_write_to_is_not_adopted(
    store: Store, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(ArtifactStore, "is_writable", lambda _: False)  # root may write everywhere
    checked_artifacts(store, ArtifactStore(tmp_path))
    assert installed_place(store) is None
