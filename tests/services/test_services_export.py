"""A study's open facts leave in one file and come back as a new study; nothing sealed does, and no hostile file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easeml_core.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from easeml_core.services import export_file
from easeml_core.services.export_file import read_export
from easeml_core.services.exporting import export_study
from easeml_core.services.importing import import_study, look_into
from easeml_core.services.referee import Referee
from easeml_core.services.stream import run_device
from easeml_core.store import studies
from easeml_core.store.rows import rows

if TYPE_CHECKING:
    from collections.abc import Callable

CANDIDATES = [
    {"name": "tree", "kind": "decision_tree", "parameters": {"max_depth": 2}, "devices": ["cpu"]},
    {"name": "bayes", "kind": "gaussian_naive_bayes"},
]


@pytest.fixture
def study(make_study: Callable[..., str]) -> str:
    """A study with limits."""
    limits = {"weight": 2.0, "priority": 3, "target_quality": 0.999, "budget_seconds": 900.0}
    return make_study("cancer", candidates=CANDIDATES, **limits)


@pytest.fixture
def trained(database: Any, artifacts: Any, study: str) -> str:
    """The same with a finished trial."""
    how = {"device": "cpu", "request_key": "k", "max_trials": 1, "poll_seconds": 0.1}
    run_device(database.worker, artifacts, log=lambda _: None, **how)
    return study


@pytest.fixture
def exported(database: Any, artifacts: Any, study: str, tmp_path: Path) -> Path:
    path = tmp_path / "cancer.zip"
    export_study(database.worker, artifacts, study=study, path=path, with_data=True)
    return path


def sample() -> bytes:
    """A small export, made by hand."""
    texts = {
        "definition.json": b'{"tenant": "a", "source": "sklearn:iris"}\n',
        "trials.jsonl": b'{"quality": 0.5}\n',
        "candidates.jsonl": b'{"name": "tree", "kind": "decision_tree"}\n',
    }
    texts[f"artifacts/{hashlib.sha256(b'x').hexdigest()}"] = b"x"
    listed = {name: {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)} for name, text in texts.items()}
    manifest = json.dumps({"format": "easeml-study/1", "study": "s", "files": listed}).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in {"manifest.json": manifest, **texts}.items():
            packed.writestr(name, text)
    return made.getvalue()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The hand-made export in a file."""
    path = tmp_path / "small.zip"
    path.write_bytes(sample())
    return path


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The same file with other contents, and a manifest that lists them truly."""
    files = contents(path)
    change(files)
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
        for name, text in files.items()
        if name != "manifest.json"
    }
    files["manifest.json"] = json.dumps(manifest).encode()
    target = path.with_name("other.zip")
    with zipfile.ZipFile(target, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return target


def test_what_is_in_the_file(trained: str, database: Any, artifacts: Any, tmp_path: Path) -> None:
    told = export_study(database.worker, artifacts, study=trained, path=tmp_path / "f.zip", with_data=True)
    assert (told["rows"]["trials"], told["files"]) == (1, 1)
    files = contents(tmp_path / "f.zip")
    with database.worker.begin() as tx:
        study = studies.get_study(tx, "cancer")
        data = studies.latest_data_version(tx, study.id)
    assert f"artifacts/{data.artifact.removeprefix('sha256:')}" in files
    trials = [json.loads(line) for line in files["trials.jsonl"].splitlines()]
    assert [trial["state"] for trial in trials] == ["SUCCEEDED"]
    assert trials[0]["candidate"] in ("tree", "bayes")
    assert all(0.5 < trial["quality"] <= 1 and trial["cost_seconds"] > 0 for trial in trials)
    (version,) = [json.loads(line) for line in files["data_versions.jsonl"].splitlines()]
    assert version["rows"] == {"train": data.train_rows, "validation": data.validation_rows}
    manifest = json.loads(files["manifest.json"])
    assert (manifest["format"], manifest["study"]) == ("easeml-study/1", "cancer")
    for name, listed in manifest["files"].items():
        assert listed == {"sha256": hashlib.sha256(files[name]).hexdigest(), "bytes": len(files[name])}


def test_nothing_sealed_is_in_it(exported: Path, database: Any) -> None:
    """No label, input, secret or fingerprint of a sealed set, and no size of one."""
    text = b"\n".join(text for name, text in contents(exported).items() if not name.startswith("artifacts/"))
    with database.referee.begin() as tx:
        (secret,) = rows(tx, "SELECT secret::text AS it FROM sealed.installation")
        prints = [r.it for r in rows(tx, "SELECT fingerprint AS it FROM sealed.test_sets")]
        sizes = [r.it for r in rows(tx, "SELECT rows AS it FROM work.test_sets")]
    assert len(prints) == 2
    for hidden in (secret.it, *prints):
        assert hidden.encode() not in text
    for table in contents(exported):
        assert not any(word in table for word in ("sealed", "test_set", "ledger", "label"))
    for size in sizes:
        assert f'": {size},'.encode() not in text


def test_the_same_facts_give_the_same_bytes(database: Any, artifacts: Any, exported: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    told = export_study(database.worker, artifacts, study="cancer", path=again, with_data=True)
    assert again.read_bytes() == exported.read_bytes()
    assert (told["files"], told["bytes"]) == (1, again.stat().st_size)
    small = tmp_path / "small.zip"
    assert export_study(database.worker, artifacts, study="cancer", path=small)["files"] == 0
    assert small.stat().st_size < again.stat().st_size


def test_a_file_that_is_there_stays(database: Any, artifacts: Any, exported: Path) -> None:
    before = exported.read_bytes()
    with pytest.raises(InvalidInputError, match="is there already; give another name, or remove it"):
        export_study(database.worker, artifacts, study="cancer", path=exported)
    with pytest.raises(InvalidInputError, match="cannot be written: no such file or directory"):
        export_study(database.worker, artifacts, study="cancer", path=exported.parent / "no" / "f.zip")
    with pytest.raises(NotFoundError, match="there is no study 'dog'"):
        export_study(database.worker, artifacts, study="dog", path=exported.with_name("dog.zip"))
    assert exported.read_bytes() == before
    assert sorted(path.name for path in exported.parent.glob("*.zip")) == ["cancer.zip"]
    assert list(exported.parent.glob(".easeml-export-*")) == []


def test_it_comes_back_as_a_new_study(database: Any, artifacts: Any, exported: Path) -> None:
    filed = import_study(database.worker, artifacts, path=exported, study="again")
    assert import_study(database.worker, artifacts, path=exported, study="again") == filed  # the same, not another
    Referee(database.referee, artifacts).answer_one()
    with database.worker.begin() as tx:
        old, new = (studies.get_study(tx, name) for name in ("cancer", "again"))
        one, two = (
            [(c.name, c.kind, c.parameters, c.devices) for c in studies.list_candidates(tx, s.id)] for s in (old, new)
        )
        trials = rows(tx, "SELECT 1 FROM work.trials WHERE study_id = :id", id=new.id)
    assert one == two
    assert new.state == "ACTIVE"
    for name in (
        "tenant",
        "source",
        "target",
        "metric",
        "task",
        "hit",
        "weight",
        "priority",
        "budget_seconds",
        "target_quality",
    ):
        assert getattr(new, name) == getattr(old, name), name
    for name in ("gate", "meter", "joint", "direct", "training", "split"):
        assert new.config[name] == old.config[name], name
    assert trials == []  # old results were measured on other rows


def test_its_own_name_is_taken_here(database: Any, artifacts: Any, exported: Path) -> None:
    with pytest.raises(AlreadyExistsError, match="cancer"):
        import_study(database.worker, artifacts, path=exported)


def test_tenant_and_source_may_be_others(database: Any, artifacts: Any, exported: Path) -> None:
    changes = {"tenant": "clinic", "source": "sklearn:wine"}
    import_study(database.worker, artifacts, path=exported, study="wine", changes=changes)
    with database.worker.begin() as tx:
        found = studies.get_study(tx, "wine")
    assert (found.tenant, found.source) == ("clinic", "sklearn:wine")


def test_a_shared_set_and_a_second_meter_come_back(
    database: Any, artifacts: Any, make_study: Any, tmp_path: Path
) -> None:
    gate = {"condition": "n - o > 0 +/- 0.2", "adaptivity": "full", "steps": 3}
    meter = {"ranges": (0.2, 0.6), "tolerance": 0.2, "steps": 4}
    shared = {"reliability": 0.8, "gate_share": 0.4}
    make_study("joint", gate=gate, meter=meter, joint=shared, candidates=[{"name": "tree", "kind": "decision_tree"}])
    path = tmp_path / "joint.zip"
    export_study(database.worker, artifacts, study="joint", path=path)
    import_study(database.worker, artifacts, path=path, study="again")
    with database.worker.begin() as tx:
        old, new = (studies.get_study(tx, name) for name in ("joint", "again"))
    assert new.config == old.config


def test_a_passed_deadline_is_left_out(database: Any, artifacts: Any, small: Path) -> None:
    def late(files: dict[str, bytes]) -> None:
        definition = json.loads(files["definition.json"]) | {"deadline": "2020-01-01T00:00:00+00:00"}
        files["definition.json"] = json.dumps(definition).encode()

    import_study(database.worker, artifacts, path=rewritten(small, late), study="again")
    with database.worker.begin() as tx:
        assert studies.get_study(tx, "again").deadline is None


def test_look_into_needs_no_database(exported: Path) -> None:
    found = look_into(exported)
    assert (found["study"], found["candidates"], found["rows"]["trials"]) == ("cancer", ["tree", "bayes"], 0)
    assert found["definition"]["source"] == "sklearn:breast_cancer"


def put(name: str, text: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.__setitem__(name, text)


HOSTILE = {
    "a path": (put("../../etc/passwd", b""), "a file named '../../etc/passwd'"),
    "an absolute path": (put("/etc/passwd", b""), "a file named '/etc/passwd'"),
    "code": (put("evil.py", b"import os"), "a file named 'evil.py'"),
    "a wrong hash": (put(f"artifacts/{'0' * 64}", b"x"), "was changed after it was written"),
    "no JSON": (put("trials.jsonl", b"{\n"), "trials.jsonl of the export is no JSON"),
    "no mapping": (put("trials.jsonl", b"[1]\n"), "must hold mappings, got a list"),
    "deep": (put("definition.json", b"[" * 100_000), "definition.json of the export is no JSON"),
    "more settings": (
        put("definition.json", b'{"tenant": "a", "source": "b", "request_key": "k"}'),
        "knows no 'request_key'",
    ),
    "no tenant": (put("definition.json", b'{"source": "sklearn:iris"}'), "lacks 'tenant'"),
    "a bad kind": (put("candidates.jsonl", b'{"name": "x", "kind": "nothing"}\n'), "nothing"),
    "a bad name": (put("candidates.jsonl", b'{"name": 7, "kind": "decision_tree"}\n'), "7"),
    "a bad weight": (put("definition.json", b'{"tenant": "a", "source": "sklearn:iris", "weight": -1}'), "weight"),
    "no definition": (lambda files: files.pop("definition.json"), "no export of a study"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused(what: str, database: Any, artifacts: Any, small: Path) -> None:
    change, words = HOSTILE[what]
    with pytest.raises(InvalidInputError) as error:
        import_study(database.worker, artifacts, path=rewritten(small, change), study="again")
    assert words in str(error.value)
    with database.worker.begin() as tx, pytest.raises(NotFoundError):
        studies.get_study(tx, "again")


def test_a_changed_file_is_refused(small: Path, tmp_path: Path) -> None:
    files = contents(small) | {"trials.jsonl": b'{"quality": 1.0}\n'}
    target = tmp_path / "changed.zip"
    with zipfile.ZipFile(target, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    with pytest.raises(InvalidInputError, match=r"trials\.jsonl of the export was changed"):
        look_into(target)


def test_a_bomb_is_not_unpacked(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = rewritten(small, put("curves.jsonl", b" " * 3_000_000))
    monkeypatch.setattr(export_file, "MOST_TEXT_BYTES", 1_000_000)
    with pytest.raises(InvalidInputError, match="more than 1,000,000 bytes"):
        look_into(bomb)
    monkeypatch.setattr(export_file, "MOST_BYTES", 10_000)
    with pytest.raises(InvalidInputError, match="at most 2,000 files and 10,000 bytes"):
        look_into(bomb)


def test_a_name_that_comes_twice_is_refused(small: Path) -> None:
    with zipfile.ZipFile(small, "a") as packed, pytest.warns(UserWarning, match="Duplicate name"):
        packed.writestr("trials.jsonl", b"")
    with pytest.raises(InvalidInputError, match="no export of a study"):
        look_into(small)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(1, 40))
def test_damage_is_an_error_of_ours(noise: bytes, at: int, length: int) -> None:
    """Whatever stands in the file, it is read whole and unchanged, or refused by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = sample()
        damaged = whole[: at % len(whole)] + noise[:length] + whole[at % len(whole) + length :]
        path = folder / "f.zip"
        path.write_bytes(damaged)
        (folder / "out").mkdir()
        with contextlib.suppress(InvalidInputError):
            read_export(path, folder / "out")
        assert {p.name for p in folder.iterdir()} == {"f.zip", "out"}


def test_the_sample_is_sound(small: Path) -> None:
    assert look_into(small)["rows"]["trials"] == 1
