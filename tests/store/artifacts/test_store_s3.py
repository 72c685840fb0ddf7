"""Artifacts in a bucket of S3: uploads in parts that survive a kill, and errors that say what to do."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import s3fs
from s3_server import SECRET, S3Server, s3_server

from easeml_core.errors import ArtifactError
from easeml_core.remote import object_faults
from easeml_core.remote.cache import FileCache
from easeml_core.remote.uploads import unfinished
from easeml_core.store.artifacts.remote import artifact_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PART = 5 << 20
_PUT = """
import sys
from easeml_core.remote import uploads
from easeml_core.remote.cache import FileCache
from easeml_core.store.artifacts.remote import artifact_store
uploads.upload.__kwdefaults__["part_bytes"] = int(sys.argv[3])
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


def test_a_store_that_is_away_for_a_while_is_waited_for(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(object_faults, "_sleep", rests.append)
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
    monkeypatch.setattr(object_faults, "PATIENCE_SECONDS", 0.0)
    place = prepare(monkeypatch, server)
    s3fs.S3FileSystem.clear_instance_cache()
    store = artifact_store(place, FileCache(tmp_path / "cache"))
    (tmp_path / "model").write_bytes(b"abc")
    for act in (lambda: store.put(tmp_path / "model"), store.identity, lambda: store.mark("0" * 32)):
        with pytest.raises(ArtifactError, match=message) as caught:
            act()
        assert SECRET not in str(caught.value)
        assert os.environ["AWS_ENDPOINT_URL"] not in str(caught.value)
