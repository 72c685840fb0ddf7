"""Artifacts in an object store: the same references as in a folder, checked, brought here once, never half there."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pytest

from easeml_core.errors import ArtifactError, InvalidInputError
from easeml_core.files import object_stores
from easeml_core.files.cache import FileCache
from easeml_core.files.object_stores import ObjectFile
from easeml_core.files.remote_file import Progress
from easeml_core.store.artifacts import remote as remote_module
from easeml_core.store.artifacts.local import MOVED, ArtifactStore
from easeml_core.store.artifacts.remote import RemoteArtifactStore, artifact_store, is_of_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
KEY = f"/bucket/easeml/ba/{ABC[7:]}"


@pytest.fixture
def bucket() -> Iterator[Any]:
    """An empty object store in memory."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    return FileCache(tmp_path / "cache", limit_mb=1)


@pytest.fixture
def remote(bucket: Any, cache: FileCache) -> ArtifactStore:
    """The artifacts in the bucket, as one machine sees them."""
    return artifact_store("memory://bucket/easeml", cache)


@pytest.fixture
def other(bucket: Any, tmp_path: Path) -> ArtifactStore:
    """The same as another machine sees them."""
    return artifact_store("memory://bucket/easeml/", FileCache(tmp_path / "other", limit_mb=1))


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def make(content: bytes = b"abc") -> Path:
        path = tmp_path / "model"
        path.write_bytes(content)
        return path

    return make


def test_a_place_is_a_folder_or_an_address(tmp_path: Path, cache: FileCache) -> None:
    assert type(artifact_store(tmp_path)) is ArtifactStore
    assert type(artifact_store(str(tmp_path))) is ArtifactStore
    assert type(artifact_store("memory://bucket/easeml", cache)) is RemoteArtifactStore


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://data.example/easeml", "a web server takes no files"),
        ("simplecache::memory://bucket/easeml", "must be PROTOCOL://HOST/PATH"),
        ("file:///var/lib/easeml", "must be PROTOCOL://HOST/PATH"),
        ("memory://key:secret@bucket/easeml", "without user, password or query"),
        ("gs://bucket/easeml", "need one more package beside fsspec: .*gcsfs"),
    ],
)
def test_other_addresses_are_refused(url: str, message: str, cache: FileCache) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        artifact_store(url, cache)
    assert "secret" not in str(caught.value)


def test_a_file_comes_back_on_every_machine(remote: Any, other: Any, file: Any, bucket: Any) -> None:
    assert remote.put(file()) == ABC
    assert list(bucket.store) == [KEY]  # nothing unfinished is left
    assert remote.path(ABC).read_bytes() == other.path(ABC).read_bytes() == b"abc"
    with other.copy(ABC) as private:
        assert private.read_bytes() == b"abc"
        assert not private.is_relative_to(other.cache.folder)
    assert not private.exists()


def test_data_are_staged_once_and_the_second_use_costs_no_byte(remote: Any, other: Any, file: Any) -> None:
    content = np.random.default_rng(1).bytes(500_000)
    reference, heard = remote.put(file(content)), list[Progress]()
    with other.staged(reference, heard.append) as staged:
        assert staged.path.read_bytes() == content
        assert staged.fetched == 500_000
        assert staged.seconds > 0
    assert heard[-1].done == heard[-1].total == 500_000
    for _ in range(3):
        with other.staged(reference) as staged:
            assert (staged.path.read_bytes(), staged.fetched) == (content, 0)


