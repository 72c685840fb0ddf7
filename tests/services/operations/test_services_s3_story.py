"""The story of an installation whose artifacts lie in a bucket of S3: trained, counted, damaged, found, and swept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from s3_server import S3Server, s3_server

from easeml_core.errors import ArtifactError
from easeml_core.files.cache import FileCache
from easeml_core.services.operations.artifact_store import artifact_status, verify_files
from easeml_core.services.operations.tenant_files import sweep_files
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import run_trial
from easeml_core.store.artifacts import orphans
from easeml_core.store.artifacts.remote import RemoteArtifactStore, artifact_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLACE = "s3://models/easeml"


@pytest.fixture
def bucket_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server(monkeypatch) as found:
        yield found


def on_machine(tmp_path: Path, name: str) -> RemoteArtifactStore:
    found = artifact_store(PLACE, FileCache(tmp_path / name, limit_mb=50))
    assert isinstance(found, RemoteArtifactStore)
    return found


def train(bare: Any, worker: RemoteArtifactStore, key: str) -> Any:
    (trial,) = suggest_trials(bare.worker, count=1, request_key=key).trials
    return run_trial(bare.worker, worker, trial_id=trial.trial_id, request_key=key)


def test_a_night_on_a_bucket(
    bare: Any, bucket_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare.artifacts = on_machine(tmp_path, "referee")
    candidates = [{"name": kind, "kind": kind} for kind in ("decision_tree", "nearest_centroid")]
    assert not bare.register("cancer", candidates=candidates).refused
    worker = on_machine(tmp_path, "worker")
    assert [train(bare, worker, key).state for key in "ab"] == ["SUCCEEDED"] * 2

    seen = artifact_status(bare.worker, worker)
    assert (seen.place, seen.missing, seen.unnamed, seen.unfinished_uploads) == (PLACE, 0, 0, 0)
    assert seen.cache is not None
    assert (seen.cache.misses, seen.cache.hits) == (1, 1)  # the data came for the first trial alone
    assert seen.cache.fetched_megabytes > 0
    assert seen.cache.fetched_megabytes_per_second
    assert verify_files(bare.worker, worker).faulty == ()

    keys = sorted(key for key in bucket_server.files.find("models/easeml") if "/tenants/" in key)
    whole = {key: bucket_server.files.cat_file(key) for key in keys}
    bucket_server.files.pipe_file(keys[0], whole[keys[0]][:-1])
    bucket_server.files.pipe_file(keys[1], b"X" + whole[keys[1]][1:])
    bucket_server.files.rm_file(keys[2])
    found = verify_files(bare.worker, worker)
    assert {one.reference[7:]: one.fault.partition(",")[0] for one in found.faulty} == {
        keys[0][-64:]: "its content is another one: it was truncated or corrupted",
        keys[1][-64:]: "its content is another one: it was truncated or corrupted",
        keys[2][-64:]: "it is missing",
    }
    fresh = on_machine(tmp_path, "another").of_tenant(found.faulty[0].tenant)
    for key in keys[:2]:
        with pytest.raises(ArtifactError, match="was changed after it was stored"):
            fresh.path(f"sha256:{key[-64:]}")
    assert artifact_status(bare.worker, worker).missing == 1
    for key, content in whole.items():
        bucket_server.files.pipe_file(key, content)
    assert verify_files(bare.worker, worker).faulty == ()

    _sweep(bare, worker, bucket_server, tmp_path, monkeypatch, named=set(keys))


def _sweep(
    bare: Any,
    worker: RemoteArtifactStore,
    bucket_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: set[str],
) -> None:
    """Orphans go in two steps; what a row names between the two is given to readers, and returns."""
    files = bucket_server.files
    lab = worker.of_tenant(next(iter(worker.tenants())))
    (tmp_path / "orphan").write_bytes(b"left by a process that was killed")
    orphan = lab.put(tmp_path / "orphan")
    assert sweep_files(bare.worker, worker, days=1).orphans == ()  # too young
    left = f"easeml/{orphan[7:9]}/{orphan[7:]}"
    files.call_s3("create_multipart_upload", Bucket="models", Key=left)  # in 2010, says this server
    later = time.time() + 40 * 86_400
    monkeypatch.setattr(orphans.time, "time", lambda: later)
    seen = sweep_files(bare.worker, worker, dry_run=True)
    assert ([one.path[-64:] for one in seen.orphans], seen.removed, seen.uploads) == ([orphan[7:]], 0, 1)
    assert lab.holds(orphan)

    done = sweep_files(bare.worker, worker)
    assert (done.removed, done.uploads, artifact_status(bare.worker, worker).unfinished_uploads) == (1, 1, 0)
    assert artifact_status(bare.worker, worker).put_aside == 1
    with lab.copy(orphan) as copy:  # as for one that a row has named meanwhile
        assert copy.read_bytes() == (tmp_path / "orphan").read_bytes()
    with monkeypatch.context() as patch:
        rows = orphans.named_files
        tenant = lab.place.rpartition("/")[2]
        patch.setattr(orphans, "named_files", lambda tx: rows(tx) | {orphans.NamedFile(tenant, orphan)})
        assert sweep_files(bare.worker, worker).restored == 1
    assert artifact_status(bare.worker, worker).put_aside == 0
    assert sweep_files(bare.worker, worker).removed == 1
    assert sweep_files(bare.worker, worker).trashed == 1
    assert not lab.holds(orphan)
    assert {key for key in files.find("models/easeml") if "/tenants/" in key} == named
