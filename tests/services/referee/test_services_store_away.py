"""An artifact store that is away refuses nothing: what needs its files waits, and goes on once it is back."""

from __future__ import annotations

import contextlib
import errno
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fed_rows import as_pairs, bring, new_rows
from registering import register_study

from easeml_core.errors import ArtifactError, Blame, blame_of
from easeml_core.services.datasets.feed import file_refresh, list_feeds
from easeml_core.services.operations.artifact_store import checked_artifacts
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.studies.uploads import forget_uploads, keep_upload
from easeml_core.services.test_sets.upload import fed_hashes
from easeml_core.store.artifacts import local
from easeml_core.store.artifacts.orphans import files_of, remove_ended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from easeml_core.store.artifacts.local import ArtifactStore

TODAY = datetime.now(UTC).date()
GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "estimator": "paper"}
METER = {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4}
FAULTS = ("not mounted", errno.ESTALE, errno.EIO)


@pytest.fixture
def lab(bare: Any) -> Any:
    """An installation whose store was adopted, as that of a referee is."""
    checked_artifacts(bare.referee, bare.artifacts)
    return bare


@contextlib.contextmanager
def away(artifacts: ArtifactStore, fault: str | int) -> Iterator[None]:
    """The folder of a store that is not mounted is there, and empty; others answer with an errno."""
    if isinstance(fault, int):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(local, "_step", failing(fault))
            yield
        return
    elsewhere = artifacts.root.with_name("elsewhere")
    artifacts.root.rename(elsewhere)
    artifacts.root.mkdir()
    yield
    artifacts.root.rmdir()  # nothing was written into it
    elsewhere.rename(artifacts.root)


def failing(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def answered(lab: Any, request_id: int) -> Any:
    """The answer after every request was looked at that is not put off."""
    while Referee(lab.referee, lab.artifacts).answer_one() is not None:
        pass
    return answer_of(lab.worker, request_id)


def let_pass(lab: Any) -> None:
    lab.as_superuser("UPDATE sealed.put_offs SET until = put_off_at + interval '1 ms'")


def test_what_was_fed_waits_until_the_store_is_mounted(lab: Any) -> None:
    lab.register("full")
    bring(lab, as_pairs(*new_rows(5)))
    asked = file_refresh(lab.worker, study="full", request_key="refresh").request_id
    with away(lab.artifacts, "not mounted"):
        assert answered(lab, asked) is None
        assert [one.state for one in list_feeds(lab.worker, study="full")] == ["waiting"]
    let_pass(lab)
    assert answered(lab, asked).message.startswith("study full has version 2 of its data; training rows: 179")


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOSPC])
def test_a_fault_at_one_feed_refuses_none(lab: Any, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The data were read by then, perhaps out of a cache. A feed whose file is gone is refused by itself."""
    lab.register("full")
    for seed in (1, 2):
        bring(lab, as_pairs(*new_rows(5, seed)))
    first, second = (digest[7:] for (digest,) in lab.rows("SELECT artifact FROM work.feeds ORDER BY id"))
    asked = file_refresh(lab.worker, study="full", request_key="refresh").request_id
    opened = local._open_plain

    def failing_at_one(path: Any, folder: Any = None) -> Any:
        return failing(number)() if path == second else opened(path, folder)

    with monkeypatch.context() as patch:
        patch.setattr(local, "_open_plain", failing_at_one)
        assert answered(lab, asked) is None
        with lab.referee.begin() as tx, pytest.raises(ArtifactError, match="cannot be read"):
            fed_hashes(tx, lab.artifacts.of_tenant("lab"), 1, lab.open_parts())  # a new set might have its rows
    let_pass(lab)
    lab.artifacts.of_tenant("lab").discard(f"sha256:{first}")
    assert answered(lab, asked).message.startswith("study full has version 2 of its data; training rows: 179")
    assert {one.state for one in list_feeds(lab.worker, study="full")} == {"refused", "taken"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_registration_from_an_upload_waits_for_the_store(lab: Any, tmp_path: Path, fault: str | int) -> None:
    values = np.random.default_rng(1).normal(size=(600, 2))
    lines = ["a,b,label", *(f"{a:.6f},{b:.6f},{'yes' if a + b > 0 else 'no'}" for a, b in values)]
    (tmp_path / "table").write_text("\n".join(lines))
    upload = keep_upload(lab.artifacts, tmp_path / "table", tenant="lab", file="a.csv", today=TODAY)
    given = {"gate": GATE, "meter": METER, "target": "label", "request_key": "register"}
    asked = register_study(lab.worker, tenant="lab", study="mine", source=f"csv:{upload}", **given).request_id
    with away(lab.artifacts, fault):
        assert answered(lab, asked) is None
        with pytest.raises(ArtifactError):
            forget_uploads(lab.referee, lab.artifacts, TODAY)
    let_pass(lab)
    assert answered(lab, asked).message.startswith("study mine is active")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_is_away_is_not_empty(lab: Any, tmp_path: Path, fault: str | int) -> None:
    (tmp_path / "abc").write_text("abc")
    place = lab.artifacts.of_tenant("lab")
    abc = place.put(tmp_path / "abc")
    files_of(place, 7).put(tmp_path / "abc")
    looks = {
        "holds": lambda: place.holds(abc),
        "holds itself": lambda: place.holds_itself(abc),
        "parts": lambda: place.parts("checkpoints"),
        "tenants": lab.artifacts.tenants,
        "fault of": lambda: place.fault_of(abc),
        "path": lambda: place.path(abc),
        "put": lambda: place.put(tmp_path / "abc"),
        "part": lambda: place.part("uploads"),
    }
    with away(lab.artifacts, fault):
        for name, look in looks.items():
            with pytest.raises(ArtifactError) as caught:
                look()
            assert blame_of(caught.value) is Blame.PASSING, name
        assert remove_ended(lab.worker, place) == []  # no reason to end what has trained
    assert place.holds(abc)
    assert not place.holds("sha256:" + "0" * 64)
    with pytest.raises(ArtifactError, match="is missing under") as caught:
        place.path("sha256:" + "0" * 64)
    assert blame_of(caught.value) is Blame.OURS


def test_a_mark_that_cannot_be_read_lets_no_tenant_read_the_root(lab: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Else who writes a hash into a row is given another tenant's file while the store has a fault."""
    (tmp_path / "abc").write_text("abc")
    abc = lab.artifacts.put(tmp_path / "abc")
    lab.artifacts.note_moved()
    place, stat = lab.artifacts.of_tenant("garden"), os.stat

    def failing_at_mark(path: Any, **more: Any) -> Any:
        return failing(errno.EIO)() if path == local.MOVED else stat(path, **more)

    monkeypatch.setattr(local.os, "stat", failing_at_mark)
    for look in (place.holds, place.path):
        with pytest.raises(ArtifactError):
            look(abc)
