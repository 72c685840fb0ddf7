"""What is declared in one place is declared the same in the others."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_requirements_are_the_products_ranges_and_torch() -> None:
    declared = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["torch"]
    assert sorted(map(str, map(Requirement, lines("requirements.txt")))) == sorted(map(str, map(Requirement, declared)))


def test_constraints_pin_every_dependency_but_torch() -> None:
    pinned = {Requirement(line).name.lower(): Requirement(line) for line in lines("constraints.txt")}
    extras = [r for name, rs in PROJECT["optional-dependencies"].items() if name != "torch" for r in rs]
    for text in PROJECT["dependencies"] + extras:
        wanted = Requirement(text)
        pin = next(iter(pinned[wanted.name.lower()].specifier))
        assert pin.operator == "=="
        assert wanted.specifier.contains(pin.version), text
    assert "torch" not in pinned


def test_no_host_and_no_local_version_is_written_down() -> None:
    for name in ("constraints.txt", "requirements.txt", "pyproject.toml", "Makefile"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"index-url|find-links|\+cpu|://(?!airflow|docs)", text), name


def test_version_is_one() -> None:
    from easeml_core import __version__

    assert PROJECT["version"] == __version__