def test_a_file_that_is_too_large_to_copy_is_not_fetched(
    remote: Any, other: Any, file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.put(file())
    monkeypatch.setattr("easeml_core.store.artifacts.remote.LARGEST_COPIED_BYTES", 2)
    read: list[int] = []
    opened = ObjectFile.opened
    monkeypatch.setattr(
        ObjectFile, "opened", lambda self, start, about: read.append(start) or opened(self, start, about)
    )
    with pytest.raises(ArtifactError, match="3 bytes, at most 2"), other.copy(ABC):
        pass
    assert not read


def test_of_a_folder_nothing_is_staged(artifacts: ArtifactStore, file: Any) -> None:
    with artifacts.staged(artifacts.put(file())) as staged:
        assert (staged.path, staged.fetched) == (artifacts.path(ABC), 0)


def test_the_same_content_is_kept_once_and_not_written_again(remote: Any, file: Any, bucket: Any) -> None:
    remote.put(file())
    first = bucket.store[KEY]
    remote.put(file())
    assert bucket.store[KEY] is first


@pytest.mark.parametrize("content", [b"abd", b"ab", b"abcd"])
def test_a_changed_file_is_not_handed_out_and_made_good_by_the_next_put(
    content: bytes, remote: Any, other: Any, file: Any, bucket: Any
) -> None:
    remote.put(file())
    bucket.pipe_file(KEY, content)
    for open_it in (other.path, lambda r: other.copy(r).__enter__(), lambda r: other.staged(r).__enter__()):
        with pytest.raises(ArtifactError, match=f"artifact {ABC} was changed after it was stored; train the model"):
            open_it(ABC)
    remote.put(file())
    assert other.path(ABC).read_bytes() == b"abc"


def test_a_file_larger_than_any_artifact_is_replaced_unread(
    remote: Any, file: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.pipe_file(KEY, b"abcd")
    with monkeypatch.context() as patch:
        patch.setattr("easeml_core.store.artifacts.remote.LARGEST_BYTES", 3)
        patch.delattr(ObjectFile, "opened")
        assert remote.put(file()) == ABC
    assert remote.path(ABC).read_bytes() == b"abc"


def test_a_changed_file_in_the_cache_is_made_good(remote: Any, other: Any, file: Any) -> None:
    remote.put(file())
    other.path(ABC).write_bytes(b"abd")
    assert other.path(ABC).read_bytes() == b"abc"


def test_an_upload_that_breaks_off_leaves_no_file_under_the_hash(
    remote: Any, file: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(self: Any, path: str, place: str, **_: Any) -> None:
        self.pipe_file(place, b"a")
        message = "signed address with a secret"
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "put_file", break_off)
        with pytest.raises(ArtifactError, match=r"cannot be kept under .*answers with RuntimeError") as caught:
            remote.put(file())
    assert "secret" not in str(caught.value)
    assert list(bucket.store) == []
    assert remote.put(file()) == ABC


def test_half_of_an_upload_is_noticed(remote: Any, file: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(bucket), "put_file", lambda self, path, place, **_: self.pipe_file(place, b"ab"))
    with pytest.raises(ArtifactError, match="cannot be kept"):
        remote.put(file())
    assert list(bucket.store) == []


def test_a_missing_file_and_a_hostile_reference(remote: Any) -> None:
    with pytest.raises(ArtifactError, match=r"cannot be had from memory://bucket/easeml: .*is this the place"):
        remote.path(ABC)
    for reference in ("sha256:../../etc/passwd", "", ABC[:-1], ABC + "\n"):
        with pytest.raises(ArtifactError, match="must be sha256:<64 hex digits>"):
            remote.path(reference)


def test_a_file_that_is_removed_while_it_is_verified_is_missing(
    remote: Any, file: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = remote.put(file())
    assert remote.fault_of(reference) is None

    def gone(_: ObjectFile) -> str:
        raise FileNotFoundError(KEY)

    monkeypatch.setattr(remote_module, "sha256_of", gone)
    assert remote.fault_of(reference) == "it is missing"


def test_a_path_that_was_handed_out_stays_until_the_store_is_closed(remote: Any, other: Any, file: Any) -> None:
    reference = remote.put(file(b"x" * 600_000))
    more = remote.put(file(b"y" * 600_000))
    path = other.path(reference)
    with pytest.raises(ArtifactError, match=r"do not fit into the cache .* raise its limit"):
        other.path(more)
    assert path.exists()
    other.close()
    assert other.path(more).exists()
    assert not path.exists()


def test_a_part_has_files_of_its_own_that_may_be_discarded(remote: Any, file: Any, bucket: Any) -> None:
    remote.put(file())
    part = remote.part("checkpoints", "7")
    assert part.put(file()) == ABC
    assert sorted(bucket.store) == [KEY, f"/bucket/easeml/checkpoints/7/ba/{ABC[7:]}"]
    part.discard(ABC)
    part.discard(ABC)
    part.discard("no reference")
    assert list(bucket.store) == [KEY]


def test_eight_machines_and_writers(remote: Any, bucket: Any, tmp_path: Path) -> None:
    contents = [bytes([n % 3]) * 30_000 for n in range(24)]
    paths = [tmp_path / f"model-{n}" for n in range(24)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    with ThreadPoolExecutor(8) as pool:
        references = list(pool.map(remote.put, paths))
    assert references == ["sha256:" + hashlib.sha256(content).hexdigest() for content in contents]
    assert len(bucket.store) == 3
    assert [remote.path(reference).read_bytes() for reference in references] == contents


def test_an_artifact_is_there_from_when_it_was_put(remote: ArtifactStore, file: Callable[..., Path]) -> None:
    assert remote.holds(ABC) is False
    remote.put(file())
    assert remote.holds(ABC) is True


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), OSError("what it answers is not known")])
def test_a_store_that_is_away_is_not_empty(
    remote: ArtifactStore, file: Callable[..., Path], bucket: Any, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    remote.put(file())
    garden, calls = remote.of_tenant("garden"), ("info", "ls", "cat_file", "find")
    looks = {
        "holds": lambda: remote.holds(ABC),
        "holds itself": lambda: remote.holds_itself(ABC),
        "of a tenant": lambda: garden.holds(ABC),
        "parts": lambda: remote.parts("checkpoints"),
        "tenants": remote.tenants,
        "identity": remote.identity,
        "fault of": lambda: remote.fault_of(ABC),
        "path": lambda: remote.path(ABC),
    }

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(object_stores, "_sleep", lambda _: None)
        for call in calls:
            patch.setattr(type(bucket), call, fail)
        for name, look in looks.items():
            with pytest.raises(ArtifactError) as caught:
                look()
            assert is_of_store(caught.value), name
    missing = "sha256:" + "0" * 64
    assert [remote.holds(missing), remote.parts("checkpoints"), remote.tenants(), remote.identity()] == [
        False,
        [],
        [],
        None,
    ]
    with pytest.raises(ArtifactError) as caught:
        remote.path(missing)
    assert not is_of_store(caught.value)


def test_a_mark_that_cannot_be_read_lets_no_tenant_read_the_root(
    remote: ArtifactStore, file: Callable[..., Path], bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.put(file())
    remote.note_moved()
    info = type(bucket).info

    def failing(self: Any, path: str, **more: Any) -> Any:
        if path.endswith(MOVED):
            raise ConnectionRefusedError(111, "refused")
        return info(self, path, **more)

    monkeypatch.setattr(type(bucket), "info", failing)
    with pytest.raises(ArtifactError, match="cannot be read"):
        remote.of_tenant("garden").holds(ABC)
