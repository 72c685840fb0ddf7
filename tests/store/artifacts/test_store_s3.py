"""Artifacts in a bucket of S3: uploads in parts that survive a kill, and errors that say what to do."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import s3fs
from s3_server import SECRET, S3Server, s3_server

from easeml_core.errors import ArtifactError
from easeml_core.files import object_stores
from easeml_core.files.cache import FileCache
from easeml_core.files.object_stores import abort, unfinished
from easeml_core.store.artifacts import orphans
from easeml_core.store.artifacts.orphans import NamedFile
from easeml_core.store.artifacts.remote import artifact_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PART = 5 << 20
_PUT = """
import sys
from easeml_core.files import object_stores
from easeml_core.files.cache import FileCache
from easeml_core.store.artifacts.remote import artifact_store
object_stores.upload.__kwdefaults__["part_bytes"] = int(sys.argv[3])
print(artifact_store("s3://models/easeml", FileCache(sys.argv[1])).put(sys.argv[2]))
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server(monkeypatch) as found:
        yield found


def start_put(tmp_path: Path, path: Path) -> subprocess.Popen[str]:
    given = [str(tmp_path / "cache"), str(path), str(PART)]
    return subprocess.Popen([sys.executable, "-c", _PUT, *given], stdout=subprocess.PIPE, text=True)


