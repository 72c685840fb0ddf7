"""Data that lie elsewhere: what bringing them here takes is logged, is paid for, and may be cancelled."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from easeml_core.files import object_stores
from easeml_core.files.cache import FileCache
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import cancel_trial, run_trial
from easeml_core.store.artifacts.remote import artifact_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOW_SECONDS = 2.0


@pytest.fixture
def staged(bare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, int]]:
    """A worker whose data are slow to come, and a trial that needs them."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    bare.artifacts = artifact_store("memory://bucket/easeml", FileCache(tmp_path / "referee", limit_mb=50))
    assert not bare.register("cancer", candidates=[{"name": "tree", "kind": "decision_tree"}]).refused
    (suggested,) = suggest_trials(bare.worker, count=1, request_key="s").trials
    opened = object_stores.ObjectFile.opened

    @contextlib.contextmanager
    def slowly(*given: Any) -> Iterator[Any]:
        time.sleep(SLOW_SECONDS)
        with opened(*given) as found:
            yield found

    monkeypatch.setattr(object_stores.ObjectFile, "opened", slowly)
    yield artifact_store("memory://bucket/easeml", FileCache(tmp_path / "worker", limit_mb=50)), suggested.trial_id
    files.store.clear()


def test_what_staging_takes_is_logged_and_paid_for(bare: Any, staged: tuple[Any, int]) -> None:
    worker, trial_id = staged
    lines: list[str] = []
    done = run_trial(bare.worker, worker, trial_id=trial_id, request_key="w", log=lines.append)
    assert done.state == "SUCCEEDED"
    assert done.cost_seconds > SLOW_SECONDS
    assert any(line.startswith(f"trial {trial_id}: staging artifact ") for line in lines)


def test_a_trial_may_be_cancelled_while_its_data_come(bare: Any, staged: tuple[Any, int]) -> None:
    worker, trial_id = staged

    def cancel(line: str) -> None:
        if "staging" in line:
            cancel_trial(bare.worker, trial_id=trial_id)
            time.sleep(1.1)  # a cancel is looked for once a second

    done = run_trial(bare.worker, worker, trial_id=trial_id, request_key="w", log=cancel)
    assert (done.state, done.model_id) == ("CANCELLED", None)
