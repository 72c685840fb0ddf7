"""Files that no row names: found after a grace period, removed, and never one that something needs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import ConfigError, StateError
from easeml_core.files.cache import FileCache
from easeml_core.files.object_stores import Unfinished
from easeml_core.services.operations import tenant_files
from easeml_core.services.operations.tenant_files import sweep_files
from easeml_core.services.referee.claiming import RefereeLease
from easeml_core.services.referee.housekeeping import Housekeeper
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import run_trial
from easeml_core.store.artifacts import orphans
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.artifacts.remote import TRASH, RemoteArtifactStore, artifact_store

if TYPE_CHECKING:
    from pathlib import Path

LONG_AGO, LATELY = 40, 5


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - 86_400 * days,) * 2)


def lay(root: Path, folder: str, name: str | None = None, *, content: str = "x", days: float = LONG_AGO) -> Path:
    """Put a file where a process that was killed may have left it."""
    digest = hashlib.sha256(content.encode()).hexdigest()
    path = root / folder / (f"{digest[:2]}/{digest}" if name is None else name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    age(path, days)
    return path


def files(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def trained(make_study: Any, database: Any, artifacts: Any) -> ArtifactStore:
    """A study with a trained model; all of its files were written long ago."""
    make_study(candidates=[{"name": kind, "kind": kind} for kind in ("decision_tree", "nearest_centroid")])
    place = ArtifactStore(artifacts.root)
    place.mark("0123456789abcdef" * 2)
    (trial,) = suggest_trials(database.worker, count=1, request_key="k").trials
    assert run_trial(database.worker, place, trial_id=trial.trial_id, request_key="w").state == "SUCCEEDED"
    for path in files(place.root):
        age(path, LONG_AGO)
    return place


def test_what_no_row_names_is_removed_and_nothing_else(trained: ArtifactStore, database: Any) -> None:
    root, needed = trained.root, files(trained.root)
    assert sweep_files(database.worker, trained).orphans == ()
    (model,) = (path for path in needed if path.name == _model(database))
    ended, waiting = _trials(database)
    orphans = {
        lay(root, "tenants/lab"),
        lay(root, "tenants/lab", "new-0123"),
        lay(root, "tenants/garden", content="of a tenant without a study"),
        lay(root, "tenants/garden", f"{model.name[:2]}/{model.name}", content="named by a row of another tenant"),
        lay(root, f"tenants/lab/checkpoints/{ended}", "ab/" + "a" * 64),
        lay(root, "."),
        lay(root, ".", "new-4567"),
    }
    kept = {
        lay(root, "tenants/lab", content="young", days=LATELY),
        lay(root, f"tenants/lab/checkpoints/{waiting}", "ab/" + "a" * 64),
        lay(root, f"tenants/lab/uploads/{datetime.now(UTC).date()}", "ab/" + "a" * 64),
        lay(root, "tenants/lab", "notes.txt"),
        lay(root, ".", "easeml.conf"),
        lay(root, ".", f"{model.name[:2]}/{model.name}", content="where an earlier version has kept it"),
        lay(root, "tenants/No tenant", "new-89"),
    }
    folders = [
        root / "tenants" / name
        for name in (f".new-{'0' * 32}", f"lab/.new-{'1' * 32}", f"lab/.new-{'2' * 32}", "new-york")
    ]
    for folder, days in zip(folders, (LONG_AGO, LONG_AGO, LATELY, LONG_AGO), strict=True):
        folder.mkdir()
        age(folder, days)
    found = sweep_files(database.worker, trained, dry_run=True)
    assert [folder.exists() for folder in folders] == [True, True, True, True]
    assert ({root / one.path for one in found.orphans}, found.removed) == (orphans, 0)
    assert all(39 < one.days < 41 for one in found.orphans)
    assert files(root) == needed | orphans | kept
    idle_work = Housekeeper(database.referee, trained, RefereeLease(database.referee), {}, orphan_days=30.0)
    while idle_work.work():
        pass
    assert files(root) == needed | kept
    assert [folder.exists() for folder in folders] == [False, False, True, True]
    lay(root, "tenants/lab", content="found a day later")
    while idle_work.work():
        pass
    assert files(root) > needed | kept
    assert sweep_files(database.worker, trained, days=1).removed == 2  # the young one, too
    (trial,) = suggest_trials(database.worker, count=1, request_key="k2").trials
    assert run_trial(database.worker, trained, trial_id=trial.trial_id, request_key="w2").state == "SUCCEEDED"


def _model(database: Any) -> str:
    with database.worker.begin() as tx:
        query = "SELECT artifact FROM work.models WHERE trial_id IS NOT NULL"
        return str(tx.exec_driver_sql(query).scalar()).removeprefix("sha256:")


def _trials(database: Any) -> tuple[int, int]:
    """A trial that has ended, and one that has not."""
    (waiting,) = suggest_trials(database.worker, count=1, request_key="k2").trials
    return waiting.trial_id - 1, waiting.trial_id


def test_in_a_bucket_trash_and_begun_uploads_have_a_day_to_be_asked_for(
    trained: ArtifactStore, database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = artifact_store("s3://models/easeml", FileCache(tmp_path / "cache", limit_mb=1))
    assert isinstance(bucket, RemoteArtifactStore)
    now, days = time.time(), 86_400.0

    def put_aside(number: int, age_in_days: float) -> orphans.StoredFile:
        digest = f"{number:064x}"
        return orphans.StoredFile(PurePosixPath(TRASH, digest[:2], digest), None, 1, now - age_in_days * days)

    fresh, old = put_aside(1, 0.5), put_aside(2, 1.5)
    uploads = [Unfinished("models/easeml/x", name, now - age * days) for name, age in (("new", 0.5), ("old", 1.5))]
    monkeypatch.setattr(orphans, "stored_files", lambda _: [fresh, old])
    monkeypatch.setattr(orphans, "uploads_of", lambda _: uploads)
    found = orphans.find_in_bucket(database.worker, bucket, older_than=0.0)
    assert (found.trashed, [one.upload_id for one in found.uploads]) == ([old], ["old"])
    assert orphans.find_in_bucket(database.worker, bucket, older_than=2 * days).uploads == []


def test_a_file_that_is_stored_again_stays_until_its_row_is_there(
    trained: ArtifactStore, database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was killed long ago; another one stores the same content between the list and the removal."""
    orphan, lab = lay(trained.root, "tenants/lab"), trained.of_tenant("lab")
    (tmp_path / "again").write_text("x")
    remove = tenant_files.remove_orphan

    def later(*given: Any, **named: Any) -> bool:
        assert lab.put(tmp_path / "again") == f"sha256:{orphan.name}"
        return remove(*given, **named)

    monkeypatch.setattr(tenant_files, "remove_orphan", later)
    assert sweep_files(database.worker, trained).removed == 0
    assert orphan.read_text() == "x"
    monkeypatch.undo()
    age(orphan, LONG_AGO)
    with orphan.open() as opened:  # another process reads it in `put`, and is about to make it young
        fcntl.flock(opened, fcntl.LOCK_SH)
        assert sweep_files(database.worker, trained).removed == 0
    with orphan.open() as opened:  # it is being removed: what is stored now is stored anew
        fcntl.flock(opened, fcntl.LOCK_EX)
        before = orphan.stat().st_ino
        lab.put(tmp_path / "again")
        assert orphan.stat().st_ino != before
    assert sweep_files(database.worker, trained).removed == 0
    age(orphan, LONG_AGO)
    assert sweep_files(database.worker, trained).removed == 1


def test_a_sweep_that_could_take_too_much_is_refused(
    database: Any, artifacts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="days must be from 1 to"):
        sweep_files(database.worker, artifacts, days=0.5)
    monkeypatch.setattr(tenant_files, "needs_token", lambda _: True)
    with pytest.raises(StateError, match="sees the rows of some tenants only"):
        sweep_files(database.worker, artifacts)
    monkeypatch.undo()
    bucket = RemoteArtifactStore("memory://orphans/easeml", FileCache(tmp_path / "cache"))
    (tmp_path / "x").write_text("x")
    reference = bucket.of_tenant("lab").put(tmp_path / "x")
    found = sweep_files(database.worker, bucket, days=0, dry_run=True)
    assert [one.path for one in found.orphans] == [f"tenants/lab/{reference[7:9]}/{reference[7:]}"]