def test_an_upload_that_is_killed_goes_on_in_another_process(server: S3Server, tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(2 * PART + 100)
    (tmp_path / "model").write_bytes(content)
    key = f"models/easeml/{hashlib.sha256(content).hexdigest()[:2]}/{hashlib.sha256(content).hexdigest()}"
    children: list[subprocess.Popen[str]] = []
    server.hears = lambda call: "partNumber=3" in call and children[0].send_signal(signal.SIGKILL)
    children.append(start_put(tmp_path, tmp_path / "model"))
    assert children[0].wait(60) == -signal.SIGKILL
    server.hears = lambda _: False
    assert not server.files.exists(key)  # never half there
    assert [one.key for one in unfinished(server.files, "models/easeml")] == [key]

    server.calls.clear()
    again = start_put(tmp_path, tmp_path / "model")
    assert again.communicate(timeout=60)[0].strip() == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert (server.count("partNumber=1"), server.count("partNumber=2")) == (0, 0)
    assert unfinished(server.files, "models/easeml") == []
    assert server.files.cat_file(key) == content
    sums = FileCache(tmp_path / "cache").traffic()
    assert (round(sums.resumed_megabytes * 1e6), round(sums.sent_megabytes * 1e6)) in {
        (2 * PART, 100),
        (2 * PART + 100, 0),  # the part whose answer was not heard had arrived
    }


@pytest.mark.parametrize("end", ["is ended", "is given up"])
def test_an_upload_that_others_end_or_give_up_meanwhile_is_no_failure(
    end: str, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(object_stores.upload.__kwdefaults__, "part_bytes", PART)
    content = np.random.default_rng(2).bytes(2 * PART + 100)
    (tmp_path / "model").write_bytes(content)
    store = artifact_store("s3://models/easeml", FileCache(tmp_path / "cache"))
    others: list[str] = []

    def meanwhile(call: str) -> bool:
        if "partNumber=2" in call and not others:
            others.append(end)
            if end == "is ended":
                store.put(tmp_path / "model")
            else:
                abort(server.files, *unfinished(server.files, "models/easeml"))
        return False

    server.hears = meanwhile
    reference = store.put(tmp_path / "model")
    assert others
    assert store.path(reference).read_bytes() == content
    assert unfinished(server.files, "models") == []


def test_a_file_is_kept_although_the_cache_cannot_be_written(server: S3Server, tmp_path: Path) -> None:
    """The figures of the cache are lost, as on a root file system that is read-only."""
    (tmp_path / "file").write_bytes(b"abc")
    store = artifact_store("s3://models/easeml", FileCache(tmp_path / "file" / "cache"))
    assert store.holds(store.put(tmp_path / "file"))


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Look through the bucket as if 40 days had passed; the names of rows are those in its ``named``."""
    named = set[NamedFile]()
    monkeypatch.setattr(orphans, "named_files", lambda _: named)
    monkeypatch.setattr(orphans, "ended_trials", lambda *_: [])
    rows, later = SimpleNamespace(begin=contextlib.nullcontext), time.time() + 40 * 86_400
    monkeypatch.setattr(orphans.time, "time", lambda: later)
    place = artifact_store("s3://models/easeml", FileCache(tmp_path / "cache"))
    look: Callable[[], orphans.Sweep] = lambda: orphans.find_in_bucket(rows, place, older_than=86_400.0)  # noqa: E731 - of a fixture
    return SimpleNamespace(
        named=named, lab=place.of_tenant("lab"), look=look, do=lambda found: orphans.clear_bucket(rows, place, found)
    )


def test_a_sweep_removes_nothing_that_a_row_names_or_that_was_stored_since_it_looked(
    server: S3Server, sweep: Any, tmp_path: Path
) -> None:
    (tmp_path / "one").write_bytes(b"one")
    one = sweep.lab.put(tmp_path / "one")
    key = f"models/easeml/tenants/lab/{one[7:9]}/{one[7:]}"
    first, second = sweep.look(), sweep.look()
    assert len(sweep.do(first).orphans) == 1
    assert sweep.do(second).orphans == []  # the sweep of another referee, which has seen the same
    found = sweep.look()
    assert len(found.trashed) == 1
    sweep.named.add(NamedFile("lab", one))
    assert sweep.do(found).trashed == []
    assert sweep.lab.holds(one)
    assert len(sweep.do(sweep.look()).needed) == 1
    assert server.files.exists(key)

    sweep.named.clear()
    server.files.pipe_file(key, b"damaged")
    found = sweep.look()
    time.sleep(1.1)  # S3 keeps whole seconds
    assert sweep.lab.put(tmp_path / "one") == one  # makes good what was damaged
    assert sweep.do(found).orphans == []
    assert server.files.cat_file(key) == b"one"


def test_a_sweep_gives_up_no_upload_of_others_in_the_same_bucket(server: S3Server, sweep: Any) -> None:
    digest = "ab" * 32
    ours = f"easeml/tenants/lab/ab/{digest}"
    others = ["easeml-test/ab/" + digest, "easeml/backup.tar", "easeml/ab/" + digest + ".tmp"]
    for name in (ours, *others):
        server.files.call_s3("create_multipart_upload", Bucket="models", Key=name)
    found = sweep.look()
    assert [one.key for one in found.uploads] == [f"models/{ours}"]
    sweep.do(found)
    assert sorted(one.key for one in unfinished(server.files, "models")) == sorted(f"models/{name}" for name in others)


def test_a_store_that_is_away_for_a_while_is_waited_for(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(object_stores, "_sleep", rests.append)
    server.hears = lambda _: len(rests) < 3
    (tmp_path / "model").write_bytes(b"abc")
    store = artifact_store("s3://models/easeml", FileCache(tmp_path / "cache"))
    reference = store.put(tmp_path / "model")
    server.hears = lambda _: len(rests) < 5
    assert store.path(reference).read_bytes() == b"abc"
    assert len(rests) >= 5


def _wrong_bucket(_: pytest.MonkeyPatch, __: S3Server) -> str:
    return "s3://modles/easeml"


def _no_credentials(patch: pytest.MonkeyPatch, _: S3Server) -> str:
    patch.delenv("AWS_ACCESS_KEY_ID")
    patch.delenv("AWS_SECRET_ACCESS_KEY")
    return "s3://models/easeml"


def _away(_: pytest.MonkeyPatch, server: S3Server) -> str:
    server.close()
    return "s3://models/easeml"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (_wrong_bucket, r"there is no such bucket at this endpoint; create it, or correct the address"),
        (_no_credentials, r"no credentials for the object store; give it AWS_ACCESS_KEY_ID"),
        (_away, r"the object store cannot be reached; is it running, and is AWS_ENDPOINT_URL"),
    ],
)
def test_errors_say_what_to_do_and_show_no_secret(
    prepare: Any, message: str, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_stores, "PATIENCE_SECONDS", 0.0)
    place = prepare(monkeypatch, server)
    s3fs.S3FileSystem.clear_instance_cache()
    store = artifact_store(place, FileCache(tmp_path / "cache"))
    (tmp_path / "model").write_bytes(b"abc")
    for act in (lambda: store.put(tmp_path / "model"), store.identity, lambda: store.mark("0" * 32)):
        with pytest.raises(ArtifactError, match=message) as caught:
            act()
        assert SECRET not in str(caught.value)
        assert os.environ["AWS_ENDPOINT_URL"] not in str(caught.value)
