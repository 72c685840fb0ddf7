"""Sizes and names of files: small rooms, no drawer for everything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600
EXCEPTIONS = {"easeml_core/store/migrations/versions/m0001_the_house.py": "a migration is one unit, and never grows"}
"""File -> why it may be longer."""

FORBIDDEN_STEMS = {"utils", "helpers", "common", "misc", "types", "token", "queue", "select", "ast", "logging"}


def tracked(*patterns: str) -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / line for line in out.splitlines() if (ROOT / line).is_file()]


def test_no_file_is_too_long() -> None:
    sizes = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in tracked("*.py")}
    assert {n: s for n, s in sizes.items() if s > LIMIT and n not in EXCEPTIONS} == {}


def test_no_module_is_a_drawer_or_hides_a_standard_one() -> None:
    product = [p for p in tracked("*.py") if p.parts[len(ROOT.parts)] in {"easeml_core", "plugins", "dags"}]
    assert [p for p in product if p.stem in FORBIDDEN_STEMS] == []


def test_dag_files_are_short_and_named_for_their_dag() -> None:
    for path in tracked("dags/*.py"):
        text = path.read_text(encoding="utf-8")
        assert path.stem.startswith("easeml_")
        assert f'dag_id="{path.stem}"' in text
        assert len(text.splitlines()) <= 110


def test_nothing_is_pickled() -> None:
    for path in tracked("easeml_core/*.py", "plugins/*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text, path
        assert "allow_pickle=True" not in text, path
        assert "joblib" not in text, path


@pytest.mark.parametrize(("status", "made"), [(0, 0), (3, 0), (1, 2)])
def test_that_nothing_runs_is_an_answer_of_make_status(status: int, made: int, tmp_path: Path) -> None:
    (tmp_path / "stamp").touch()  # newer than all that would have to be installed
    fake = f"sh -c 'exit {status}'"
    command = ["make", "--silent", "status", f"STAMP={tmp_path / 'stamp'}", f"RUN={fake}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "Error" in done.stderr) == (made, made != 0)
