"""Resolve ``constraints.txt`` anew: the versions that are tested together, for ``pip install -c``.

``uv pip compile`` resolves in seconds and writes no host name. Torch stays out of it and keeps its range: here its CUDA
build, with twenty packages, would be resolved for every user.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

import click

REPOSITORY = Path(__file__).resolve().parents[1]
TARGET = REPOSITORY / "constraints.txt"
AIRFLOW = "apache-airflow==3.3.2"
FOR_TORCH = "setuptools>=77"  # torch wants it, nothing else does
HEADER = """\
# The tested versions, for pip install -c. Made by `make lock`; torch stays a range (uv would take its CUDA build).
"""


def requirements() -> list[str]:
    """What pyproject.toml asks for, with every extra but torch, and Airflow at the version we test against."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [r for name, listed in project["optional-dependencies"].items() if name != "torch" for r in listed]
    return [AIRFLOW, FOR_TORCH, *project["dependencies"], *extras]


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


@click.command(help=__doc__)
@click.option(
    "--exclude-newer", default=lambda: datetime.datetime.now(datetime.UTC).date().isoformat(), show_default="today"
)
def main(exclude_newer: str) -> None:
    """Write constraints.txt."""
    try:
        pinned = resolve(requirements(), exclude_newer)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stderr or ''}")
    TARGET.write_text(HEADER + pinned, encoding="utf-8")
    click.echo(f"{TARGET.name}: {pinned.count('==')} versions as of {exclude_newer}")


if __name__ == "__main__":
    main()
