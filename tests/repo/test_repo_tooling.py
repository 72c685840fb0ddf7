"""The tools around the code: pre-commit runs what `make check` runs, and each exception of a checker has a reason."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parents[2]
UNJUSTIFIED = re.compile(r"# (type: ignore(\[[a-z, -]*\])?|noqa(: [A-Z0-9, ]+)?)\s*$")
SECTIONS = ("tool.ruff.lint.per-file-ignores", "tool.ruff.lint.flake8-type-checking", "[tool.mypy.overrides]")
"""Sections of pyproject.toml in which every line is an exception, and has a comment or stands below one."""


def test_pre_commit_runs_the_checks_of_make_check() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook["entry"].split()[-1] for repository in config["repos"] for hook in repository["hooks"]]
    listed = re.search(r"^CHECKS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed is not None
    assert hooks == listed[1].split()


def test_every_exception_in_the_code_has_a_reason() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py", "*.pyi"], cwd=ROOT, capture_output=True, text=True, check=True)
    without = [
        f"{name}:{number}: {line.strip()}"
        for name in listed.stdout.split()
        if (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
        if UNJUSTIFIED.search(line) and not (name.rpartition("/")[2].startswith("test_") and "type: ignore" in line)
    ]
    assert without == [], "write the reason behind it: `# noqa: B008 - frozen`, `# type: ignore[misc]  # untyped`"


def test_every_exception_in_pyproject_has_a_reason() -> None:
    without, is_in, above = [], False, ""
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            is_in = line.strip("[]") in {name.strip("[]") for name in SECTIONS}
            is_in = is_in and not above.startswith("#")  # a comment above the section is about all of it
        elif is_in and line.strip() and not line.startswith("#") and "#" not in line and not above.startswith("#"):
            without.append(line)
        above = line
    assert without == []


def test_lock_says_what_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    lock = importlib.import_module("release.lock")
    before, after = lock.pins("click==8.1\nMy_Old==1\nsame==2\n"), lock.pins("# x\nclick==8.2\nnew==3 ; x\nsame==2\n")
    found = lock.changelog(before, after, ["click>=8.1", "same"])
    rows = [line for line in found.splitlines() if line.startswith("| ") and "---" not in line and "before" not in line]
    assert rows == ["| click | 8.1 | 8.2 |", "| my-old | 1 | gone |", "| new | new | 3 |"]
    assert lock.changelog(after, after, []) == "No version moved.\n"
