"""``easeml dags copy``: the DAGs of the package in a folder of Airflow, again after an upgrade, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from easeml_core.services.operations import example_dags

ROOT = Path(__file__).resolve().parents[3]
STREAM = "easeml_stream"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A version of two DAGs, which a test can change as an upgrade does."""
    folder = tmp_path / "package"
    folder.mkdir()
    for name in (STREAM, "easeml_notify"):
        (folder / f"{name}.py").write_text(f'"""Do {name}."""\nwith DAG(dag_id="{name}", schedule=None):\n    ...\n')
    monkeypatch.setattr(example_dags, "shipped_folder", lambda: folder)
    return folder


def states(answer: Any) -> dict[str, str]:
    return {dag["dag_id"]: dag["state"] for dag in answer.json["dags"]}


def test_all_of_the_checkout_are_copied_with_their_schedules_and_again_nothing_is_written(
    run: Any, tmp_path: Path, recorded: Any
) -> None:
    target = tmp_path / "dags"
    answer = run("dags", "copy", "dags")
    recorded(answer.recorded(), "dags_copied")
    files = {path.name: path.read_bytes() for path in (ROOT / "dags").glob("*.py")}
    assert {path.name: path.read_bytes() for path in target.glob("*.py")} == files
    assert {path.stat().st_mode & 0o044 for path in target.iterdir()} == {0o044}  # the DAG processor's account reads
    before = {path: path.stat().st_mtime_ns for path in target.iterdir()}
    again = run("dags", "copy", "dags", "--json")
    assert set(states(again).values()) == {"unchanged"}
    assert {path: path.stat().st_mtime_ns for path in target.iterdir()} == before
    told = {dag["dag_id"]: dag["schedule"] for dag in again.json["dags"]}
    assert told["easeml_nightly_retraining"] == "0 1 * * * (UTC)"
    assert told["easeml_commit_gate"] == "on submissions()"
    assert told[STREAM] == "by hand"


def test_an_upgrade_replaces_copies_that_nobody_has_changed(run: Any, shipped: Path, tmp_path: Path) -> None:
    target = tmp_path / "dags"
    run("dags", "copy", str(target))
    (shipped / f"{STREAM}.py").write_text(f'"""New."""\nwith DAG("{STREAM}", schedule="@daily"):\n    ...\n')
    (shipped / "easeml_notify.py").unlink()
    answer = run("dags", "copy", str(target), "--json")
    assert states(answer) == {STREAM: "updated"}
    assert answer.json["obsolete"] == ["easeml_notify.py"]
    assert (target / f"{STREAM}.py").read_text() == (shipped / f"{STREAM}.py").read_text()


@pytest.mark.parametrize("has_record", [True, False])
def test_a_changed_file_is_refused_and_nothing_is_written_unless_forced(
    has_record: bool, run: Any, shipped: Path, tmp_path: Path
) -> None:
    target = tmp_path / "dags"
    run("dags", "copy", str(target), STREAM)
    if not has_record:  # copied by hand, before there was this command
        (target / example_dags.RECORD).unlink()
    (target / f"{STREAM}.py").write_text("# mine\n")
    refused = run("dags", "copy", str(target))
    assert refused.status == 2
    assert f"{STREAM}.py differ" in refused.err
    assert "--force" in refused.err
    assert not (target / "easeml_notify.py").exists()
    assert (target / f"{STREAM}.py").read_text() == "# mine\n"
    forced = run("dags", "copy", str(target), "--force", "--json")
    assert states(forced) == {"easeml_notify": "written", STREAM: "replaced"}


@pytest.mark.parametrize(
    "text", [f'with DAG("{STREAM}"): ...', f'dag = models.DAG(schedule=None, dag_id="{STREAM}")',
             f'@dag(dag_id="{STREAM}")\ndef f(): ...']
)  # fmt: skip
def test_a_dag_of_the_same_id_in_another_file_is_refused(text: str, run: Any, shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "dags" / "team").mkdir(parents=True)
    (tmp_path / "dags" / "team" / "ours.py").write_text(text)
    (tmp_path / "dags" / "easeml_broken.py").write_text("def easeml_stream(:")
    answer = run("dags", "copy", "dags")
    assert answer.status == 2
    assert "dags/team/ours.py" in answer.err
    assert STREAM in answer.err
    assert not (tmp_path / "dags" / "easeml_notify.py").exists()
    assert states(run("dags", "copy", "dags", "easeml_notify", "--json")) == {"easeml_notify": "written"}


def test_what_is_no_file_and_deep_code_do_not_stop_a_copy(run: Any, shipped: Path, tmp_path: Path) -> None:
    target = tmp_path / "dags"
    target.mkdir()
    (target / "chain.py").write_text(f"# easeml_\nx = a{'.f(1)' * 400}\n")
    (target / "endless.py").symlink_to("/dev/zero")
    os.mkfifo(target / "pipe.py")  # has no writer: to open it for reading waits
    assert states(run("dags", "copy", str(target), "--json")) == {"easeml_notify": "written", STREAM: "written"}
    (target / f"{STREAM}.py").unlink()
    os.mkfifo(target / f"{STREAM}.py")
    refused = run("dags", "copy", str(target))
    assert (refused.status, "is no file" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("file", "is no folder"),
        ("missing/dags", "missing does not exist"),
        ("/proc/dags", "/proc/dags cannot be written"),
        ("package", "package is where"),
        ("bad", "bad/.easeml-dags.json is no record"),
    ],
)
def test_a_folder_that_cannot_be_one_is_refused(
    target: str, says: str, run: Any, shipped: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / example_dags.RECORD).write_text(json.dumps({"files": []}))
    answer = run("dags", "copy", target)
    assert answer.status == 2
    assert says in answer.err
    assert "Traceback" not in answer.err


def test_an_unknown_dag_and_an_installation_without_dags_are_reported(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "DAG easeml_nightly; there are easeml_commit_gate, " in run("dags", "copy", ".", "easeml_nightly").err
    monkeypatch.setattr(example_dags, "PLUGIN", "easeml_core")
    monkeypatch.setattr(example_dags, "IN_CHECKOUT", "nothing")
    assert "install the wheel" in run("dags", "copy", ".").err
