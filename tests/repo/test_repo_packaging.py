"""What is declared in one place is declared the same in the others."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import matrix
import pytest
from cells.environments import RELEASES
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def test_every_airflow_that_is_promised_has_constraints_and_was_tried() -> None:
    from easeml_airflow.version_compat import NEEDED

    (wanted,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "apache-airflow")
    (pinned,) = (line.split("==")[1] for line in lines("constraints.txt") if line.startswith("apache-airflow=="))
    needed = ".".join(map(str, NEEDED))
    assert str(wanted.specifier) == f"<4,>={needed}"
    assert (RELEASES[0].minor, RELEASES[-1].version) == (needed, pinned)
    for release in RELEASES:
        held = {Requirement(line).name for line in lines(f"constraints/{release.minor}.txt")}
        assert "scikit-learn" in held
        assert not {name for name in held if name.startswith("apache-airflow")}, "Airflow would be moved"
    worked = {o.airflow for o in matrix.read_outcomes() if o.failure is None}
    assert worked == {release.version for release in RELEASES}
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in ("docs/install.md", "SECURITY.md")]
    assert all(f"Airflow {needed}" in text for text in texts)
    assert matrix.table_of(matrix.read_outcomes()) in texts[0], "run `python scripts/matrix.py --table`"


def test_the_ranges_that_the_page_of_installation_names_are_those_of_the_wheel() -> None:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    wanted = {f"{one.name}{one.specifier}" for group in groups for one in map(Requirement, group)}
    named = re.findall(r"`([\w-]+>=[\d.]+)`", (ROOT / "docs" / "install.md").read_text(encoding="utf-8"))
    assert len(named) > 5
    assert set(named) <= wanted


@pytest.mark.parametrize(("found", "is_refused"), [
    ("2.11.0", True), ("3.0.6", True), ("3.1.0rc1", False), ("3.3.2", False), ("3.10.0", False), ("4.0.0", False),
    ("", False), (None, False),
])  # fmt: skip
def test_an_older_airflow_is_refused_in_one_sentence(found: str | None, is_refused: bool) -> None:
    from easeml_airflow.version_compat import require_airflow

    if not is_refused:
        require_airflow(found)
        return
    with pytest.raises(ImportError, match=f"needs Apache Airflow 3.1 or newer, and this is {found}: install") as caught:
        require_airflow(found)
    assert "\n" not in str(caught.value)


def test_an_older_airflow_is_named_before_anything_of_it_is_imported() -> None:
    """In a process of its own: operators, the plugin and the triggers all end with the sentence."""
    program = """
import importlib, sys
from importlib import metadata
true = metadata.version
metadata.version = lambda name: "3.0.6" if name.startswith("apache-airflow") else true(name)
for module in ("operators.trials", "plugin", "triggers.easeml", "hooks.easeml", "decorators.training_function"):
    try:
        importlib.import_module(f"easeml_airflow.{module}")
    except ImportError as error:
        assert "needs Apache Airflow 3.1 or newer, and this is 3.0.6" in str(error), (module, error)
    else:
        raise AssertionError(module)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_release_is_of_its_commit_and_its_statement_names_every_file(tmp_path: Path) -> None:
    from easeml_core.formats.attestation import SigningKey, open_envelope

    key = SigningKey.new()
    (tmp_path / "key.pem").write_bytes(key.pem())
    out = tmp_path / "dist"
    command = [sys.executable, "-m", "release", "--out", str(out), "--key", str(tmp_path / "key.pem")]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (signed,) = out.glob("*.intoto.json")
    statement = open_envelope(json.loads(signed.read_text()), {key.public.id: key.public})
    digests = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    others = [path for path in out.iterdir() if path != signed]
    assert digests == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in others}
    assert sorted(path.suffix for path in others) == [".gz", ".json", ".whl"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert statement["predicate"]["buildDefinition"]["externalParameters"]["commit"] == head.stdout.strip()
    (bom,) = out.glob("*.cdx.json")
    parts = {canonicalize_name(one["name"]): one["version"] for one in json.loads(bom.read_text())["components"]}
    pinned = dict(line.split("==") for line in lines("constraints.txt") if "==" in line)
    assert {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]} <= set(parts)
    assert {name: version for name, version in parts.items() if pinned.get(name, version) != version} == {}
