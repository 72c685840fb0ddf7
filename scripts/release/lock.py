"""Resolve ``constraints.txt`` anew: the versions that are tested together, for ``pip install -c``; print what moved.

``uv pip compile`` resolves in seconds and writes no host name. Torch stays out of it and keeps its range: here its CUDA
build, with twenty packages, would be resolved for every user.

``constraints/MINOR.txt`` are for an Airflow that is there already: what our package brings along, as of that Airflow's
time, and nothing that Airflow itself has installed.
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import click
from cells.environments import RELEASES, YOUNGER, Release, constraints_of
from install import UV
from pip_settings import settings_of, uv_options

if TYPE_CHECKING:
    from collections.abc import Iterable

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET = REPOSITORY / "constraints.txt"
AIRFLOW = f"apache-airflow=={RELEASES[-1].version}"
OF_USERS = ("boosting", "demo", "embedded", "images", "metrics", "mlflow", "parquet", "plot", "remote", "s3")
"""Extras whose versions are pinned beside an older Airflow."""
OLDEST_PYTHON = "3.11"
FOR_TORCH = "setuptools>=77"  # torch wants it, nothing else does
HEADER = """\
# The tested versions, for pip install -c. Made by `make lock`; torch stays a range (uv would take its CUDA build).
"""
OF_MINOR = """\
# For pip install -c beside an Airflow {} that is there already: what our package adds, and nothing of Airflow's own.
# Made by `make lock`.
"""


def requirements() -> list[str]:
    """What pyproject.toml asks for with every extra but torch, Airflow at the version we test against, and uv."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [r for name, listed in project["optional-dependencies"].items() if name != "torch" for r in listed]
    return [AIRFLOW, FOR_TORCH, UV, *project["dependencies"], *extras]


def resolve(wanted: list[str], exclude_newer: str) -> str:
    """The pinned versions, one a line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        python = str(folder / "venv" / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-q", "uv"], check=True)
        (folder / "requirements.in").write_text("\n".join(wanted) + "\n", encoding="utf-8")
        command = [python, "-m", "uv", "pip", "compile", "-q", "requirements.in", "-p", "3.11", "--no-header"]
        command += ["--no-annotate", "--exclude-newer", exclude_newer]
        answer: str = subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True).stdout
        return answer


def brought_along(release: Release, today: str) -> str:
    """The pinned versions of what our package adds to an Airflow, one a line, for every Python that both allow."""
    airflow = f"apache-airflow=={release.version}"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [r for name, listed in project["optional-dependencies"].items() if name in OF_USERS for r in listed]
    has = pins(_resolved([airflow], release, today))
    resolved = _resolved([airflow, *project["dependencies"], *extras], release, today)
    return "".join(f"{line}\n" for line in resolved.splitlines() if pins(line).keys() - has.keys())


def _resolved(wanted: list[str], release: Release, today: str) -> str:
    options, variables = uv_options(settings_of(Path(sys.executable)), os.environ)
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "-", "--universal"]
    command += ["--python-version", OLDEST_PYTHON, "--no-header", "--no-annotate", *options]
    command += ["--exclude-newer", release.until or today]
    if release.until is None:
        command += ["--constraint", str(TARGET)]  # the very versions that the tests run with
    for name in YOUNGER if release.until else ():
        command += ["--exclude-newer-package", f"{name}={today}"]
    answer: str = subprocess.run(
        command, input="\n".join(wanted), check=True, capture_output=True, text=True, env=os.environ | variables
    ).stdout
    return answer


def pins(text: str) -> dict[str, str]:
    """Return the version of every package that a file of constraints pins, by the package's normalised name.

    Example:
        >>> pins("My_Package==1.2 ; python_version < 3.12")
        {'my-package': '1.2'}
    """
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def changelog(before: dict[str, str], after: dict[str, str], wanted: Iterable[str]) -> str:
    """Return what moved, as Markdown: first what pyproject.toml asks for, then what that brings along.

    Args:
        before: Pinned versions by name.
        after: The new ones.
        wanted: Requirements of pyproject.toml.
    """
    asked = {re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", line)[0]).lower() for line in wanted}
    moved = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    parts = {
        "Required by pyproject.toml": [name for name in moved if name in asked],
        "Brought along": [name for name in moved if name not in asked],
    }
    lines: list[str] = []
    for title, names in parts.items():
        if names:
            rows = [f"| {name} | {before.get(name, 'new')} | {after.get(name, 'gone')} |" for name in names]
            lines += [f"## {title}", "", "| package | before | after |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(lines) or "No version moved.\n"


@click.command(help=__doc__)
@click.option("--changes", type=click.Path(path_type=Path), help="Write what moved into this file as well.")
@click.option(
    "--exclude-newer", default=lambda: datetime.datetime.now(datetime.UTC).date().isoformat(), show_default="today"
)
def main(exclude_newer: str, changes: Path | None) -> None:
    """Write constraints.txt."""
    wanted, before = requirements(), pins(TARGET.read_text(encoding="utf-8"))
    try:
        pinned = resolve(wanted, exclude_newer)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stderr or ''}")
    TARGET.write_text(HEADER + pinned, encoding="utf-8")
    click.echo(f"{TARGET.name}: {pinned.count('==')} versions as of {exclude_newer}\n")
    for release in RELEASES:
        file = constraints_of(release)
        file.write_text(OF_MINOR.format(release.minor) + brought_along(release, exclude_newer), encoding="utf-8")
        click.echo(f"constraints/{file.name}")
    moved = changelog(before, pins(pinned), wanted)
    click.echo(moved)
    if changes is not None:
        changes.write_text(f"# Versions that moved as of {exclude_newer}\n\n{moved}", encoding="utf-8")


if __name__ == "__main__":
    main()
