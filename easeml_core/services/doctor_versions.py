"""Is what is installed what this version was made for? Nothing heavy is imported: only the packages' own notes."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import TYPE_CHECKING

from easeml_core.errors import counted
from easeml_core.services.checks import Check

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "easeml-airflow"
OLDEST_PYTHON = (3, 11)
_NOT_FOR_USERS = ("dev", "benchmarks", "demo")


def check_python() -> Check:
    """The interpreter."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return Check("python", "failed", f"Python {found}", "install Python 3.11 or newer")
    return Check("python", "ok", f"Python {found}")


def check_packages() -> Check:
    """Airflow, and the others that we need, against the ranges of this version."""
    try:
        wanted = [one for one in _requirements() if one.marker is None or one.marker.evaluate({"extra": ""})]
    except metadata.PackageNotFoundError:
        remedy = "compare the environment with requirements.txt; the wheel brings its ranges along"
        return Check("packages", "skipped", f"{DISTRIBUTION} is copied, not installed: no ranges to compare", remedy)
    wrong = [said for one in wanted if (said := _fault(one))]
    airflow = f"Airflow {_version('apache-airflow-core') or _version('apache-airflow') or 'not found'}"
    if wrong:
        remedy = f"pip install -c constraints.txt {DISTRIBUTION}"
        return Check("packages", "failed", f"{airflow}; {'; '.join(wrong)}", remedy)
    return Check("packages", "ok", f"{airflow}, {counted(len(wanted), 'package')} in range")


def check_extras() -> Check:
    """Which optional parts are there; a part of one that is too old is worth a word."""
    try:
        requirements = _requirements()
    except metadata.PackageNotFoundError:
        return Check("extras", "skipped", f"{DISTRIBUTION} is copied, not installed: its extras are not known")
    there: list[str] = []
    missing: list[str] = []
    wrong: list[str] = []
    names = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    for extra in (name for name in names if name not in _NOT_FOR_USERS):
        faults = {one.name: _fault(one) for one in requirements if one.marker and one.marker.evaluate({"extra": extra})}
        absent = [name for name in faults if _version(name) is None]
        (missing if absent else there).append(extra)
        wrong += [said for name, said in faults.items() if said and name not in absent]
    found = f"there: {', '.join(there) or 'none'}; not there: {', '.join(missing) or 'none'}"
    remedy = f"pip install '{DISTRIBUTION}[{','.join(missing)}]' for those that are wanted" if missing else ""
    if wrong:
        return Check("extras", "warning", f"{found}; {'; '.join(wrong)}", "pip install -U with constraints.txt")
    return Check("extras", "ok", found, remedy)


def check_torch() -> Check:
    """Whether networks can be trained at all."""
    found = _version("torch")
    if found is None:
        remedy = f"pip install '{DISTRIBUTION}[torch]', or register studies without networks"
        return Check("torch", "warning", "not installed: candidates that are networks cannot be trained", remedy)
    return Check("torch", "ok", f"torch {found}")


def _requirements() -> list[Requirement]:
    from packaging.requirements import Requirement

    return [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]


def _fault(wanted: Requirement) -> str:
    """What is wrong with an installed package; empty where nothing is."""
    found = _version(wanted.name)
    if found is None:
        return f"{wanted.name} is missing"
    return (
        "" if wanted.specifier.contains(found, prereleases=True) else f"{wanted.name} {found}, not {wanted.specifier}"
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
