"""Artifacts in a bucket, from the sealing to a verdict; and hostile data: each is refused, and nothing is lost."""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from registering import register_study

from easeml_core.files.cache import FileCache
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.reports.overview import study_state
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import run_trial
from easeml_core.store.artifacts.remote import artifact_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.journey


@pytest.fixture
def bucket() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def test_a_study_lives_in_a_bucket(bare: Any, bucket: Any, tmp_path: Path) -> None:
    bare.artifacts = artifact_store("memory://bucket/easeml", FileCache(tmp_path / "referee", limit_mb=50))
    assert not bare.register("cancer", candidates=[{"name": "tree", "kind": "decision_tree"}]).refused
    (suggested,) = suggest_trials(bare.worker, count=1, request_key="s").trials
    worker = artifact_store("memory://bucket/easeml", FileCache(tmp_path / "worker", limit_mb=50))
    done = run_trial(bare.worker, worker, trial_id=suggested.trial_id, request_key="w")
    assert (done.state, done.failure) == ("SUCCEEDED", None)
    reference = bare.one("SELECT artifact FROM work.models WHERE id = :id", id=done.model_id)
    assert f"/bucket/easeml/tenants/lab/{reference[7:9]}/{reference[7:]}" in bucket.store
    with worker.of_tenant("lab").staged(bare.one("SELECT artifact FROM work.data_versions")) as staged:
        assert staged.fetched == 0  # the trial has brought the data to this machine
    assert not bare.gate(done.model_id, study="cancer").refused
    bucket.pipe_file(f"/bucket/easeml/tenants/lab/{reference[7:9]}/{reference[7:]}", b"not the model")
    bare.artifacts.cache.clear()
    answer = bare.meter(done.model_id, study="cancer")
    assert answer.refused
    assert answer.message.startswith("the referee could not answer this request; its log says why")


def bomb(side: int) -> bytes:
    """A PNG that claims many pixels in few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    packed = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


HOSTILE = {
    "csv:wide.csv": "has more than 2,000 columns",
    "csv:empty.csv": "column 1 has no value in any row that has a target",
    "csv:one.csv": "the labels are all the same; a classifier needs at least two classes",
    "csv:holes.csv": "is larger than 64 MB",
    "csv:binary.csv": "is not UTF-8",
    "images:photos": "claims .*pixels",
    "npy:arrays": "holds object; allowed: numbers|cannot be read|is damaged|is no",
}


def write_hostile(folder: Path) -> None:
    (folder / "photos" / "a").mkdir(parents=True)
    (folder / "photos" / "b").mkdir()
    (folder / "photos" / "a" / "1.png").write_bytes(bomb(60_000))
    (folder / "photos" / "b" / "1.png").write_bytes(bomb(8))
    (folder / "arrays").mkdir()
    pickled = b"cos\nsystem\n(S'touch executed'\ntR."
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    for name in ("inputs", "targets"):
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pickled
        (folder / "arrays" / f"{name}.npy").write_bytes(content)
    (folder / "wide.csv").write_bytes(b"a," * 10_000_000 + b"a\n")
    (folder / "empty.csv").write_text("x,z,label\n" + "nan,1,p\nNaN,2,q\n" * 400)
    (folder / "one.csv").write_text("x,label\n" + "".join(f"{n},p\n" for n in range(800)))
    (folder / "binary.csv").write_bytes(bytes(range(256)) * 100)
    with (folder / "holes.csv").open("wb") as file:
        file.truncate(1 << 40)


def test_hostile_data_are_refused_each_with_its_reason_and_the_next_study_is_served(
    bare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_hostile(tmp_path / "data" / "lab")
    judge = Referee(bare.referee, bare.artifacts, data=tmp_path / "data")
    for number, (source, reason) in enumerate(HOSTILE.items()):
        target = "label" if source.startswith("csv") else None
        given = {"source": source, "target": target, "request_key": bare.key()}
        filed = register_study(bare.worker, tenant="lab", study=f"hostile-{number}", **given)
        while judge.answer_one() is not None:
            pass
        answer = answer_of(bare.worker, filed.request_id)
        assert answer is not None
        assert answer.refused
        assert re.search(reason, answer.message), answer.message
        assert study_state(bare.worker, study=f"hostile-{number}") == "REFUSED"
    assert bare.one("SELECT count(*) FROM work.data_versions") == bare.one("SELECT count(*) FROM sealed.test_sets") == 0
    assert not (tmp_path / "executed").exists()
    assert not bare.register("cancer").refused
